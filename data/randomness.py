"""Random numbers that are a function of (seed, epoch, item), so that no number depends on who asks first.

The order of an epoch, a sample's augmentation, a batch's augmentation: each draws from here. The same seed gives the
same run for any number of workers or processes, and a run that resumes in the middle goes on with the same numbers.
The numbers are counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), mixed by the
finaliser of splitmix64 (Steele et al. 2014).
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Randomness", "fresh_seed", "generator_states", "kept_generators", "mix", "seed_generators",
           "seeded_generators", "set_generator_states"]  # fmt: skip

_MASK = 2**64 - 1
_GOLDEN, _M1, _M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(*parts: int) -> int:
    """An integer in [0, 2**64) that depends on every one of `parts` and looks random."""
    state = 0
    for part in parts:
        state = _mixed(state, part)
    return state


def _mixed(state: int, part: int) -> int:
    state = ((state ^ (part & _MASK)) + _GOLDEN) & _MASK
    state = ((state ^ (state >> 30)) * _M1) & _MASK
    state = ((state ^ (state >> 27)) * _M2) & _MASK
    return state ^ (state >> 31)


def _mixed_array(states: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """`_mixed` for uint64 arrays, whose arithmetic is modulo 2**64 by itself."""
    state = (states ^ parts) + np.uint64(_GOLDEN)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_M1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_M2)
    return state ^ (state >> np.uint64(31))


def fresh_seed() -> int:
    """A new seed from torch's global generator, so that `set_seed` governs it; in [0, 2**31)."""
    return int(torch.randint(2**31, (1,)))


def _torch_generators(device: torch.device | None) -> list[torch.Generator]:
    """The CPU's global generator, and that of `device` where it is a CUDA device."""
    if device is None or device.type != "cuda":
        return [torch.default_generator]
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]


def seed_generators(seed: int, device: torch.device | None = None) -> None:
    """Seed the global generators of torch (of the CPU and a CUDA `device`), numpy and random."""
    for generator in _torch_generators(device):
        generator.manual_seed(seed & _MASK >> 1)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def generator_states(device: torch.device | None = None) -> dict[str, Any]:
    """The states of the global generators that `seed_generators` seeds, as tensors and plain values."""
    _, keys, *rest = np.random.get_state()  # type: ignore[misc]
    version, numbers, gauss = random.getstate()
    return {
        "torch": [generator.get_state() for generator in _torch_generators(device)],
        "numpy": [torch.from_numpy(keys.astype(np.int64)), *rest],  # type: ignore[union-attr]
        "python": [version, torch.tensor(numbers), gauss],
    }


def set_generator_states(states: dict[str, Any], device: torch.device | None = None) -> None:
    """Set the global generators to what `generator_states` gave, perhaps in another process."""
    for generator, state in zip(_torch_generators(device), states["torch"], strict=False):
        generator.set_state(state.cpu())
    keys, *rest = states["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))


@contextmanager
def kept_generators(device: torch.device | None = None) -> Iterator[None]:
    """A context after which the global generators that `seed_generators` seeds are as before it."""
    generators = _torch_generators(device)
    states = [generator.get_state() for generator in generators], np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        for generator, state in zip(generators, states[0], strict=True):
            generator.set_state(state)
        np.random.set_state(states[1])
        random.setstate(states[2])


@contextmanager
def seeded_generators(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Inside, the global generators are seeded with `seed`; afterwards they are as before."""
    with kept_generators(device):
        seed_generators(seed, device)
        yield


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

    def of(self, part: slice) -> "Randomness":
        """The numbers of some of the items."""
        return replace(self, items=self.items[part])

    def uniform(self, n: int) -> Tensor:
        """`(len(items), n)` float32 on the CPU, uniform in [0, 1); row i depends on item i alone."""
        common = mix(self.seed, self.epoch, self.stream)
        states = np.array([[_mixed(common, int(item))] for item in self.items], np.uint64)
        bits = _mixed_array(states, np.arange(n, dtype=np.uint64))
        return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))

    @property
    def first(self) -> int:
        """A seed that follows from the first item: for generators that know no items."""
        return mix(self.seed, self.epoch, self.stream, int(self.items[0]))

    def seeded(self, device: torch.device | None = None) -> AbstractContextManager[None]:
        """A context in which the global generators follow from the first item (for code that draws from them)."""
        return seeded_generators(self.first, device)
