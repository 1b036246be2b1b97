"""Seeds, and keeping the random state."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["kept_random_state", "set_seed"]


def set_seed(seed: int, reproducible: bool = False) -> None:
    """Seed torch, numpy and random; data made afterwards takes its seed from them.

    `reproducible` also makes torch use deterministic algorithms (slower, and an error where an operation has none):
    then runs on one machine with one version of torch are bit-identical. Across machines, devices or versions nothing
    can promise that.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if reproducible:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA asks for, before its first use
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """A context after which the global generators of torch (CPU and CUDA), numpy and random are as before it."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
