"""One loader for several processes: which batches each of them gets."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import Sampler

from .randomness import kept_generators, mix, seeded_generators

__all__ = ["Shard", "ShardedSampler", "deal", "in_agreement", "parts_itself"]

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The part of process `rank` in a loader that `n` processes share.

    In training each round of batches, one for every process, holds the next `n * bs` items: each process takes its
    slice, of a last round that is not full as well. In evaluation the batches stay as they are and are dealt in turn,
    so that each comes out to the bit as in one process. No item is lost or doubled. A process that would have no batch
    in a round of training – or in evaluation, if that is to be `even` – gets a spare one, which is not to count.
    """

    rank: int = 0
    n: int = 1
    training: bool = False
    even: bool = False

    def batches(self, order: Sequence[T], bs: int, drop_last: bool) -> Iterator[tuple[Sequence[T], bool]]:
        """The batches of this process, each with whether it is a spare one."""
        size = bs * self.n if self.training else bs
        rounds = [order[start : start + size] for start in range(0, len(order), size)]
        if drop_last and rounds and len(rounds[-1]) < size:
            rounds.pop()
        if not self.training:
            yield from deal(rounds, self)
            return
        for items in rounds:
            own = items[len(items) * self.rank // self.n : len(items) * (self.rank + 1) // self.n]
            yield (own, False) if own else (items[:1], True)

    def count(self, n_batches: int) -> int:
        """How many of so many batches `deal` gives to this process."""
        own = len(range(self.rank, n_batches, self.n))
        return -(-n_batches // self.n) if self.training or self.even else own


def deal(batches: Iterable[T], shard: Shard) -> Iterator[tuple[T, bool]]:
    """Every n-th of whole batches, each with whether it is a spare one."""
    rest = iter(batches)
    while dealt := list(islice(rest, shard.n)):
        if shard.rank < len(dealt):
            yield dealt[shard.rank], False
        elif shard.training or shard.even:
            yield dealt[0], True


class ShardedSampler(Sampler):
    """What a process has of the items of another sampler, for a `DataLoader` of batch size `bs`.

    Without `bs` the other is a batch sampler, whose batches are dealt. It is asked for its whole order under the seed
    of `(seed, epoch)`, so it gives the same to all processes.
    """

    def __init__(self, sampler: Any, bs: int | None, drop_last: bool, shard: Shard, seed: int):
        self.sampler, self.bs, self.drop_last, self.shard, self.seed = sampler, bs, drop_last, shard, seed
        self.epoch = 0
        self.begin = 0  # rounds of batches that the next pass leaves out
        self.limit: int | None = None  # and after how many it ends: rounds in training, in evaluation batches
        self.n_own, self.n_items = 0, 0  # batches of the last pass that were not spare, and items of all processes

    def with_bs(self, bs: int) -> "ShardedSampler":
        """The same for batches of another size."""
        return ShardedSampler(self.sampler, bs, self.drop_last, self.shard, self.seed)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        own = self._own(range(len(self.sampler)))
        return len(own) if self.bs is None else sum(len(items) for items, _ in own)

    def __iter__(self) -> Iterator[Any]:
        unit, n = self.bs or 1, self.shard.n
        end = None if self.limit is None else self.limit * unit * (n if self.shard.training else 1)
        order = self._order()[self.begin * unit * n : end]
        own = self._own(order)
        self.begin, self.n_items, self.n_own = 0, len(order), sum(not spare for _, spare in own)
        batches = (batch for batch, _ in own)
        return batches if self.bs is None else chain.from_iterable(batches)

    def is_spare(self, number: int) -> bool:
        """Whether a batch of the last pass was a spare one."""
        return number >= self.n_own

    def n_in_round(self, number: int) -> int | None:
        """How many items all processes had in a round of the last pass; None where batches say it themselves."""
        size = (self.bs or 0) * self.shard.n
        return min(size, self.n_items - number * size) if size and self.shard.training else None

    def _own(self, order: Sequence) -> list[tuple[Any, bool]]:
        if self.bs is None:
            return list(deal(order, self.shard))
        return list(self.shard.batches(order, self.bs, self.drop_last))

    def _order(self) -> list:
        seed = mix(self.seed, self.epoch) >> 1
        for part in (self.sampler, getattr(self.sampler, "sampler", None)):  # a batch sampler asks another for items
            if generator := getattr(part, "generator", None):  # of its own, in which processes may differ
                generator.manual_seed(seed)
        with seeded_generators(seed):
            return list(self.sampler)


def parts_itself(dl: Any) -> bool:
    """Whether a loader's sampler knows of several processes, as torch's `DistributedSampler` does."""
    samplers = [getattr(dl, name, None) for name in ("sampler", "batch_sampler")]
    inner = [getattr(sampler, name, None) for sampler in samplers for name in ("sampler", "order")]
    return any(hasattr(sampler, "num_replicas") for sampler in samplers + inner)


def in_agreement(batches: Iterable[T], seed: int) -> Iterator[T]:
    """`batches`, read with global generators of their own that follow from `seed`: the same ones in all processes."""
    with seeded_generators(seed):
        rest, states = iter(batches), _states()
    while True:
        with kept_generators():
            _set_states(states)
            try:
                batch = next(rest)
            except StopIteration:
                return
            states = _states()
        yield batch


def _states() -> tuple:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _set_states(states: tuple) -> None:
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
