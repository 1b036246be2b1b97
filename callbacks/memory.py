"""How much memory training takes.

    learn.fit(2, cbs=(memory := MemoryUse()))
    memory.table                 # MiB after forward, backward, step and in validation, and the peak, by epoch

Activations are held from the forward pass to the end of the backward pass, the optimizer's state from its first step.
"""

import os
import platform
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from .core import Callback

__all__ = ["MemoryUse", "device_memory", "memory_in_use"]

MIB = 2**20
STAGES = ["forward", "backward", "step", "validation"]
STATM = Path("/proc/self/statm")  # of this process, in pages: its size, what of it is resident, …
ON_LINUX = STATM.exists()


class MemoryUse(Callback):
    """Records the most memory in use after forward, backward, step and in validation, and each epoch's peak, in MiB.

    On an accelerator that is what torch has allocated for tensors (its cache holds more), and on CUDA the peak counts
    moments between these, too. On the CPU it is the resident memory of this process, without its workers. `table` has a
    row per epoch, over all fits of the learner; `device` says at the end of a fit how much the device has.
    """

    order = 40  # after what others do at the same moment
    real_runs_only = True
    state_names = ("rows", "row")

    def __init__(self):
        self.rows: list[dict[str, float]] = []
        self.device: dict[str, Any] = {}
        self.row: dict[str, float] = {}  # of the epoch

    @property
    def table(self) -> pd.DataFrame:
        """A row per epoch: `forward, backward, step, validation, peak`, in MiB; NaN for a stage that did not happen."""
        return pd.DataFrame(self.rows, columns=[*STAGES, "peak"]).rename_axis("epoch")

    def before_epoch(self, learn: Any) -> None:
        self.row = {}
        if learn.data.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(learn.data.device)

    def after_pred(self, learn: Any) -> None:
        self._note("forward" if learn.training else "validation", learn)

    def after_backward(self, learn: Any) -> None:
        self._note("backward", learn)

    def after_step(self, learn: Any) -> None:
        self._note("step", learn)

    def _note(self, stage: str, learn: Any) -> None:
        self.row[stage] = max(self.row.get(stage, 0.0), memory_in_use(learn.data.device))

    def after_epoch(self, learn: Any) -> None:
        device = learn.data.device
        exact = [torch.cuda.max_memory_allocated(device) / MIB] if device.type == "cuda" else []
        self.rows.append(self.row | {"peak": max([*self.row.values(), *exact], default=float("nan"))})

    def after_fit(self, learn: Any) -> None:
        self.device = device_memory(learn.data.device)


def memory_in_use(device: torch.device) -> float:
    """MiB that tensors take on an accelerator; for the CPU, that this process takes. NaN where the system won't say."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / MIB
    if device.type == "mps":
        return torch.mps.current_allocated_memory() / MIB
    return _resident() / MIB


def _resident() -> float:
    """Resident memory of this process in bytes: of now on Linux, its largest so far on other Unixes."""
    if ON_LINUX:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def device_memory(device: torch.device) -> dict[str, Any]:
    """What the device is and how much memory it has: `device`, `total`, and on CUDA `free` and `reserved`, in MiB."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        sizes = {"total": total, "free": free, "reserved": reserved}
        return {"device": torch.cuda.get_device_name(device)} | {name: size / MIB for name, size in sizes.items()}
    if device.type == "mps":
        return {"device": "mps", "total": torch.mps.recommended_max_memory() / MIB}
    return {"device": platform.machine(), "total": _physical() / MIB}


def _physical() -> float:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else float("nan")
