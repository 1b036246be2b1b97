"""A DataBlock says what an item is and where it comes from; from a source it builds datasets and loaders."""

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .batch import default_device
from .blocks import Block
from .bunch import DataBunch, check_batch_size
from .by_length import order_by_length
from .cache import Cache, open_cache
from .dataset import Dataset, Draw
from .getters import SamplePart
from .items import as_items, item_at, short, take
from .loaders import DeviceLoader, make_loader
from .portable import Portable
from .randomness import fresh_seed, seeded_generators
from .splitters import RandomSplitter
from .transforms import Transform, apply_transforms, as_transforms
from .workers import default_workers

__all__ = ["DataBlock", "Datasets"]


class Datasets(NamedTuple):
    """The samples of a source, split."""

    train: Dataset
    valid: Dataset


@dataclass
class DataBlock(Portable):
    """What an item is, and how a source becomes loaders.

    `blocks`: a block (class or instance) for each value of a sample, inputs first; the first `n_inp` (by default all
    but the last, or but as many as `get_y` has functions) are inputs. `get_items(source)` lists the items, `get_x` and
    `get_y` read a value from an item (a list of functions where there are several inputs or targets); None takes the
    item as it is, or – where items are tuples with a value for each block – its part. `splitter(items)` gives the
    positions to train and to validate on (a random fifth by default). `item_tfms` run on each sample, `batch_tfms` on
    each batch on the device, both sorted by their `order`: see `data.transforms` and `Transform`.

        DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label, item_tfms=Resize(224))
    """

    blocks: Any
    get_items: Callable | None = None
    get_x: Callable | Sequence[Callable] | None = None
    get_y: Callable | Sequence[Callable] | None = None
    splitter: Callable | None = None
    n_inp: int | None = None
    item_tfms: Any = None
    batch_tfms: Any = None

    def __post_init__(self):
        self.blocks = _as_blocks(self.blocks)
        if self.n_inp is None:
            n_targets = len(self.get_y) if isinstance(self.get_y, (list, tuple)) else 1
            self.n_inp = max(1, len(self.blocks) - n_targets)
        if not 1 <= self.n_inp <= len(self.blocks):
            raise ValueError(f"n_inp={self.n_inp}: of {len(self.blocks)} blocks, 1 to {len(self.blocks)} are inputs.")
        _check_function("get_items", self.get_items)
        _check_function("splitter", self.splitter)
        self._getters()  # raises where they do not fit
        self.item_tfms, self.batch_tfms = as_transforms(self.item_tfms), as_transforms(self.batch_tfms)
        _check_range(self.item_tfms, self.batch_tfms)

    def datasets(self, source: Any, seed: int | None = None) -> Datasets:
        """Read the items of `source`, split them, and let the blocks learn from the training items.

        Every label is read and encoded once, so that a bad one is reported here. Raises ValueError where there are no
        items, or none to train or to validate on, and ItemError for an item that has no usable label.
        """
        return self._datasets(self._items(source), seed)

    def databunch(self, source: Any, path: str | Path = ".", bs: int = 64, val_bs: int | None = None,
                  num_workers: int | None = None, device: torch.device | str | None = None,
                  cache: str | Cache | None = None, shuffle: bool = True, drop_last: bool = True,
                  seed: int | None = None, sampler: Iterable[int] | None = None) -> DataBunch:  # fmt: skip
        """Loaders for `source`.

        `bs` and `val_bs` (by default `bs`) in items; `num_workers` processes read items (by default one per core, none
        where training runs on the CPU itself), and before that whatever a block can read ahead; `seed` governs the
        split, unless its splitter has a seed of its own, order and augmentation (by default drawn from torch's global
        generator, which `set_seed` governs); `sampler` replaces shuffling: any iterable of positions in the training
        set, asked anew each epoch.

        Where the first input is a sequence, as a text is, items of about the same length are together, and those of
        validation come longest first. A block may also make batches of its own, as one for language models does: these
        have `bs` rows that move on together, and neither `sampler` nor `cache` (`drop_last` is of no account).

        `cache` keeps pictures decoded and scaled, so that later epochs do not decode again; batches are the same, to
        the bit. "memory" is shared with the workers and given back at the end; "disk" is below `WARMSTART_HOME`, for
        later runs and for several processes at once. With `Resize(256)` a photo takes some 260 KB. What a file has
        become when it is changed, and labels, are always read anew. `Cache` has a limit and a folder.

        Raises ValueError where `bs` exceeds the training set, and what `datasets` raises.
        """
        device = torch.device(device) if device is not None else default_device()
        val_bs, tfms = val_bs or bs, self._batch_tfms()
        train, valid = self._datasets(self._items(source), seed, num_workers)
        own = train.blocks[0].own_loader(train, bs, device, tfms, True, shuffle)
        if own is not None:
            _check_no_order(train.blocks[0], sampler, cache)
            return DataBunch(own, valid.blocks[0].own_loader(valid, val_bs, device, tfms, False, False), path=path)
        if drop_last:
            check_batch_size(len(sampler) if isinstance(sampler, Sized) else len(train), bs)
        train.cache = valid.cache = open_cache(cache, train)
        workers = default_workers(device) if num_workers is None else num_workers
        order = order_by_length(train, bs) if sampler is None and shuffle else sampler
        train_dl = make_loader(train, bs, workers, device, shuffle, drop_last, order)
        valid_dl = make_loader(valid, val_bs, workers, device, order=order_by_length(valid))
        return DataBunch(
            DeviceLoader(train_dl, device, tfms, train.blocks, training=True),
            DeviceLoader(valid_dl, device, tfms, train.blocks),
            path=path,
            device=device,
        )

    def summary(self, source: Any) -> None:
        """Walk one sample and one batch through the pipeline, printing each step; the step that fails is named."""
        items = self._items(source)
        print(f"Found {len(items)} items in {short(source)}")
        train, valid = self._datasets(items, None)
        print(f"Split by {self._splitter!r}: {len(train)} train, {len(valid)} valid")
        for block in train.blocks:
            print(f"Block {short(block, 110)}")
        print("\nOne sample")
        for step, value in train.walk(Draw(0)):
            print(f"  {step}: {_describe_value(value)}")
        draws = [Draw(i) for i in range(min(4, len(train)))]
        print(f"\nA batch of {len(draws)}")
        batch = train.collate(train.__getitems__(draws)).values
        print(f"  collate: {_describe_value(batch)}")
        batch = tuple(block.wrap(value) for block, value in zip(train.blocks, batch, strict=True))
        for tfm in self._batch_tfms():
            batch = apply_transforms([tfm], batch, None)
            print(f"  batch transform {tfm.name}: {_describe_value(batch)}")

    # ---- from source to datasets

    @property
    def _splitter(self) -> Callable:
        return RandomSplitter() if self.splitter is None else self.splitter

    def _items(self, source: Any) -> Any:
        items = as_items(self.get_items(source) if self.get_items else source)
        if not len(items):
            where = f"{_name(self.get_items)} found" if self.get_items else "There are"
            raise ValueError(
                f"{where} no items in {short(source)}: is it the right place, and do the files have the expected "
                "extensions?"
            )
        return items

    def _datasets(self, items: Any, seed: int | None, n_workers: int | None = None) -> Datasets:
        seed = fresh_seed() if seed is None else seed
        with seeded_generators(seed):
            train_idx, valid_idx = self._split(items)
        getters = self._getters()
        if self.get_x is None and self.get_y is None and sum(block.reads_item for block in self.blocks) > 1:
            getters = self._parts_of_tuples(items)
        train, valid = (
            Dataset(take(items, idx), self.blocks, getters, self._item_tfms(), self.n_inp or 1, training, seed)
            for idx, training in ((train_idx, True), (valid_idx, False))
        )
        return self._learn(train, valid, n_workers)

    def _split(self, items: Any) -> tuple[Sequence[int], Sequence[int]]:
        split = self._splitter(items)
        if not isinstance(split, (tuple, list)) or len(split) != 2:
            raise TypeError(f"The splitter returns two lists of positions, (train, valid), not {short(split)}.")
        for name, positions in zip(("training", "validation"), split, strict=True):
            if not len(positions):
                raise ValueError(
                    f"{self._splitter!r} put 0 of {len(items)} items into the {name} set: change the splitter. (To "
                    "train without validation, split off a few items and use DataBunch(data.train_dl).)"
                )
        return split[0], split[1]

    def _getters(self) -> list[Callable | None]:
        n_inp = self.n_inp or 1
        return _as_getters(self.get_x, n_inp, "get_x") + _as_getters(self.get_y, len(self.blocks) - n_inp, "get_y")

    def _parts_of_tuples(self, items: Any) -> list[Callable | None]:
        """Readers of items that are samples already, one value for each block."""
        first = item_at(items, 0)
        if not isinstance(first, (tuple, list)) or len(first) != len(self.blocks):
            raise ValueError(
                f"{len(self.blocks)} blocks but no get_y: pass get_y (get_y=parent_label, ColReader('label'), your own "
                f"function), or items that are tuples of {len(self.blocks)} values. The first item is {short(first)}."
            )
        return [SamplePart(i, "tuple" if isinstance(first, tuple) else "list") for i in range(len(self.blocks))]

    def _item_tfms(self) -> list[Transform]:
        return as_transforms(_once(t for block in self.blocks for t in block.item_tfms) + self.item_tfms)

    def _batch_tfms(self) -> list[Transform]:
        return as_transforms(_once(t for block in self.blocks for t in block.batch_tfms) + self.batch_tfms)

    def _learn(self, train: Dataset, valid: Dataset, n_workers: int | None) -> Datasets:
        """Both datasets with blocks that know their vocabulary, and every label tried out."""
        min_side = getattr(train.item_tfms[0], "min_side", None) if train.item_tfms else None
        alone = sum(block.is_spatial for block in self.blocks) == 1
        for which, block in enumerate(self.blocks):
            if min_side and alone and block.is_spatial:
                block = block.for_min_side(min_side)
            values, more = (part.values(which) if block.learns else [] for part in (train, valid))
            block = block.read_ahead([*values, *more], n_workers).setup(values)
            train.blocks[which] = valid.blocks[which] = block
            if block.learns:
                train.check(which, values)
                valid.check(which, more)
        return Datasets(train, valid)


