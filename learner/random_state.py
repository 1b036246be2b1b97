"""Seeds, and keeping the random state."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["kept_random_state", "set_seed"]


def set_seed(seed: int, reproducible: bool = False) -> None:
    """Seed torch, numpy and random; data made afterwards takes its seed from them.

    `reproducible` also makes torch use deterministic algorithms (slower, and an error where an operation has none): then runs on
    one machine with one version of torch are bit-identical. Across machines, devices or versions nothing can promise that.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if reproducible:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """A context after which the global generators of torch (CPU and `device`), numpy and random are as before it."""
    states = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
