"""A DataBunch: the loaders of a task (train, valid, test) on a device, which know how to show and decode themselves."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from .batch import batch_size, default_device
from .blocks import Block
from .dataset import Dataset, Draw
from .foreign import ForeignDataset
from .items import as_items
from .loaders import DeviceLoader, make_loader
from .randomness import fresh_seed
from .sharding import Shard
from .show import show_samples
from .transforms import Transform, as_transforms, decode_transforms

__all__ = ["DataBunch", "check_batch_size"]


class DataBunch:
    """Loaders for training and validation: from a `DataBlock`, from datasets, or any loaders of your own.

    `DataBunch(train_dl, valid_dl)` takes anything that can be iterated every epoch and yields batches: tuples `(x, y)`,
    dicts, nested ones. The loaders are wrapped so that their batches arrive on `device` (by default the accelerator).
    Of a tuple the first `n_inp` values go to the model, by default all but the last: of `(x, y1, y2)` with `n_inp=1`
    the loss gets both targets. `dls` holds all loaders: train, valid, and further ones for validation.
    """

    def __init__(self, train_dl: Iterable, valid_dl: Iterable | None = None, test_dl: Iterable | None = None,
                 path: str | Path = ".", device: torch.device | str | None = None,
                 n_inp: int | None = None):  # fmt: skip
        loaders = [train_dl, valid_dl] if test_dl is None else [train_dl, valid_dl, test_dl]
        if device is None:
            device = next((dl.device for dl in loaders if isinstance(dl, DeviceLoader)), None)
        if n_inp is not None and n_inp < 1:
            raise ValueError(f"n_inp={n_inp}: of a batch's values one or more are inputs.")
        self.path, self.device, self._n_inp = Path(path), _device(device), n_inp
        self.dls = [None if dl is None else _on_device(dl, self.device) for dl in loaders]
        if n_inp is not None and self.blocks:
            raise ValueError("n_inp is for loaders of your own: those of a DataBlock know it, DataBlock(n_inp=…).")

    @classmethod
    def from_dsets(cls, train: Any, valid: Any = None, bs: int = 64, val_bs: int | None = None,
                   num_workers: int | None = None, device: torch.device | str | None = None,
                   seed: int | None = None, n_inp: int | None = None) -> "DataBunch":  # fmt: skip
        """From map-style datasets (shuffled by `(seed, epoch)`) or `IterableDataset`s; torch's default collation.

        `n_inp` of a sample's values are inputs, by default all but the last; `num_workers` defaults to 0. Raises
        ValueError where `train` is empty or smaller than one batch; ItemError, when read, names what cannot be.
        """
        if not isinstance(train, IterableDataset):
            check_batch_size(len(train), bs)
        target, seed = _device(device), fresh_seed() if seed is None else seed

        def loader(dataset: Any, bs: int, training: bool) -> DeviceLoader:
            return _foreign_loader(dataset, bs, num_workers or 0, target, seed, training)

        valid_dl = None if valid is None else loader(valid, val_bs or bs, training=False)
        return cls(loader(train, bs, training=True), valid_dl, device=target, n_inp=n_inp)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {_size(dl)}" for name, dl in zip(("train", "valid", "test"), self.dls, strict=False))
        return f"DataBunch({sizes} on {self.device})"

    # ---- what is in it

    @property
    def train_dl(self) -> DeviceLoader:
        return self.dls[0]  # type: ignore[return-value]

    @property
    def valid_dl(self) -> DeviceLoader | None:
        return self.dls[1]

    @property
    def train_ds(self) -> Any:
        return self.train_dl.dataset

    @property
    def valid_ds(self) -> Any:
        return None if self.valid_dl is None else self.valid_dl.dataset

    @property
    def bs(self) -> int | None:
        return self.train_dl.bs

    @property
    def blocks(self) -> Sequence[Block]:
        """A block for each value of a sample; empty for loaders that did not come from a `DataBlock`."""
        return self.train_dl.blocks

    @property
    def n_inp(self) -> int | None:
        """How many of a batch's values are inputs; None: all but the last."""
        return self.train_ds.n_inp if self.blocks else self._n_inp

    @property
    def targets(self) -> Sequence[Block]:
        """The blocks of the targets."""
        return self.blocks[self.n_inp :] if self.blocks else ()

    @property
    def vocab(self) -> list | None:
        """The vocabulary of the first target that has one."""
        vocabs = (getattr(block, "vocab", None) for block in self.targets)
        return next((vocab for vocab in vocabs if vocab is not None), None)

    @property
    def classes(self) -> list | None:
        return self.vocab

    @property
    def c(self) -> int:
        """The number of outputs a model needs. Raises AttributeError where the data does not say."""
        known = [block.n_out for block in self.targets if block.n_out is not None]
        if not known or len(known) < len(self.targets):
            raise AttributeError(
                "This data does not say how many outputs a model needs: give n_out= to the model, or its classes to "
                "the block, as in MaskBlock(codes)."
            )
        return sum(known)

    @property
    def batch_tfms(self) -> list[Transform]:
        return self.train_dl.batch_tfms

    # ---- looking at it

    def one_batch(self) -> Any:
        """The first training batch of epoch 0, on the device, after all transforms. ValueError if there is none."""
        batch = self.train_dl.first_batch()
        if batch is None:
            raise ValueError("There is no training batch: the training set is empty, or smaller than one batch.")
        return batch

    def decode(self, batch: Sequence[Tensor], max_n: int | None = None) -> list[tuple]:
        """The samples of a batch as a person knows them: one tuple of decoded values per sample."""
        if not self.blocks:
            raise ValueError("These loaders came without blocks, which say how a value looks: use a DataBlock.")
        pairs = zip(self.blocks, batch, strict=False)  # a batch without labels has fewer values
        typed = tuple(block.wrap(value) for block, value in pairs)
        tfms = [*getattr(self.train_ds, "item_tfms", ()), *self.batch_tfms]
        values = [value.as_subclass(Tensor).cpu() for value in decode_transforms(tfms, typed)]
        n = batch_size(batch) if max_n is None else min(max_n, batch_size(batch))
        columns = [
            [block.decode(value[i]) for i in range(n)] for block, value in zip(self.blocks, values, strict=False)
        ]
        return list(zip(*columns, strict=True))

    def show_batch(self, max_n: int = 9) -> None:
        """Show up to `max_n` training samples as the model gets them: pictures with titles, or a table."""
        show_samples(self.blocks, self.decode(self.one_batch(), max_n), self.n_inp or 1)

    def class_weights(self) -> Tensor:
        """`(c,)` float32 weights that make up for rare classes: n / (c · count), 1 on average over the training items.

        Of masks n and count are pixels, of boxes' labels boxes. For the first target with a vocabulary; pass it to a
        loss as `CrossEntropyLoss(weight=data.class_weights())`.
        """
        which = next(
            (k for k, block in enumerate(self.blocks) if block in self.targets and hasattr(block, "vocab")), None
        )
        if which is None:
            raise ValueError("class_weights needs a target with a vocabulary: a CategoryBlock or MultiCategoryBlock.")
        block, n_out = self.blocks[which], self.blocks[which].n_out or 0
        counts, n = torch.zeros(n_out), 0
        for value in self.train_ds.values(which):
            encoded = block.encode(value).as_subclass(Tensor)
            if encoded.is_floating_point():  # one number for each class that an item may have
                counts, n = counts + encoded, n + 1
            else:
                classes = encoded[(encoded >= 0) & (encoded < n_out)].long()  # without void
                counts, n = counts + classes.bincount(minlength=n_out), n + classes.numel()
        return n / (n_out * counts.clamp(min=1))

    # ---- new items, another device, other transforms

    def test_dl(self, items: Any, with_labels: bool = False) -> DeviceLoader:
        """A loader over new raw `items` (as `get_items` gives them), in their order, through validation's pipeline.

        Without labels a batch holds the inputs alone. Raises ValueError for data that did not come from a `DataBlock`,
        TypeError for a path: `get_image_files(path)` lists the images in a folder.
        """
        dataset = self.test_dataset(items, with_labels)
        bs = (self.train_dl if self.valid_dl is None else self.valid_dl).bs or 64
        return self._eval_loader(dataset, bs, self._workers if len(dataset) > bs else 0)

    def train_eval_dl(self) -> DeviceLoader:
        """The training items in order, all of them, without randomness; a loader of your own is given as it is."""
        dataset = getattr(self.train_dl.dl, "dataset", None)
        dataset = getattr(dataset, "source", dataset)  # the items below, where a block makes batches of its own
        if not isinstance(dataset, (Dataset, ForeignDataset)):
            return self.train_dl
        if isinstance(dataset, Dataset):
            dataset = copy.copy(dataset)
            dataset.training = False
        return self._eval_loader(dataset, self.train_dl.bs or 64, self._workers)

    def augmented_dl(self, dl: DeviceLoader | None = None) -> DeviceLoader:
        """The items of `dl` (by default the validation set's) in their order, with the randomness of training.

        Each `set_epoch` has other random numbers. Raises ValueError for data that did not come from a `DataBlock`.
        """
        dl = self.valid_dl if dl is None else dl
        if dl is None or not isinstance(dl.dataset, Dataset):
            raise ValueError("Only items of a DataBlock can be augmented anew: pass dl=data.test_dl(items).")
        dataset = copy.copy(dl.dataset)
        dataset.training, dataset.seed = True, self.train_dl.seed or 0
        loader = make_loader(dataset, dl.bs or 64, self._workers, self.device, keep_workers=False)
        return DeviceLoader(loader, self.device, self.batch_tfms, dataset.blocks, training=True)

    def _eval_loader(self, dataset: Dataset | ForeignDataset, bs: int, num_workers: int) -> DeviceLoader:
        blocks: Sequence[Block] = getattr(dataset, "blocks", ())
        own = blocks[0].own_loader(dataset, bs, self.device, self.batch_tfms, False, False) if blocks else None
        if own is not None:
            return own
        loader = make_loader(dataset, bs, num_workers, self.device, keep_workers=False)
        return DeviceLoader(loader, self.device, self.batch_tfms, blocks)

    @property
    def _workers(self) -> int:
        return getattr(self.train_dl.dl, "num_workers", 0)

    def test_dataset(self, items: Any, with_labels: bool = False) -> Dataset:
        """The dataset of `test_dl`: new raw items without randomness."""
        if not self.blocks:
            raise ValueError("test_dl needs data from a DataBlock: pass a loader of your own, get_preds(dl=…).")
        ds, n = self.train_ds, len(self.blocks) if with_labels else self.n_inp
        return Dataset(as_items(items), ds.blocks[:n], ds.getters[:n], ds.item_tfms, ds.n_inp, cache=ds.cache)

    def input_batch(self, item: Any) -> tuple:
        """One raw item as a batch of one, on the device: what `predict` gives to the model."""
        dataset = self.test_dataset([item])
        dataset.cache = None  # which is for what is read again
        collated = dataset.collate([(Draw(0), dataset[0])])
        return DeviceLoader([], self.device, self.batch_tfms, dataset.blocks).prepare(collated)

    def with_batch_tfms(self, batch_tfms: Any) -> "DataBunch":
        """This data with other batch transforms; the datasets and workers are shared."""
        other = copy.copy(self)
        other.dls = [copy.copy(dl) for dl in self.dls]
        for dl in other.dls:
            if dl is not None:
                dl.batch_tfms = as_transforms(batch_tfms)
        return other

    def sharded(self, rank: int, n: int, seeds: Sequence[int], even: bool = False) -> "DataBunch":
        """What process `rank` of `n` has of this data, see `Shard`; `seeds` (one per loader) agree on the order."""
        other = copy.copy(self)
        other.dls = [
            None if dl is None else dl.sharded(Shard(rank, n, training=number == 0, even=even), seed)
            for number, (dl, seed) in enumerate(zip(self.dls, seeds, strict=True))
        ]
        return other

    def to(self, device: torch.device | str) -> "DataBunch":
        """Send the batches of all loaders to `device` from now on; returns the same DataBunch."""
        self.device = torch.device(device)
        for dl in self.dls:
            if dl is not None:
                dl.device = self.device
        return self

    def cpu(self) -> "DataBunch":
        """The same as `to("cpu")`."""
        return self.to("cpu")

    def cuda(self) -> "DataBunch":
        """The same as `to("cuda")`."""
        return self.to("cuda")


