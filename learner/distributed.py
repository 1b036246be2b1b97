"""Starting several processes from a notebook or a test, taking turns, and what each of them has of the data."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from ..data.bunch import DataBunch
from .ranks import RankError, Ranks, join

__all__ = ["launch", "own_part", "rank0_first", "with_synced_batchnorm"]

T = TypeVar("T")


def launch(fn: Callable[..., T], args: Sequence[Any] = (), nprocs: int = 2) -> list[T]:
    """Run `fn(*args)` in `nprocs` processes on this machine that can train together; what each returns, by rank.

        def train(path):
            learn = vision_learner(ImageDataBunch.from_folder(path), resnet34).to_distributed()
            learn.fine_tune(3)
            return learn.validate()

        launch(train, [path], nprocs=2)

    For notebooks and tests; scripts are started by `torchrun`. On Linux the processes are forks of this one, so `fn`
    may be a function of a notebook's, and compute with one thread each; with GPUs, that works until this process has
    used one. Where they cannot be forks, `fn` is imported by them: write it in a module. Raises RankError where a
    process fails, with its rank and traceback; the others are ended.
    """
    method = "fork" if sys.platform == "linux" and not torch.cuda.is_initialized() else "spawn"
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # any port that is free
    with tempfile.TemporaryDirectory() as folder:
        processes: Any = mp.start_processes(
            _run_as_rank, (fn, tuple(args), nprocs, store.port, folder), nprocs, join=False, start_method=method
        )
        try:
            while not processes.join():
                pass
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            raise RankError(_failure(error, nprocs)) from None
        finally:
            for process in processes.processes:
                if process.is_alive():
                    process.kill()
        return [torch.load(Path(folder) / str(rank), weights_only=False) for rank in range(nprocs)]  # their own files


def _run_as_rank(rank: int, fn: Callable[..., Any], args: tuple, n: int, port: int, folder: str) -> None:
    """What a process of `launch` does: meet the others, call `fn`, leave its result in a file."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    torch.set_num_threads(1)
    join()
    torch.save(fn(*args), Path(folder) / str(rank))


def _failure(error: Any, n: int) -> str:
    if isinstance(error, mp.ProcessExitedException):
        how = f"was ended by {error.signal_name}" if error.signal_name else f"ended with exit code {error.exit_code}"
        return f"Rank {error.error_index} of {n} {how}; the others have been ended."
    return f"Rank {error.error_index} of {n} failed; the others have been ended.\n{str(error).strip()}"


def rank0_first(func: Callable[[], T]) -> T:
    """What `func()` returns, called on rank 0 first and then on the others: `rank0_first(lambda: untar_data(url))`.

    So one process downloads or writes, and the others find it done. After rank 0 comes one process on each other
    machine, since its disk may be another. An error is raised on all ranks.
    """
    ranks = join()
    result: list[T] = []

    def call(mine: bool) -> None:
        failure = None
        if mine and not result:
            try:
                result.append(func())
            except Exception as error:
                failure = error
        failures = ranks.gather(None if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        for rank, text in enumerate(failures):
            if text is not None:
                raise RankError(f"Rank {rank} failed, and the others with it. {text}")

    call(ranks.rank == 0)
    if ranks.n > 1:
        call(ranks.local_rank == 0)
        call(True)
    return result[0]


def own_part(data: DataBunch, ranks: Ranks, even: bool) -> DataBunch:
    """What this process has of a learner's data. Raises ValueError where other processes have other data."""
    if ranks.n == 1 or data.train_dl.shard.n > 1:
        return data
    seeds = [0 if dl is None else dl.seed or 0 for dl in data.dls]
    part = data.sharded(ranks.rank, ranks.n, ranks.gather(seeds)[0], even)
    return part.to(torch.device("cuda", ranks.local_rank)) if data.device.type == "cuda" else part


def with_synced_batchnorm(model: nn.Module, device: torch.device) -> nn.Module:
    """A model whose BatchNorm layers take their statistics over all processes; its parameters are the same."""
    if device.type == "cpu":
        raise ValueError("sync_bn=True: torch's SyncBatchNorm works on accelerators only, and this is the CPU.")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
