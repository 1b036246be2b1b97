"""From datasets to batches on the device: samplers, workers, transfer, batch transforms."""

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from .batch import to_device
from .blocks import Block
from .dataset import Collated, Dataset, Draw
from .foreign import ForeignDataset
from .items import ItemError, kind
from .pieces import apply_to_batch
from .randomness import Randomness, mix, seeded_generators
from .sharding import Shard, ShardedSampler, deal, in_agreement, parts_itself
from .transforms import Transform
from .workers import CAN_FORK, WORKER_LOST, begin_worker, is_of_lost_worker, without_worker_traceback

__all__ = ["DeviceLoader", "EpochSampler", "make_loader"]

SETTINGS = ("num_workers", "collate_fn", "pin_memory", "drop_last", "timeout", "worker_init_fn", "generator",
            "multiprocessing_context", "prefetch_factor", "persistent_workers", "pin_memory_device")  # fmt: skip


class EpochSampler(Sampler[Draw]):
    """The items of an epoch in an order that depends on `(seed, epoch)` alone.

    `order` replaces the shuffling: any iterable of positions, such as `torch.utils.data.WeightedRandomSampler`, asked
    anew each epoch under that epoch's seed.
    """

    def __init__(self, n: int, shuffle: bool, seed: int, order: Iterable[int] | None = None):
        if isinstance(order, Iterator):
            raise TypeError(
                f"sampler is asked anew each epoch, and a {kind(order)} is used up by the first: pass a list."
            )
        self.n, self.shuffle, self.seed, self.order = n, shuffle, seed, order
        self.epoch = 0
        self.begin = 0  # items of the epoch that the next pass leaves out
        self.passes = 0  # begun over this sampler so far

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n if self.order is None else len(self.order)  # type: ignore[arg-type]  # a sampler has a length

    def __iter__(self) -> Iterator[Draw]:
        self.passes += 1
        begin, self.begin = self.begin, 0
        return iter(self.draws(self.epoch)[begin:])

    def draws(self, epoch: int) -> list[Draw]:
        """The items of that epoch in order."""
        return [Draw(int(position), epoch) for position in self._positions(epoch, mix(self.seed, epoch) >> 1)]

    def _positions(self, epoch: int, seed: int) -> Iterable[int]:
        if self.order is not None:
            if hasattr(self.order, "set_epoch"):
                self.order.set_epoch(epoch)  # type: ignore[attr-defined]
            with seeded_generators(seed):
                return list(self.order)
        if self.shuffle:
            return torch.randperm(self.n, generator=torch.Generator().manual_seed(seed)).tolist()
        return range(self.n)


class _Loader(DataLoader):
    """A `DataLoader` that ends the workers it has kept when it is itself forgotten.

    torch leaves that to its iterator. Where Python finds this in a reference cycle, as a learner's data are, it closes
    the queues first, and then waits 5 seconds for each worker.
    """

    def __iter__(self) -> Any:
        is_first = self._iterator is None
        iterator = super().__iter__()
        if is_first and self.persistent_workers:
            weakref.finalize(self, iterator._shutdown_workers)  # type: ignore[attr-defined]
        return iterator


def make_loader(dataset: Dataset | ForeignDataset, bs: int, num_workers: int, device: torch.device,
                shuffle: bool = False, drop_last: bool = False, order: Iterable[int] | None = None,
                keep_workers: bool = True) -> DataLoader:  # fmt: skip
    """A `DataLoader` whose order and random numbers follow from the dataset's seed and the epoch."""
    if bs < 1:
        raise ValueError(f"bs={bs}: a batch holds at least one item.")
    return _Loader(
        cast(torch.utils.data.Dataset, dataset),
        batch_size=bs,
        sampler=EpochSampler(len(dataset), shuffle, dataset.seed, order),
        drop_last=drop_last,
        num_workers=num_workers,
        collate_fn=cast(Callable, dataset.collate),
        pin_memory=device.type == "cuda",
        persistent_workers=keep_workers and num_workers > 0,
        multiprocessing_context="fork" if num_workers and CAN_FORK else None,
        worker_init_fn=begin_worker,
        generator=torch.Generator().manual_seed(dataset.seed),  # so that starting workers leaves the global one alone
    )


