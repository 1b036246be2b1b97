"""Processes that read data: how many, how they begin, and what is said of those that are lost."""

import multiprocessing
import os
import signal
import sys

import torch

from .items import ItemError

__all__ = ["CAN_FORK", "WORKER_LOST", "begin_worker", "default_workers", "is_of_lost_worker",
           "without_worker_traceback"]  # fmt: skip

WORKER_LOST = (
    "A process that reads data was ended from outside, mostly because memory ran out, in a container also that of "
    "/dev/shm. Take fewer of them (num_workers=…, with 0 this process reads by itself), smaller items or a smaller bs."
)
CAN_FORK = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()  # macOS offers it, and crashes


def default_workers(device: torch.device) -> int:
    """As many workers as this process may use cores, at most 8; 0 where processes cannot be forked.

    0 on a CPU, too: its cores are busy with training, and workers that take one away slow all of its threads down.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores) if CAN_FORK and device.type != "cpu" else 0


def begin_worker(worker: int) -> None:
    """What a worker does first.

    A cluster may send SIGUSR1 to all processes of a job: the main one heeds it, and still needs its workers for that.
    From here on torch ends a worker whose parent is gone, and would wait for ever for one that is gone already.
    """
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if CAN_FORK and parent is not None and parent.pid != os.getppid():
        raise SystemExit(1)


def is_of_lost_worker(error: BaseException) -> bool:
    """Whether it says that a worker has ended, which torch may raise at any place."""
    return "DataLoader worker" in str(error) and WORKER_LOST not in str(error)


def without_worker_traceback(error: ItemError) -> ItemError:
    """A worker's error carries its printed traceback as message: keep the sentence at its end."""
    text = str(error)
    marker = f"{ItemError.__name__}: "
    return ItemError(text[text.rindex(marker) + len(marker) :].strip()) if text.startswith("Caught ") else error
