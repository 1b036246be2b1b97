"""Random numbers that are a function of (seed, epoch, item), so that no number depends on who asks first.

The order of an epoch, a sample's augmentation, a batch's augmentation: each draws from here. The same seed gives the
same run for any number of workers or processes, and a run that resumes in the middle goes on with the same numbers.
The numbers are counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), mixed by the
finaliser of splitmix64 (Steele et al. 2014).
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

__all__ = ["Randomness", "fresh_seed", "mix", "seeded_generators"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(*parts: int | np.ndarray) -> np.ndarray:
    """A uint64 that depends on every one of `parts` (ints or broadcastable integer arrays) and looks random."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = (state ^ np.asarray(part).astype(np.uint64)) + _GOLDEN
        state = (state ^ (state >> np.uint64(30))) * _M1
        state = (state ^ (state >> np.uint64(27))) * _M2
        state = state ^ (state >> np.uint64(31))
    return state


def fresh_seed() -> int:
    """A new seed from torch's global generator, so that `set_seed` governs it; in [0, 2**31)."""
    return int(torch.randint(2**31, (1,)))


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Inside, the global generators of torch, numpy and random are seeded with `seed`; afterwards they are as before."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@dataclass(frozen=True)
class Randomness:
    """The random numbers that belong to some items in one epoch.

    `items` are positions in the dataset: one at the item stage, `bs` of them at the batch stage. `stream` keeps the
    steps of a pipeline apart.
    """

    seed: int
    epoch: int
    items: Sequence[int]
    stream: int = 0

    def with_stream(self, stream: int) -> "Randomness":
        """The same items' numbers for another step of the pipeline."""
        return replace(self, stream=stream)

    def uniform(self, n: int) -> Tensor:
        """`(len(items), n)` float32 on the CPU, uniform in [0, 1); row i depends on item i alone."""
        items = np.asarray(self.items, np.int64)[:, None]
        bits = mix(self.seed, self.epoch, self.stream, items, np.arange(n)[None, :])
        return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))

    def seeded(self):
        """A context in which the global generators follow from the first item (for code that draws from them)."""
        return seeded_generators(int(mix(self.seed, self.epoch, self.stream, int(self.items[0]))[0] >> np.uint64(1)))