class DeviceLoader:
    """Iterates a `DataLoader` – or any re-iterable of batches – and gives each batch on `device`, after `batch_tfms`.

    With `training`, a batch's random numbers follow from `(seed, epoch, item)`, whatever batch an item is in. The epoch
    is what `set_epoch` says; a complete pass moves on to the next.
    """

    def __init__(self, dl: Iterable, device: torch.device, batch_tfms: Sequence[Transform] = (),
                 blocks: Sequence[Block] = (), training: bool = False):  # fmt: skip
        _check_loader(dl)
        self.dl, self.device, self.batch_tfms = dl, device, list(batch_tfms)
        self.blocks, self.training = blocks, training
        self.limit: int | None = None  # batches to give at most; None: all
        self.replay: list | None = None  # batches to give instead, prepared already
        self.items: list[int] | None = None  # the last batch's items as positions in the dataset, where they are known
        self.shard = Shard()  # what this process has of it
        self.shared_seed, self.epoch = 0, 0  # what processes that take whole batches in turn agree by
        self.spare = False  # whether the last batch is there to keep step with other processes, and is not to count
        self.n_in_round: int | None = None  # items that all processes have in this round of training, where it is known
        self.begin = 0  # batches that the next pass leaves out
        self.when_begun: Callable[[], None] | None = None  # called once, when it has left them out

    def __len__(self) -> int:
        batches: Any = self.dl if self.replay is None else self.replay
        n = len(batches)  # a TypeError of Python's where there is none
        if self.replay is None and self._share is None:
            n = self.shard.count(n)
        return n if self.limit is None else min(n, self._own_limit or 0)

    @property
    def _own_limit(self) -> int | None:
        """How many batches of this process are within the limit, which in evaluation is for all processes."""
        if self.limit is None or self.replay is not None or self.shard.training:
            return self.limit
        return self.shard.count(self.limit)

    @property
    def _share(self) -> ShardedSampler | None:
        """The sampler that gives this process its items or batches; None where it reads all batches."""
        samplers = (getattr(self.dl, "sampler", None), getattr(self.dl, "batch_sampler", None))
        return next((sampler for sampler in samplers if isinstance(sampler, ShardedSampler)), None)

    def __repr__(self) -> str:
        return f"DeviceLoader({kind(self.dl)} on {self.device}, batch_tfms={self.batch_tfms})"

    @property
    def n_batches(self) -> int | None:
        """Batches in an epoch; None where the loader cannot know (an `IterableDataset` without length)."""
        try:
            return len(self)
        except TypeError:
            return self.limit

    @property
    def dataset(self) -> Any:
        """The dataset below, the user's own where it is one."""
        dataset = getattr(self.dl, "dataset", self.dl)
        return dataset.dataset if isinstance(dataset, ForeignDataset) else dataset

    @property
    def bs(self) -> int | None:
        """Items in a batch; None where the loader does not say."""
        return getattr(self.dl, "batch_size", None)

    @property
    def seed(self) -> int | None:
        """What order and random numbers follow from; None where the loader does not say."""
        return getattr(getattr(self.dl, "dataset", None), "seed", None)

    @property
    def sampler(self) -> EpochSampler | None:
        """The order of a loader of ours; None for any other."""
        sampler = getattr(self.dl, "sampler", None)
        sampler = sampler.sampler if isinstance(sampler, ShardedSampler) else sampler
        return sampler if isinstance(sampler, EpochSampler) else None

    def with_bs(self, bs: int) -> "DeviceLoader":
        """A loader of the same items in the same order, `bs` in a batch, with workers of its own.

        Raises TypeError where batches are not made by a `DataLoader` of a batch size, ValueError where there are none.
        """
        other, dl = copy.copy(self), self.dl
        if not isinstance(dl, DataLoader) or dl.batch_size is None:
            raise TypeError(f"Only a DataLoader with a batch_size can have another: {kind(dl)} has its own batches.")
        share = self._share
        other.dl = _rebuilt(dl, bs, dl.sampler if share is None else share.with_bs(bs))
        if other.n_batches == 0:
            raise ValueError(f"bs={bs}: there are fewer items, and the loader drops an incomplete batch.")
        return other

    def sharded(self, shard: Shard, seed: int) -> "DeviceLoader":
        """A loader of what one of several processes has of this one; `seed` makes them agree on the order.

        Of a `DataLoader` with a dataset of known length the items are parted, see `Shard`, and with a batch sampler the
        batches; of any other loader each process reads all batches and takes every n-th. A loader whose sampler parts
        the items by itself, as torch's `DistributedSampler` does, stays as it is.
        """
        other, dl = copy.copy(self), self.dl
        if parts_itself(dl):
            return other
        other.shard, other.shared_seed = shard, seed
        for part in (self.sampler, getattr(dl, "dataset", None)):
            if hasattr(part, "seed"):
                part.seed = seed  # type: ignore[union-attr]
        if isinstance(dl, DataLoader) and _reads_by_sampler(dl):
            sampler = dl.sampler if dl.batch_size else dl.batch_sampler
            other.dl = _rebuilt(dl, dl.batch_size, ShardedSampler(sampler, dl.batch_size, dl.drop_last, shard, seed))
        return other

    def set_epoch(self, epoch: int) -> None:
        """Give the order and the random numbers of `epoch` (also to a sampler or dataset of yours that asks for it)."""
        self.epoch = epoch
        for name in ("sampler", "batch_sampler", "dataset"):
            part = getattr(self.dl, name, None)
            if part is not None and hasattr(part, "set_epoch"):
                part.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if self.replay is not None:
            begin = self._begin()
            self.items, self.spare, self.n_in_round = None, False, None
            yield from islice(self.replay, begin, self.limit)
            return
        batches = self._batches()
        mine = self._passes()
        while True:
            try:
                batch, self.spare, self.n_in_round = next(batches)
            except StopIteration:
                break
            except ItemError as error:
                raise without_worker_traceback(error) from None
            except (RuntimeError, ConnectionError, EOFError) as error:
                if not (is_of_lost_worker(error) or (self._has_workers and not isinstance(error, RuntimeError))):
                    raise
                reason = str(error).rstrip(". ")
                raise RuntimeError(f"{type(error).__name__}: {reason}. {WORKER_LOST}") from error
            yield self.prepare(batch)
            if mine and self._passes() != mine:
                raise RuntimeError(
                    "Another pass over this loader has begun, and its workers serve one at a time: finish the first, "
                    "or build the data with num_workers=0."
                )
        if self.training and self.sampler is not None:
            self.sampler.set_epoch(self.sampler.epoch + 1)

    def _batches(self) -> Iterator[tuple[Any, bool, int | None]]:
        """This process's batches as the loader below gives them, each with what is to be `spare` and `n_in_round`."""
        begin, limit = self.begin, self.limit
        batches: Iterator[tuple[Any, bool, int | None]]
        if (share := self._share) is not None:
            share.begin, share.limit = begin, limit
            batches = ((batch, share.is_spare(i), share.n_in_round(i)) for i, batch in enumerate(self.dl))
        elif self.sampler is not None and self.shard.n == 1:
            self.sampler.begin = begin * (self.bs or 1)
            rest = None if limit is None else max(0, limit - begin)
            batches = islice(zip(self.dl, repeat(False), repeat(None)), rest)
        else:  # one whose order is its own: it has to be read to there
            fixed = self.shard.n == 1 or isinstance(self.dl, (list, tuple))
            all_batches = self.dl if fixed else in_agreement(self.dl, mix(self.shared_seed, self.epoch))
            end = None if limit is None else limit * (self.shard.n if self.shard.training else 1)
            batches = ((batch, spare, None) for batch, spare in deal(islice(all_batches, end), self.shard))
            for _ in range(begin):
                next(batches, None)
        self._begin()
        return batches

    def _begin(self) -> int:
        """How many batches the pass that begins has left out; who wanted to know is told."""
        begin, when_begun, self.begin, self.when_begun = self.begin, self.when_begun, 0, None
        if when_begun:
            when_begun()
        return begin

    @property
    def generators(self) -> list[torch.Generator]:
        """Random generators that the loader below has of its own."""
        found = (getattr(part, "generator", None) for part in (self.dl, getattr(self.dl, "sampler", None)))
        return list(dict.fromkeys(generator for generator in found if isinstance(generator, torch.Generator)))

    @property
    def _has_workers(self) -> bool:
        return getattr(self.dl, "num_workers", 0) > 0

    def _passes(self) -> int:
        """Passes begun so far, where they share their workers, as torch's persistent ones do."""
        return self.sampler.passes if self.sampler and getattr(self.dl, "persistent_workers", False) else 0

    def first_batch(self) -> Any:
        """The first batch of epoch 0, read in this process so that no worker has to start; None where there is none."""
        if self.sampler is None:
            return next(iter(self), None)
        draws, dl = self.sampler.draws(epoch=0)[: self.bs], cast(DataLoader, self.dl)
        if not draws or (dl.drop_last and len(draws) < (self.bs or 0)):
            return None
        dataset = cast(Dataset, dl.dataset)
        return self.prepare(dataset.collate(dataset.__getitems__(draws)))

    def prepare(self, batch: Any) -> Any:
        """One batch of the loader below: moved, and transformed if it came from a `DataBlock`."""
        if not isinstance(batch, Collated):
            return to_device(batch, self.device)
        self.items = batch.items
        values = to_device(batch.values, self.device)
        if not self.blocks:
            return values
        values = tuple(block.wrap(value) for block, value in zip(self.blocks, values, strict=True))
        if self.batch_tfms:
            rand = Randomness(self._batch_seed, batch.epoch, batch.items)
            with rand.seeded(self.device):
                values = self._transformed(values, rand if self.training else None)
        return tuple(v.as_subclass(torch.Tensor) if isinstance(v, torch.Tensor) else v for v in values)

    def _transformed(self, values: tuple, rand: Randomness | None) -> tuple:
        try:
            return apply_to_batch(self.batch_tfms, values, rand)
        except ItemError as error:
            dataset = getattr(self.dl, "dataset", None)
            if not isinstance(dataset, Dataset) or not self.items:
                raise
            raise ItemError(f"{error} The batch begins with {dataset.where(self.items[0])}.") from error.__cause__

    @property
    def _batch_seed(self) -> int:
        """The dataset's seed, but apart from the numbers of the item stage; 0 for items that came without a loader."""
        return mix(self.seed or 0, 1)


