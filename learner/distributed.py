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
from ..data.fingerprint import fingerprint
from .ranks import RankError, Ranks, join

__all__ = ["agree_on", "launch", "own_part", "rank0_first", "with_synced_batchnorm"]

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
    # a process that is forked while the store's thread answers another one may inherit a lock that nobody opens again
    all_started = mp.get_context(method).Event()
    with tempfile.TemporaryDirectory() as folder:
        task = (fn, tuple(args), nprocs, store.port, folder, all_started)
        processes: Any = mp.start_processes(_run_as_rank, task, nprocs, join=False, start_method=method)
        all_started.set()
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


def _run_as_rank(rank: int, fn: Callable[..., Any], args: tuple, n: int, port: int, folder: str,
                 all_started: Any) -> None:  # fmt: skip
    """What a process of `launch` does: meet the others, call `fn`, leave its result in a file."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    torch.set_num_threads(1)
    all_started.wait(60)  # seconds: it is there at once, unless whoever starts us has ended
    join()
    result = fn(*args)
    try:
        torch.save(result, Path(folder) / str(rank))
    except Exception as error:
        raise TypeError(
            f"What {fn.__name__} returns has to be sent to the process that launched it, and a "
            f"{type(result).__name__} cannot be: return numbers, texts, tensors, or tuples and dicts of them. {error}"
        ) from error


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
    if ranks.n == 1 or any(dl.shard.n > 1 for dl in data.dls if dl is not None):  # not all, if one parts itself
        return data
    seeds = [torch.initial_seed() if dl is None or dl.seed is None else dl.seed for dl in data.dls]
    found = ranks.gather((seeds, _facts(data)))
    for rank, (_, facts) in enumerate(found):
        _check_same_data(found[0][1], facts, rank)
    part = data.sharded(ranks.rank, ranks.n, found[0][0], even)
    return part.to(torch.device("cuda", torch.cuda.current_device())) if data.device.type == "cuda" else part


def _facts(data: DataBunch) -> dict[str, dict[str, Any]]:
    """What the processes have to have in common: of each loader what it consists of, and how it makes batches."""
    names = ("training set", "validation set", *(f"set {number}" for number in range(2, len(data.dls))))
    loaders = [(name, dl) for name, dl in zip(names, data.dls, strict=False) if dl is not None]
    return {
        name: {"batches": dl.n_batches, "items in a batch": dl.bs, **fingerprint(dl.dataset)} for name, dl in loaders
    }


def _check_same_data(first: dict, own: dict, rank: int) -> None:
    for name in {**first, **own}:
        if first.get(name) == own.get(name):
            continue
        if name not in first or name not in own:
            what = f"{'a' if name in own else 'no'} {name}, unlike rank 0"
        else:
            one, other = first[name], own[name]
            numbers = [key for key in ("items", "items in a batch", "batches") if one.get(key) != other.get(key)]
            facts = ", ".join(f"{other.get(key)} {key} instead of {one.get(key)}" for key in numbers)
            what = f"another {name} than rank 0: {facts or 'other items'}"
        raise ValueError(
            f"Rank {rank} has {what}. All processes have to make the same data, of which each then takes its part: "
            "give every random split its seed, RandomSplitter(seed=42), or call set_seed before the data is made."
        )


def agree_on(model: nn.Module, ranks: Ranks) -> None:
    """Give all processes the weights of rank 0. Raises ValueError where one has another architecture."""
    tensors = [*model.parameters(), *model.buffers()]
    shapes = ranks.gather([tuple(tensor.shape) for tensor in tensors])
    for rank, found in enumerate(shapes):
        if found != shapes[0]:
            raise ValueError(f"Rank {rank} has another model than rank 0: all processes have to make the same.")
    with torch.no_grad():
        ranks.copy_first(tensors)


def with_synced_batchnorm(model: nn.Module, device: torch.device) -> nn.Module:
    """A model whose BatchNorm layers take their statistics over all processes; its parameters are the same."""
    if device.type == "cpu":
        raise ValueError("sync_bn=True: torch's SyncBatchNorm works on accelerators only, and this is the CPU.")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
