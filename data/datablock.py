"""A DataBlock says what an item is and where it comes from; from a source it builds datasets and loaders."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from .batch import default_device
from .blocks import Block
from .bunch import DataBunch, check_batch_size
from .dataset import Dataset, Draw, short, take
from .getters import ItemGetter
from .loaders import DeviceLoader, default_workers, make_loader
from .portable import Portable
from .randomness import fresh_seed
from .splitters import RandomSplitter
from .transforms import Transform, apply_transforms, as_transforms

__all__ = ["DataBlock", "Datasets"]


class Datasets(NamedTuple):
    """The samples of a source, split."""

    train: Dataset
    valid: Dataset


@dataclass
class DataBlock(Portable):
    """What an item is, and how a source becomes loaders.

    `blocks`: a block (class or instance) for each value of a sample, inputs first; the first `n_inp` (by default all but
    the last) are inputs. `get_items(source)` lists the items, `get_x` and `get_y` read a value from an item (a list of
    functions where there are several inputs or targets); None takes the item as it is, or – where items are tuples with a
    value for each block – its part. `splitter(items)` gives the positions to train and to validate on. `item_tfms` run
    on each sample, `batch_tfms` on each batch on the device: see `data.transforms`.

        DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label, item_tfms=Resize(224))
    """

    blocks: Sequence[Any]
    get_items: Callable | None = None
    get_x: Callable | Sequence[Callable] | None = None
    get_y: Callable | Sequence[Callable] | None = None
    splitter: Callable | None = None
    n_inp: int | None = None
    item_tfms: Any = None
    batch_tfms: Any = None

    def __post_init__(self):
        blocks = self.blocks if isinstance(self.blocks, (list, tuple)) else (self.blocks,)
        self.blocks = tuple(block() if isinstance(block, type) else block for block in blocks)
        wrong = next((block for block in self.blocks if not isinstance(block, Block)), None)
        if wrong is not None or not blocks:
            raise TypeError(f"blocks takes Block classes or instances, such as (ImageBlock, CategoryBlock), not {wrong!r}.")
        if self.n_inp is None:
            self.n_inp = max(1, len(blocks) - 1)
        self.item_tfms, self.batch_tfms = as_transforms(self.item_tfms), as_transforms(self.batch_tfms)

    def datasets(self, source: Any, seed: int | None = None) -> Datasets:
        """Read the items of `source`, split them, and let the blocks learn from the training items.

        Every label is read and encoded once, so that a bad one is reported here. Raises ValueError where there are no
        items, where none validates, and ItemError for an item that has no usable label.
        """
        items = self._items(source)
        train_idx, valid_idx = (self.splitter or RandomSplitter())(items)
        if not len(valid_idx):
            raise ValueError(
                f"{self.splitter or RandomSplitter()!r} put 0 of {len(items)} items into the validation set. Change the splitter; to "
                "train without validation, build the data with one and use DataBunch(data.train_dl)."
            )
        train, valid = self._dataset(take(items, train_idx), True, seed), self._dataset(take(items, valid_idx), False, seed)
        return self._learn(train, valid)

    def databunch(self, source: Any, path: str | Path = ".", bs: int = 64, val_bs: int | None = None, num_workers: int | None = None,
                  device: torch.device | str | None = None, shuffle: bool = True, drop_last: bool = True, seed: int | None = None,
                  sampler: Iterable[int] | None = None) -> DataBunch:  # fmt: skip
        """Loaders for `source`.

        `bs` and `val_bs` (by default `bs`) in items; `num_workers` processes read items (by default one per core); `seed`
        governs order and augmentation (by default drawn from torch's global generator, which `set_seed` governs);
        `sampler` replaces shuffling: any iterable of positions in the training set, asked anew each epoch.
        Raises ValueError where `bs` exceeds the training set, and what `datasets` raises.
        """
        device = torch.device(device) if device is not None else default_device()
        train, valid = self.datasets(source, fresh_seed() if seed is None else seed)
        if drop_last:
            check_batch_size(len(train), bs)
        workers = default_workers() if num_workers is None else num_workers
        train_dl = make_loader(train, bs, workers, device, shuffle, drop_last, sampler)
        valid_dl = make_loader(valid, val_bs or bs, workers, device)
        tfms = self._batch_tfms()
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
        train, valid = self.datasets(source)
        print(f"Split by {self.splitter or RandomSplitter()}: {len(train)} train, {len(valid)} valid")
        for block in train.blocks:
            print(f"Block {short(block, 110)}")
        print("\nOne sample")
        for step, value in train.walk(Draw(0)):
            print(f"  {step}: {_describe_value(value)}")
        n = min(4, len(train))
        print(f"\nA batch of {n}")
        batch = DeviceLoader([], torch.device("cpu"), (), train.blocks, training=True).prepare(train.collate(train.__getitems__(range(n))))
        print(f"  collate: {_describe_value(batch)}")
        batch = tuple(block.wrap(value) for block, value in zip(train.blocks, batch, strict=True))
        for tfm in self._batch_tfms():
            batch = apply_transforms([tfm], batch, None)
            print(f"  batch transform {tfm.name}: {_describe_value(batch)}")

    def _items(self, source: Any) -> Any:
        items = self.get_items(source) if self.get_items else source
        if not isinstance(items, (pd.DataFrame, pd.Series)) and not isinstance(items, Sequence):
            if isinstance(items, Path) or not isinstance(items, Iterable):
                raise TypeError(f"{short(items)} is not a list of items: give the DataBlock a get_items, such as get_items=get_image_files.")
            items = list(items)
        if isinstance(items, str):
            raise TypeError(f"{items!r} is one text, not a list of items: give the DataBlock a get_items, such as get_items=get_image_files.")
        if not len(items):
            function = getattr(self.get_items, "__name__", "the source")
            raise ValueError(f"{function} found no items in {short(source)}: is the path right, and do the files have the expected extensions?")
        return items

    def _dataset(self, items: Any, training: bool, seed: int | None) -> Dataset:
        getters = _getters(self.get_x, self.n_inp or 1, "get_x") + _getters(self.get_y, len(self.blocks) - (self.n_inp or 1), "get_y")
        if self.get_x is None and self.get_y is None and len(self.blocks) > 1:
            getters = self._parts_of_tuples(items)
        return Dataset(items, self.blocks, getters, self._item_tfms(), self.n_inp or 1, training, fresh_seed() if seed is None else seed)

    def _parts_of_tuples(self, items: Any) -> list[Callable | None]:
        first = items[0] if len(items) and not isinstance(items, pd.DataFrame) else None
        if len(items) and not (isinstance(first, (tuple, list)) and len(first) == len(self.blocks)):
            raise ValueError(
                f"{len(self.blocks)} blocks but no get_y: pass get_y (get_y=parent_label, ColReader('label'), your own function), or items "
                f"that are tuples of {len(self.blocks)} values. The first item is {short(first if first is not None else items.iloc[0])}."
            )
        return [ItemGetter(i) for i in range(len(self.blocks))]

    def _item_tfms(self) -> list[Transform]:
        return as_transforms([*(t for block in self.blocks for t in block.item_tfms), *self.item_tfms])

    def _batch_tfms(self) -> list[Transform]:
        own = [t for block in self.blocks for t in block.batch_tfms]
        return as_transforms([t for i, t in enumerate(own) if t not in own[:i]] + list(self.batch_tfms))

    def _learn(self, train: Dataset, valid: Dataset) -> Datasets:
        """Both datasets with blocks that know their vocabulary, and every label tried out."""
        min_side = getattr(train.item_tfms[0], "min_side", None) if train.item_tfms else None
        alone = sum(block.is_spatial for block in self.blocks) == 1
        blocks = []
        for which, block in enumerate(self.blocks):
            block = block.setup(train.values(which) if block.learns else ())
            blocks.append(block.for_min_side(min_side) if min_side and alone and block.is_spatial else block)
        train.blocks, valid.blocks = blocks, list(blocks)
        for which in (which for which, block in enumerate(blocks) if block.learns):
            train.check(which)
            valid.check(which)
        return Datasets(train, valid)


def _getters(getter: Any, n: int, name: str) -> list[Callable | None]:
    getters = list(getter) if isinstance(getter, (list, tuple)) else [getter] * (n if getter is None else 1)
    if len(getters) != n:
        raise ValueError(f"{name} has {len(getters)} functions for {n} blocks: pass a list with one for each.")
    return getters


def _describe_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_describe_value, value)) + ")"
    return short(value)