def _reads_by_sampler(dl: DataLoader) -> bool:
    """Whether it can be made again with another sampler: not where items come by themselves, or a class reads them."""
    reads_its_way = type(dl).__iter__ not in (DataLoader.__iter__, _Loader.__iter__)
    return not (isinstance(dl.dataset, IterableDataset) or reads_its_way or dl.batch_sampler is None)


def _rebuilt(dl: DataLoader, bs: int | None, sampler: Any) -> DataLoader:
    """A `DataLoader` as this one is, with another batch size and sampler, and workers of its own.

    Without a batch size the sampler is one of batches.
    """
    settings: dict[str, Any] = {name: getattr(dl, name) for name in SETTINGS}
    if bs is None:
        settings["drop_last"] = False  # which is the batch sampler's affair
        return _Loader(dl.dataset, batch_sampler=sampler, **settings)
    return _Loader(dl.dataset, bs, sampler=None if isinstance(dl.dataset, IterableDataset) else sampler, **settings)


def _check_loader(dl: Any) -> None:
    """Raise TypeError for what cannot be read batch by batch, every epoch."""
    if isinstance(dl, Iterator) and not isinstance(dl, DataLoader):  # as those are that Ray Train prepares
        raise TypeError(
            f"{kind(dl)} can be read only once, a loader is read every epoch: pass the DataLoader or list itself."
        )
    if isinstance(dl, torch.utils.data.Dataset) and not isinstance(dl, IterableDataset):
        raise TypeError(
            f"{kind(dl)} gives samples, not batches: use DataBunch.from_dsets(train, valid, bs=64), or a DataLoader."
        )
    if not isinstance(dl, Iterable) and not hasattr(dl, "__getitem__"):
        raise TypeError(f"A loader is a DataLoader or anything else that gives batches when iterated, not {dl!r}.")
