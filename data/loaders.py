"""From datasets to batches on the device: samplers, workers, transfer, batch transforms."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from .batch import to_device
from .blocks import Block
from .dataset import Collated, Dataset, Draw, ForeignDataset, ItemError
from .randomness import Randomness, mix, seeded_generators
from .transforms import Transform, apply_transforms

__all__ = ["DeviceLoader", "EpochSampler", "default_workers", "make_loader"]


class EpochSampler(Sampler[Draw]):
    """The items of an epoch in an order that depends on `(seed, epoch)` alone.

    `order` replaces the shuffling: any iterable of positions, such as `torch.utils.data.WeightedRandomSampler`, asked
    anew each epoch under that epoch's seed.
    """

    def __init__(self, n: int, shuffle: bool, seed: int, order: Iterable[int] | None = None):
        self.n, self.shuffle, self.seed, self.order, self.epoch = n, shuffle, seed, order, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n if self.order is None else len(self.order)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Draw]:
        seed = int(mix(self.seed, self.epoch)[0] >> 1)
        if self.order is not None:
            with seeded_generators(seed):
                positions = [int(i) for i in self.order]
        elif self.shuffle:
            positions = torch.randperm(self.n, generator=torch.Generator().manual_seed(seed)).tolist()
        else:
            positions = range(self.n)
        return iter([Draw(i, self.epoch) for i in positions])


def default_workers() -> int:
    """As many workers as this process may use cores, at most 8; 0 where processes cannot be forked."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores) if "fork" in multiprocessing.get_all_start_methods() else 0


def make_loader(dataset: Dataset | ForeignDataset, bs: int, num_workers: int, device: torch.device, shuffle: bool = False,
                drop_last: bool = False, order: Iterable[int] | None = None, keep_workers: bool = True) -> DataLoader:  # fmt: skip
    """A `DataLoader` whose order and random numbers follow from the dataset's seed and the epoch."""
    if bs < 1:
        raise ValueError(f"bs={bs}: a batch holds at least one item.")
    return DataLoader(
        dataset,
        batch_size=bs,
        sampler=EpochSampler(len(dataset), shuffle, dataset.seed, order),
        drop_last=drop_last,
        num_workers=num_workers,
        collate_fn=dataset.collate,
        pin_memory=device.type == "cuda",
        persistent_workers=keep_workers and num_workers > 0,
        multiprocessing_context="fork" if num_workers and "fork" in multiprocessing.get_all_start_methods() else None,
        generator=torch.Generator().manual_seed(dataset.seed),  # so that starting workers leaves the global one alone
    )


class DeviceLoader:
    """Iterates a `DataLoader` – or any re-iterable of batches – and gives each batch on `device`, after `batch_tfms`.

    With `training`, a batch's random numbers follow from `(seed, epoch, item)`, whatever batch an item is in.
    """

    def __init__(self, dl: Iterable, device: torch.device, batch_tfms: Sequence[Transform] = (), blocks: Sequence[Block] = (),
                 training: bool = False):  # fmt: skip
        if isinstance(dl, Iterator):
            raise TypeError(
                f"{type(dl).__name__} can be read only once, a loader is read every epoch: pass the DataLoader, Dataset or list itself."
            )
        self.dl, self.device, self.batch_tfms, self.blocks, self.training = dl, device, list(batch_tfms), blocks, training
        self.items: list[int] | None = None  # the last batch's items as positions in the dataset, where they are known

    def __len__(self) -> int:
        return len(self.dl)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"DeviceLoader({type(self.dl).__name__} on {self.device}, batch_tfms={self.batch_tfms})"

    @property
    def n_batches(self) -> int | None:
        """Batches in an epoch; None where the loader cannot know (an `IterableDataset` without length)."""
        try:
            return len(self)
        except TypeError:
            return None

    @property
    def dataset(self) -> Any:
        """The dataset below, the user's own where it is one."""
        dataset = getattr(self.dl, "dataset", self.dl)
        return dataset.dataset if isinstance(dataset, ForeignDataset) else dataset

    @property
    def bs(self) -> int | None:
        return getattr(self.dl, "batch_size", None)

    def set_epoch(self, epoch: int) -> None:
        """Give the order and the random numbers of `epoch` (also to a `DistributedSampler` of the user's)."""
        sampler = getattr(self.dl, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.dl)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except ItemError as error:
                raise _without_worker_traceback(error) from None
            yield self.prepare(batch)

    def prepare(self, batch: Any) -> Any:
        """One batch of the loader below: moved, and transformed if it came from a `DataBlock`."""
        if not isinstance(batch, Collated):
            return to_device(batch, self.device)
        self.items = batch.items
        values = to_device(batch.values, self.device)
        if not self.blocks:
            return values
        typed = tuple(block.wrap(value) for block, value in zip(self.blocks, values, strict=True))
        rand = Randomness(self._seed, batch.epoch, batch.items) if self.training else None
        return tuple(v.as_subclass(torch.Tensor) for v in apply_transforms(self.batch_tfms, typed, rand))

    @property
    def _seed(self) -> int:
        return int(mix(self.dl.dataset.seed, 1)[0] >> 1)  # type: ignore[attr-defined]  # apart from the item stage's numbers


def _without_worker_traceback(error: ItemError) -> ItemError:
    """A worker's error carries its printed traceback as message: keep the sentence at its end."""
    text = str(error)
    marker = f"{ItemError.__name__}: "
    return ItemError(text[text.rindex(marker) + len(marker) :].strip()) if text.startswith("Caught ") else error
