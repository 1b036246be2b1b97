"""Seeds, and keeping the random state."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["kept_random_state", "set_seed"]


def set_seed(seed: int, reproducible: bool = False) -> None:
    """Seed torch (on every device), numpy and random; data made afterwards takes its seed from them.

    `reproducible` also makes torch use deterministic algorithms: slower, and an error where an operation has none. Then
    two runs are identical to the last bit on one machine, with the same versions of torch and of the data, the same
    number of threads (`torch.set_num_threads`) and of processes that train together. The number of workers that load
    the data does not matter. Ask for it before the first work on a GPU, whose libraries look once only.

    What cannot be promised: the same bits on another processor or GPU, under another version of torch or CUDA, or with
    other numbers of threads and processes. Each of these may add the same numbers up in another order. Nor can it be
    for code of your own that goes by time, by the order of a set of strings (unless PYTHONHASHSEED is set), or by
    random numbers from elsewhere.

    It stays on: `set_seed(seed)` later seeds anew and leaves it as it is. `torch.use_deterministic_algorithms(False)`
    ends it.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if reproducible:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA asks for, before its first use
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False  # which chooses algorithms by their speed, each time anew


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
