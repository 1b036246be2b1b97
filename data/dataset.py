"""A dataset walks one item through its getters, blocks and item transforms – and says where it stumbles."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from .blocks import Block
from .cache import ItemCache
from .items import ItemError, item_at, kind, short
from .portable import Portable
from .randomness import Randomness, kept_generators, seed_generators
from .transforms import Transform

__all__ = ["Collated", "Dataset", "Draw"]


class Draw(NamedTuple):
    """One item drawn in one epoch: what its random numbers depend on, wherever it is computed."""

    index: int
    epoch: int = 0


class Collated(NamedTuple):
    """A batch as it comes from the loader, with the items it is made of."""

    values: Any
    items: list[int]
    epoch: int


class Dataset(torch.utils.data.Dataset):
    """Samples of a `DataBlock`: a tuple of encoded values, inputs first.

    `ds[i]` is the sample of item i as epoch 0 draws it; `ds[Draw(i, epoch)]` as that epoch does. `getters[k]` reads the
    raw value of `blocks[k]`. With `training` the item transforms draw random numbers from `(seed, epoch, i)`. While an
    item is read, the global generators of torch, numpy and random follow from the same: functions may draw from them.
    `cache` keeps what is read and decoded; samples are the same with and without.
    """

    def __init__(self, items: Any, blocks: Sequence[Block], getters: Sequence[Callable | None],
                 item_tfms: Sequence[Transform] = (), n_inp: int = 1, training: bool = False, seed: int = 0,
                 cache: ItemCache | None = None):  # fmt: skip
        self.items, self.n_inp, self.training, self.seed, self.cache = items, n_inp, training, seed, cache
        self.blocks, self.getters, self.item_tfms = list(blocks), list(getters), list(item_tfms)
        # as objects, a row keeps an integer an integer beside a float, and is made faster
        self._rows = items.astype(object) if isinstance(items, pd.DataFrame) else items

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        blocks = ", ".join(type(block).__name__ for block in self.blocks)
        return f"Dataset({len(self)} items, blocks=({blocks}), training={self.training})"

    # ---- samples

    def __getitem__(self, index: int | Draw) -> tuple:
        draw = index if isinstance(index, Draw) else Draw(range(len(self))[index])
        with kept_generators():
            return self._sample(draw)

    def __getitems__(self, indices: Sequence[int | Draw]) -> list:
        """Several samples, for a `DataLoader`; asked for by a `Draw`, one comes as (draw, sample), ready to collate."""
        with kept_generators():
            return [(i, self._sample(i)) if isinstance(i, Draw) else self._sample(Draw(i)) for i in indices]

    def _sample(self, draw: Draw) -> tuple:
        seed_generators(self._randomness(draw).first)
        if self.cache is None:
            *_, (_, sample) = self.walk(draw)
            return sample
        sample, n_done = self._kept(draw.index, self.cache)
        rand = self._randomness(draw) if self.training else None
        for number, tfm in enumerate(self.item_tfms[n_done:], n_done):
            sample = self._transform(tfm, sample, draw.index, rand.with_stream(number) if rand else None)
        return sample

    def _kept(self, index: int, cache: ItemCache) -> tuple[tuple, int]:
        """The sample as far as the cache keeps it, and how many of the item transforms are done."""
        raws = self.raws(index)

        def encode(which: int) -> Tensor:
            return self._encode(raws[which], index, self.blocks[which])

        def transform(tfm: Transform, function: Callable, sample: tuple) -> tuple:
            return self._apply(tfm, function, sample, index)

        return cache.begin(self.blocks, self.item_tfms, raws, encode, transform)

    def _randomness(self, draw: Draw) -> Randomness:
        return Randomness(self.seed, draw.epoch, [draw.index])

    def walk(self, draw: Draw) -> Iterator[tuple[str, Any]]:
        """Each step of the pipeline as (name, result so far); the last result is the sample."""
        item = self.item(draw.index)
        yield "item", item
        encoded = []
        for which, block in enumerate(self.blocks):
            raw = self._raw(item, draw.index, which)
            yield self._getter_step(which), raw
            encoded.append(self._encode(raw, draw.index, block))
            yield f"{type(block).__name__}.encode", encoded[-1]
        sample = tuple(encoded)
        rand = self._randomness(draw) if self.training else None
        for number, tfm in enumerate(self.item_tfms):
            sample = self._transform(tfm, sample, draw.index, rand.with_stream(number) if rand else None)
            yield f"item transform {tfm.name}", sample
        yield "sample", sample

    # ---- the steps, each naming itself and the item where it fails

    def item(self, index: int) -> Any:
        """The raw item, a row for a DataFrame."""
        return item_at(self._rows, index)

    def raws(self, index: int) -> list:
        """What the getters make of an item, a value for each block. Raises ItemError where one is missing."""
        item = self.item(index)
        return [self._raw(item, index, which) for which in range(len(self.blocks))]

    def _raw(self, item: Any, index: int, which: int) -> Any:
        raw = self._read(item, index, which)
        if raw is None and self.blocks[which].is_missing(raw):
            raise self._missing([index], which)
        return raw

    def _read(self, item: Any, index: int, which: int) -> Any:
        """What the getter of block `which` makes of the item."""
        getter = self.getters[which]
        if getter is None:
            return item
        try:
            return getter(item)
        except Exception as error:
            hint = "" if isinstance(getter, Portable) else f"; your function gets a {kind(item)}"
            raise self._failed(self._getter_name(which), index, error, hint) from error

    def _encode(self, raw: Any, index: int, block: Block) -> Tensor:
        try:
            return block.encode(raw)
        except Exception as error:
            raise self._failed(f"{type(block).__name__}.encode", index, error) from error

    def _transform(self, tfm: Transform, sample: tuple, index: int, rand: Randomness | None) -> tuple:
        return self._apply(tfm, lambda sample: tfm(sample, rand), sample, index)

    def _apply(self, tfm: Transform, function: Callable[[tuple], tuple], sample: tuple, index: int) -> tuple:
        """`function(sample)`, which `tfm` or a part of it is."""
        try:
            result = function(sample)
        except Exception as error:
            raise self._failed(f"item transform {tfm.name}", index, error) from error
        if not isinstance(result, tuple) or len(result) != len(sample):
            raise ItemError(
                f"item transform {tfm.name} returned {short(result)} for a sample of {len(sample)} values, for "
                f"{self.where(index)}: return a tuple of as many values."
            )
        return result

    def _getter_step(self, which: int) -> str:
        n_inp, n_targets = self.n_inp, len(self.blocks) - self.n_inp
        if which < n_inp:
            return f"get_x[{which}]" if n_inp > 1 else "get_x"
        return f"get_y[{which - n_inp}]" if n_targets > 1 else "get_y"

    def _getter_name(self, which: int) -> str:
        getter = self.getters[which]
        return f"{self._getter_step(which)} ({getattr(getter, '__name__', type(getter).__name__)})"

    def where(self, index: int) -> str:
        """Which item that is, in words."""
        return f"item {index} of {len(self)} ({short(self.item(index))})"

    def _failed(self, step: str, index: int, error: Exception, hint: str = "") -> ItemError:
        message = str(error) if str(error) and not isinstance(error, KeyError) else repr(error)
        kind_of_error = "" if isinstance(error, (ValueError, KeyError)) else f"{type(error).__name__}: "
        return ItemError(f"{step} failed on {self.where(index)}: {kind_of_error}{message}{hint}")

    def _missing(self, indices: Sequence[int], which: int) -> ItemError:
        first = indices[0]
        return ItemError(
            f"{self._getter_name(which)} gave no value (None, NaN or empty) for {len(indices)} of {len(self)} items, "
            f"first: {self.where(first)}. It gets a {kind(self.item(first))}: return its value, or leave such "
            "items out in get_items; for labels, add_na=True makes them a class of their own."
        )

    # ---- before training: raw values, tried out

    def values(self, which: int) -> list:
        """The raw values of block `which` of all items. Raises ItemError that counts the missing ones."""
        values = [self._read(self.item(index), index, which) for index in range(len(self))]
        missing = [index for index, value in enumerate(values) if self.blocks[which].is_missing(value)]
        if missing:
            raise self._missing(missing, which)
        return values

    def check(self, which: int, values: Sequence[Any]) -> None:
        """Encode the raw `values` of block `which`, so that a bad label is found before training starts."""
        for index, value in enumerate(values):
            self._encode(value, index, self.blocks[which])

    # ---- batches

    def collate(self, samples: Sequence[tuple[Draw, tuple]]) -> Collated:
        """Samples as one batch. Raises ItemError that names two items of different shape."""
        draws = [draw for draw, _ in samples]
        columns = zip(*(sample for _, sample in samples), strict=True)
        values = tuple(self._collate(*pair, draws) for pair in zip(self.blocks, columns, strict=True))
        return Collated(values, [draw.index for draw in draws], draws[0].epoch)

    def _collate(self, block: Block, column: Sequence[Tensor], draws: Sequence[Draw]) -> Tensor:
        try:
            return block.collate(column)
        except (RuntimeError, AttributeError, TypeError) as error:
            if (odd := next((i for i, value in enumerate(column) if not isinstance(value, Tensor)), None)) is not None:
                names = ", ".join(tfm.name for tfm in self.item_tfms) or "none"
                raise ItemError(
                    f"The item transforms ({names}) leave a {kind(column[odd])} for the "
                    f"{type(block).__name__} of {self.where(draws[odd].index)}: return a tensor."
                ) from error
            shapes = [tuple(value.shape) for value in column]
            other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
            if other is None:
                raise
            raise ItemError(
                f"{type(block).__name__} values of different sizes cannot form a batch: {shapes[0]} for "
                f"{self.where(draws[0].index)}, {shapes[other]} for {self.where(draws[other].index)}. "
                f"{self._fix_of_sizes(block)}"
            ) from error

    def _fix_of_sizes(self, block: Block) -> str:
        idle = [] if self.training else [tfm.name for tfm in self.item_tfms if getattr(tfm, "is_random", False)]
        note = f" {', '.join(idle)} of torchvision acts on training items only." if idle else ""
        return f"Bring them to one size in item_tfms{', as Resize(224) does' if block.is_picture else ''}.{note}"
