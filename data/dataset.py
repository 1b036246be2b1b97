"""A dataset walks one item through its getters, blocks and item transforms – and says where it stumbles."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import default_collate

from .blocks import Block, _is_missing
from .randomness import Randomness
from .transforms import Transform

__all__ = ["Collated", "Dataset", "Draw", "ForeignDataset", "ItemError", "short", "take"]


class ItemError(ValueError):
    """A step of the pipeline failed on an item: the message names item, step and fix."""


class Draw(NamedTuple):
    """One item drawn in one epoch: what its random numbers depend on, wherever it is computed."""

    index: int
    epoch: int = 0


class Collated(NamedTuple):
    """A batch as it comes from the loader, with the items it is made of."""

    values: Any
    items: list[int]
    epoch: int


def short(value: Any, width: int = 90) -> str:
    """`value` in at most `width` characters, of a path its end."""
    if isinstance(value, Tensor):
        return f"{type(value).__name__} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, pd.Series):
        value = dict(value)
    text = " ".join(str(value).split())
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if "/" in text and " " not in text else textwrap.shorten(text, width, placeholder=" …")


def take(items: Any, positions: Sequence[int]) -> Any:
    """Some of a list's items or of a DataFrame's rows."""
    if isinstance(items, (pd.DataFrame, pd.Series)):
        return items.iloc[list(positions)]
    return [items[i] for i in positions]


def _name(step: Callable) -> str:
    return getattr(step, "__name__", None) or type(step).__name__


class Dataset(torch.utils.data.Dataset):
    """Samples of a `DataBlock`: a tuple of encoded values, inputs first.

    `ds[i]` is the sample of item i as epoch 0 draws it; `ds[Draw(i, epoch)]` as that epoch does. `getters[k]` reads the raw
    value of `blocks[k]`. With `training` the item transforms draw random numbers from `(seed, epoch, i)`.
    """

    def __init__(self, items: Sequence, blocks: Sequence[Block], getters: Sequence[Callable | None], item_tfms: Sequence[Transform] = (),
                 n_inp: int = 1, training: bool = False, seed: int = 0):  # fmt: skip
        self.items, self.blocks, self.getters, self.item_tfms = items, list(blocks), list(getters), list(item_tfms)
        self.n_inp, self.training, self.seed = n_inp, training, seed

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        blocks = ", ".join(type(block).__name__ for block in self.blocks)
        return f"Dataset({len(self)} items, blocks=({blocks}), training={self.training})"

    def item(self, index: int) -> Any:
        """The raw item, a row for a DataFrame."""
        return self.items.iloc[index] if isinstance(self.items, (pd.DataFrame, pd.Series)) else self.items[index]

    def value(self, index: int, which: int) -> Any:
        """What the getter of block `which` returns for item `index`. Raises ItemError where it fails or returns None."""
        item = self.item(index)
        getter = self.getters[which]
        if getter is None:
            return item
        step = self._getter_step(which)
        value = self._step(f"{step} ({_name(getter)})", index, lambda: getter(item), f"your function gets a {type(item).__name__}")
        if value is None:
            raise ItemError(
                f"{step} ({_name(getter)}) returned None for {self._where(index)}; it gets a {type(item).__name__}: "
                "return its label, or leave the item out in get_items."
            )
        return value

    def walk(self, draw: Draw) -> Iterator[tuple[str, Any]]:
        """Each step of the pipeline as (name, result so far); the last result is the sample."""
        index = draw.index
        yield "item", self.item(index)
        encoded = []
        for which, block in enumerate(self.blocks):
            raw = self.value(index, which)
            yield self._getter_step(which), raw
            encoded.append(self._step(f"{type(block).__name__}.encode", index, lambda b=block, r=raw: b.encode(r)))
            yield f"{type(block).__name__}.encode", encoded[-1]
        sample = tuple(encoded)
        rand = Randomness(self.seed, draw.epoch, [index]) if self.training else None
        for number, tfm in enumerate(self.item_tfms):
            run = lambda t=tfm, s=sample, n=number: t(s, rand.with_stream(n) if rand else None)  # noqa: E731
            sample = self._step(f"item transform {tfm.name}", index, run)
            yield f"item transform {tfm.name}", sample
        yield "sample", sample

    def __getitem__(self, index: int | Draw) -> tuple:
        draw = index if isinstance(index, Draw) else Draw(range(len(self))[index])
        sample = ()
        for _, sample in self.walk(draw):
            pass
        return sample

    def __getitems__(self, draws: Sequence[int | Draw]) -> list[tuple[Draw, tuple]]:
        """Several samples, each with its draw: what the loader's workers ask for."""
        draws = [d if isinstance(d, Draw) else Draw(d) for d in draws]
        return [(draw, self[draw]) for draw in draws]

    def collate(self, samples: Sequence[tuple[Draw, tuple]]) -> Collated:
        """Samples as one batch. Raises ItemError that names two items of different shape."""
        draws = [draw for draw, _ in samples]
        columns = zip(*(sample for _, sample in samples), strict=True)
        values = tuple(self._collate(block, column, draws) for block, column in zip(self.blocks, columns, strict=True))
        return Collated(values, [draw.index for draw in draws], draws[0].epoch)

    def _collate(self, block: Block, column: Sequence[Tensor], draws: Sequence[Draw]) -> Tensor:
        try:
            return block.collate(column)
        except RuntimeError as error:
            shapes = [tuple(value.shape) for value in column]
            other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), 0)
            fix = "Give every image the same size: item_tfms=Resize(224)." if block.is_picture else "Make them the same in item_tfms."
            raise ItemError(
                f"{type(block).__name__} values of different sizes cannot form a batch: {shapes[0]} for {self._where(draws[0].index)}, "
                f"{shapes[other]} for {self._where(draws[other].index)}. {fix}"
            ) from error

    def check(self, which: int) -> None:
        """Encode the value of block `which` of every item, so that a bad label is found before training starts."""
        for index in range(len(self)):
            raw = self.value(index, which)
            self._step(f"{type(self.blocks[which]).__name__}.encode", index, lambda: self.blocks[which].encode(raw))

    def values(self, which: int) -> list:
        """The raw values of block `which` of all items. Raises ItemError that counts the missing ones."""
        values = [self.value(index, which) for index in range(len(self))]
        missing = [index for index, value in enumerate(values) if _is_missing(value)]
        if missing and not getattr(self.blocks[which], "add_na", False):
            raise ItemError(
                f"{len(missing)} of {len(values)} items got no label from {self._getter_step(which)} (an empty or NaN value), first: "
                f"{self._where(missing[0])}. Drop these items, or give the block add_na=True."
            )
        return values

    def _getter_step(self, which: int) -> str:
        name, position, several = ("get_x", which, self.n_inp > 1) if which < self.n_inp else (
            "get_y", which - self.n_inp, len(self.blocks) - self.n_inp > 1)  # fmt: skip
        return f"{name}[{position}]" if several else name

    def _where(self, index: int) -> str:
        return f"item {index} of {len(self)} ({short(self.item(index))})"

    def _step(self, step: str, index: int, run: Callable[[], Any], hint: str = "") -> Any:
        try:
            return run()
        except Exception as error:
            message = str(error) if str(error) and not isinstance(error, KeyError) else repr(error)
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ItemError(f"{step} failed on {self._where(index)}: {kind}{message}{f'; {hint}' if hint else ''}") from error


class ForeignDataset(torch.utils.data.Dataset):
    """Any map-style dataset, keyed by draws; while a training batch is read, the global generators follow from it."""

    def __init__(self, dataset: Any, training: bool, seed: int):
        self.dataset, self.training, self.seed = dataset, training, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, draws: Sequence[Draw]) -> tuple[Sequence[Draw], list]:
        if not self.training:
            return draws, self._read(draws)
        with Randomness(self.seed, draws[0].epoch, [draws[0].index]).seeded():
            return draws, self._read(draws)

    def _read(self, draws: Sequence[Draw]) -> list:
        indices = [draw.index for draw in draws]
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(indices)
        return [self.dataset[i] for i in indices]

    def collate(self, read: tuple[Sequence[Draw], list]) -> Collated:
        draws, samples = read
        return Collated(default_collate(samples), [draw.index for draw in draws], draws[0].epoch)