def _device(device: torch.device | str | None) -> torch.device:
    return default_device() if device is None else torch.device(device)


def _foreign_loader(dataset: Any, bs: int, num_workers: int, device: torch.device, seed: int,
                    training: bool) -> DeviceLoader:  # fmt: skip
    if isinstance(dataset, IterableDataset):
        dl = DataLoader(dataset, bs, num_workers=num_workers, pin_memory=device.type == "cuda")
    else:
        dl = make_loader(ForeignDataset(dataset, seed), bs, num_workers, device, shuffle=training, drop_last=training)
    return DeviceLoader(dl, device, training=training)


def _on_device(dl: Iterable, device: torch.device) -> DeviceLoader:
    """`dl` wrapped for `device`; a copy of a loader that is wrapped already, which others may use on their device."""
    if not isinstance(dl, DeviceLoader):
        return DeviceLoader(dl, device)
    dl = copy.copy(dl)
    dl.device = device
    return dl


def _size(dl: DeviceLoader | None) -> str:
    try:
        return "–" if dl is None else f"{len(dl.dataset)} items"
    except TypeError:
        return "of unknown length"


def check_batch_size(n_items: int, bs: int) -> None:
    """Raise ValueError where a training set is too small for one whole batch, the last one being dropped."""
    if n_items == 0:
        raise ValueError("The training set is empty.")
    if n_items < bs:
        raise ValueError(
            f"bs={bs} is larger than the training set of {n_items} items, and training drops an incomplete batch: "
            f"nothing would be trained. Use bs={n_items} or less, or drop_last=False in DataBlock.databunch."
        )
