"""A DataBunch: the train, valid (and test) loaders of a task on a device, which know how to show and decode themselves."""

import copy
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .batch import batch_size, default_device
from .blocks import Block
from .dataset import Dataset, Draw, ForeignDataset
from .loaders import DeviceLoader, make_loader
from .randomness import fresh_seed
from .show import show_samples
from .transforms import Transform, as_transforms, decode_transforms

__all__ = ["DataBunch"]


class DataBunch:
    """Loaders for training and validation: from a `DataBlock`, from datasets, or any loaders of your own.

    `DataBunch(train_dl, valid_dl)` takes anything that can be iterated every epoch and yields batches: tuples `(x, y)`,
    dicts, nested ones. `train_dl` and `valid_dl` are wrapped so that batches arrive on `device` (by default the accelerator).
    `dls` holds all loaders: train, valid, and further ones for validation.
    """

    def __init__(self, train_dl: Iterable, valid_dl: Iterable | None = None, test_dl: Iterable | None = None, path: str | Path = ".",
                 device: torch.device | str | None = None):  # fmt: skip
        self.path = Path(path)
        self.device = torch.device(device) if device is not None else default_device()
        loaders = [train_dl, valid_dl, *([] if test_dl is None else [test_dl])]
        self.dls = [dl if dl is None or isinstance(dl, DeviceLoader) else DeviceLoader(dl, self.device) for dl in loaders]

    @classmethod
    def from_dsets(cls, train: Any, valid: Any = None, bs: int = 64, val_bs: int | None = None, num_workers: int | None = None,
                   device: torch.device | str | None = None, seed: int | None = None) -> "DataBunch":  # fmt: skip
        """From map-style datasets (shuffled by `(seed, epoch)`) or `IterableDataset`s; batches are formed by torch's default.

        `num_workers` defaults to 0. Raises ValueError where `train` is empty or smaller than one batch.
        """
        device, seed = torch.device(device) if device is not None else default_device(), fresh_seed() if seed is None else seed
        workers = num_workers or 0

        def loader(dataset: Any, bs: int, training: bool) -> Iterable | None:
            if dataset is None:
                return None
            if isinstance(dataset, torch.utils.data.IterableDataset):
                return torch.utils.data.DataLoader(dataset, bs, num_workers=workers, pin_memory=device.type == "cuda")
            if training:
                check_batch_size(len(dataset), bs)
            return make_loader(ForeignDataset(dataset, training, seed), bs, workers, device, shuffle=training, drop_last=training)

        return cls(loader(train, bs, True), loader(valid, val_bs or bs, False), device=device)  # type: ignore[arg-type]

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
        return self.train_ds.n_inp if self.blocks else None

    @property
    def targets(self) -> Sequence[Block]:
        """The blocks of the targets."""
        return self.blocks[self.n_inp :] if self.blocks else ()

    @property
    def vocab(self) -> list | None:
        """The vocabulary of the first target that has one."""
        return next((block.vocab for block in self.targets if getattr(block, "vocab", None) is not None), None)  # type: ignore[attr-defined]

    @property
    def classes(self) -> list | None:
        return self.vocab

    @property
    def c(self) -> int:
        """The number of outputs a model needs. Raises AttributeError where the data does not say."""
        n_out = [block.n_out for block in self.targets]
        if not n_out or None in n_out:
            raise AttributeError("This data does not say how many outputs a model needs: pass n_out= where a model is made.")
        return sum(n_out)  # type: ignore[arg-type]

    @property
    def batch_tfms(self) -> list[Transform]:
        return self.train_dl.batch_tfms

    # ---- looking at it

    def one_batch(self) -> tuple | dict:
        """The first training batch of epoch 0, on the device, after all transforms. Raises ValueError where there is none."""
        self.train_dl.set_epoch(0)
        for batch in self.train_dl:
            return batch
        raise ValueError("There is no training batch: the training set is empty, or smaller than one batch.")

    def decode(self, batch: tuple, max_n: int | None = None) -> list[tuple]:
        """The samples of a batch as a person knows them: one tuple of decoded values per sample."""
        if not self.blocks:
            raise ValueError("These loaders came without blocks: nothing says how a value looks. Build the data with a DataBlock.")
        typed = tuple(block.wrap(value) for block, value in zip(self.blocks, batch, strict=False))
        values = [value.as_subclass(Tensor).cpu() for value in decode_transforms(self.batch_tfms, typed)]
        n = min(batch_size(batch), max_n or batch_size(batch))
        return [tuple(block.decode(value[i]) for block, value in zip(self.blocks, values, strict=False)) for i in range(n)]

    def show_batch(self, max_n: int = 9) -> None:
        """Show up to `max_n` training samples as the model gets them: pictures with titles, or a table."""
        samples = self.decode(self.one_batch(), max_n)  # type: ignore[arg-type]
        show_samples(self.blocks, samples, self.n_inp or 1)

    def class_weights(self) -> Tensor:
        """`(c,)` float32 weights that make up for rare classes: n / (c · count), 1 on average over the training items.

        For the target's block with a vocabulary; pass it to a loss as `CrossEntropyLoss(weight=data.class_weights())`.
        """
        which = next((k for k, block in enumerate(self.blocks) if k >= (self.n_inp or 1) and block.n_out and hasattr(block, "vocab")), None)
        if which is None:
            raise ValueError("class_weights needs a target with a vocabulary: a DataBlock with CategoryBlock or MultiCategoryBlock.")
        block, counts = self.blocks[which], torch.zeros(self.blocks[which].n_out or 0)
        for value in self.train_ds.values(which):
            encoded = block.encode(value)
            counts[encoded if encoded.ndim == 0 else encoded.bool()] += 1
        return len(self.train_ds) / (len(counts) * counts.clamp(min=1))

    # ---- new items, another device, other transforms

    def test_dl(self, items: Any, with_labels: bool = False) -> DeviceLoader:
        """A loader over new raw `items` (as `get_items` gives them), through the pipeline of validation, in their order.

        Without labels a batch holds the inputs alone. Raises ValueError for data that did not come from a `DataBlock`.
        """
        dataset, bs = self.test_dataset(items, with_labels), (self.valid_dl or self.train_dl).bs or 64
        workers = getattr(self.train_dl.dl, "num_workers", 0) if len(dataset) > bs else 0
        loader = make_loader(dataset, bs, workers, self.device, keep_workers=False)
        return DeviceLoader(loader, self.device, self.batch_tfms, dataset.blocks)

    def train_eval_dl(self) -> DeviceLoader:
        """The training items without shuffling, dropping or randomness; the training loader itself where it is a foreign one."""
        dataset, bs = getattr(self.train_dl.dl, "dataset", None), self.train_dl.bs or 64
        if not isinstance(dataset, (Dataset, ForeignDataset)):
            return self.train_dl
        dataset = copy.copy(dataset)
        dataset.training = False
        loader = make_loader(dataset, bs, getattr(self.train_dl.dl, "num_workers", 0), self.device, keep_workers=False)
        return DeviceLoader(loader, self.device, self.batch_tfms, self.blocks)

    def test_dataset(self, items: Any, with_labels: bool = False) -> Dataset:
        """The dataset of `test_dl`: new raw items without randomness."""
        if not self.blocks:
            raise ValueError("test_dl needs data from a DataBlock; for other loaders pass your own loader: get_preds(dl=…).")
        if isinstance(items, (str, os.PathLike)):
            raise TypeError(f"test_dl takes a list of items, got {items!r}: get_image_files(path) lists the images in a folder.")
        ds, n = self.train_ds, len(self.blocks) if with_labels else self.n_inp
        return Dataset(items, ds.blocks[:n], ds.getters[:n], ds.item_tfms, ds.n_inp)

    def input_batch(self, item: Any) -> tuple:
        """One raw item as a batch of one, on the device: what `predict` gives to the model."""
        dataset = self.test_dataset([item])
        collated = dataset.collate([(Draw(0), dataset[0])])
        return DeviceLoader([], self.device, self.batch_tfms, dataset.blocks).prepare(collated)

    def with_batch_tfms(self, batch_tfms: Any) -> "DataBunch":
        """This data with other batch transforms; the datasets and workers are shared."""
        return self._with_loaders(batch_tfms=as_transforms(batch_tfms))

    def to(self, device: torch.device | str) -> "DataBunch":
        """Send the batches of all loaders to `device` from now on; returns the same DataBunch."""
        self.device = torch.device(device)
        for dl in filter(None, self.dls):
            dl.device = self.device
        return self

    def cpu(self) -> "DataBunch":
        return self.to("cpu")

    def cuda(self) -> "DataBunch":
        return self.to("cuda")

    def _with_loaders(self, **changes: Any) -> "DataBunch":
        other = copy.copy(self)
        other.dls = [copy.copy(dl) for dl in self.dls]
        for dl in filter(None, other.dls):
            vars(dl).update(changes)
        return other


def _size(dl: DeviceLoader | None) -> str:
    try:
        return "–" if dl is None else f"{len(dl.dataset)} items"
    except TypeError:
        return "of unknown length"


def check_batch_size(n_items: int, bs: int) -> None:
    """Raise ValueError where a training set is too small for one whole batch, the last one being dropped."""
    if 0 < n_items < bs:
        raise ValueError(
            f"bs={bs} is larger than the training set of {n_items} items, and an incomplete batch is dropped in training: nothing would "
            f"be trained. Use bs={max(1, n_items // 2)} or less, or drop_last=False."
        )