def _as_blocks(blocks: Any) -> tuple[Block, ...]:
    given = blocks if isinstance(blocks, (list, tuple)) else (blocks,)
    made = [block() if isinstance(block, type) and issubclass(block, Block) else block for block in given]
    right = tuple(block for block in made if isinstance(block, Block))
    if len(right) < len(made) or not made:
        raise TypeError(f"blocks takes Block classes or instances, as in (ImageBlock, CategoryBlock), not {blocks!r}.")
    return right


def _once(tfms: Iterable[Transform]) -> list[Transform]:
    """Transforms that several blocks bring along, each a single time."""
    all_tfms = list(tfms)
    return [tfm for i, tfm in enumerate(all_tfms) if tfm not in all_tfms[:i]]


def _as_getters(getter: Any, n: int, name: str) -> list[Callable | None]:
    getters = list(getter) if isinstance(getter, (list, tuple)) else [getter] * (n if getter is None else 1)
    if len(getters) != n:
        raise ValueError(f"{name} has {len(getters)} functions for {n} blocks: pass a list with one for each.")
    for function in getters:
        _check_function(name, function)
    return getters


def _check_range(item_tfms: Sequence[Transform], batch_tfms: Sequence[Transform]) -> None:
    """Raise ValueError where values are normalised on each item, and then cut off on the batch."""
    clips = next((tfm.name for tfm in batch_tfms if tfm.clips), None)
    if clips and any(tfm.name == "Normalize" for tfm in item_tfms):
        raise ValueError(
            f"item_tfms: Normalize would come before {clips} of batch_tfms, which needs values in [0, 1] and cuts off "
            "others: put Normalize into batch_tfms, where it comes last."
        )


def _check_no_order(block: Block, sampler: Any, cache: Any) -> None:
    """Raise ValueError for what a block that makes its own batches has no use for."""
    for name, given in (("sampler", sampler), ("cache", cache)):
        if given is not None:
            raise ValueError(f"{name}={short(given, 40)}: {block!r} makes batches of its own, leave it out.")


def _check_function(name: str, function: Any) -> None:
    """Raise TypeError for what cannot be called, and for a class of ours whose instance is meant."""
    if isinstance(function, type) and issubclass(function, Portable):
        raise TypeError(f"{name}={function.__name__} is a class: pass an instance, {function.__name__}(...).")
    if function is not None and not callable(function):
        raise TypeError(f"{name} takes a function, not {function!r}.")


def _name(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _describe_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_describe_value, value)) + ")"
    return short(value)
