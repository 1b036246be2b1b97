"""Several processes that train one model: which of them this is, and what they tell each other.

    torchrun --nproc-per-node 4 train.py

starts a script four times; `join()` makes each a rank from 0 to 3. Without any such launcher there is one process, rank
0 of 1, and everything here is true and free for it, too.
"""

import atexit
import io
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..data.randomness import fresh_seed, generator_states, mix, seed_generators, set_generator_states
from ..data.workers import WORKER_LOST
from .meeting import meeting_place

__all__ = ["RankError", "Ranks", "join"]

T = TypeVar("T")
_known: dict[tuple, "Ranks"] = {}  # by process group and time-out: groups are made once
WISHES = ("save", "stop")
START = 120.0  # seconds that processes have to come to where they meet, where the time-out is shorter
ROLL_CALL = 5.0  # seconds in which a process that is alive answers
AT_ONCE = 2**25  # bytes of tensors that travel together


class RankError(RuntimeError):
    """Processes that train together cannot go on: the message names the rank that is lost or has failed."""


@dataclass(eq=False)
class Ranks:
    """This process among those that train together: number `rank` of `n`, number `local_rank` on its machine.

    All of them make the same calls in the same order. What is said goes from host to host, and no accelerator waits.
    """

    rank: int = 0
    n: int = 1
    local_rank: int = 0
    host: Any = None  # the process group for what hosts tell each other
    group: Any = None  # and the one for the tensors on their devices
    wishes: set[str] = field(default_factory=set)  # of this process, until all know them
    agreed: set[str] = field(default_factory=set)  # wishes that some rank had, known to all in the same batch
    common_numbers: dict[str, Any] | None = None  # states of the random generators, while each rank has its own

    def gather(self, value: T) -> list[T]:
        """The `value` of every rank, in their order; tensors on the CPU."""
        if self.n == 1:
            return [value]
        parts: list[Any] = [None] * self.n
        with self.watched():
            dist.all_gather_object(parts, _packed(value), group=self.host)
        return [_unpacked(part) for part in parts]

    def in_turn(self, batches: list[T]) -> list[T]:
        """What all ranks have made of their batches of a loader, in the order that one process would have made it."""
        if self.n == 1:
            return batches
        nothing: Any = object()
        rounds = zip_longest(*self.gather(batches), fillvalue=nothing)
        return [value for values in rounds for value in values if value is not nothing]

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make()` returns on rank 0, where alone it is called; an error there is one on all ranks."""
        if self.n == 1:
            return make()
        value, error = None, None
        if self.rank == 0:
            try:
                value = make()
            except Exception as e:
                error = e
        shared = [_packed((value, None if error is None else f"{type(error).__name__}: {error}"))]
        with self.watched():
            dist.broadcast_object_list(shared, src=0, group=self.host)
        if error is not None:
            raise error
        value, failure = _unpacked(shared[0])
        if failure is not None:
            raise RankError(f"Rank 0 failed, and the others with it. {failure}")
        return value

    def total(self, value: float) -> float:
        """The sum of a number over all ranks; wishes travel with it."""
        if self.n == 1:
            self.agreed |= self.wishes
            self.wishes.clear()
            return value
        said = set(self.wishes)  # a signal may add to them at any time
        numbers = torch.tensor([value, *(wish in said for wish in WISHES)], dtype=torch.float64)
        with self.watched():
            dist.all_reduce(numbers, group=self.host)
        self.wishes -= said
        self.agreed |= {wish for wish, n in zip(WISHES, numbers[1:].tolist(), strict=True) if n}
        return numbers[0].item()

    def wish(self, what: str) -> None:
        """Let all ranks know, with the next batch, that this one wishes to "save" or to "stop"."""
        self.wishes.add(what)
        if self.n == 1:
            self.total(0)

    def any(self, flag: bool) -> bool:
        """Whether some rank says so."""
        return self.total(float(flag)) > 0

    def where(self, flag: bool) -> list[int]:
        """The ranks that say so."""
        return [rank for rank, says in enumerate(self.gather(bool(flag))) if says]

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, on its device, which nobody waits for."""
        if self.n > 1:
            with self.watched():
                dist.all_reduce(tensor, group=self.group)
        return tensor

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Set tensors to their means over all ranks; those of one kind travel together."""
        if self.n > 1:
            _at_once(tensors, lambda values: self.sum_tensor(values.div_(self.n)))

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Set tensors to what they are on rank 0; those of one kind travel together."""
        if self.n > 1:
            with self.watched():
                _at_once(tensors, lambda values: dist.broadcast(values, src=0, group=self.group))

    def part_random_numbers(self, device: torch.device) -> None:
        """Have each rank draw numbers of its own, as dropout does; all of them follow from what the ranks share."""
        seed = fresh_seed()
        self.common_numbers = generator_states(device)
        seed_generators(mix(seed, self.rank), device)

    def join_random_numbers(self, device: torch.device) -> None:
        """From here all draw the same again, if they have been parted: what would have come next then."""
        if self.common_numbers is not None:
            set_generator_states(self.common_numbers, device)
            self.common_numbers = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, where the connection to other ranks breaks or they do not come in time, a RankError says which."""
        try:
            yield
        except RankError:
            raise
        except RuntimeError as error:
            if self.n == 1 or not _is_of_connection(error):
                raise
            raise RankError(self._who_is_missing(error)) from error

    def _who_is_missing(self, error: Exception) -> str:
        reason = str(error).partition("\n")[0]
        missing = self._roll_call()
        if not missing:
            return f"The connection between the processes broke, seen from rank {self.rank} of {self.n}: {reason}"
        names = f"Rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))} of {self.n}"
        if "imed out" in reason:
            return (
                f"{names} did not come to where rank {self.rank} waited for it. It hangs, does other work than the "
                f"rest, or needs longer than the time-out: to_distributed(timeout=…). ({reason})"
            )
        names = names.replace("Ranks", "One of ranks")  # the others may wait for a rank that is here
        return f"{names} has ended or failed, so rank {self.rank} cannot go on: its own message says why. ({reason})"

    def _roll_call(self) -> list[int]:
        """The ranks that do not answer. All that are alive come here at about the same time."""
        try:
            store = dist.distributed_c10d._get_default_store()
            store.set(f"roll call/{self.rank}", "here")
            others = [rank for rank in range(self.n) if rank != self.rank]
            end = time.monotonic() + ROLL_CALL
            while others and time.monotonic() < end:
                if "stop" in self.wishes:  # torchrun ends those that are left, and says itself who was lost
                    return []
                others = [rank for rank in others if not store.check([f"roll call/{rank}"])]
                time.sleep(0.05)
            return others
        except RuntimeError:  # the store is kept by the machine of rank 0, or by torchrun
            return [] if self.rank == 0 else [0]


def _at_once(tensors: Iterable[Tensor], change: Callable[[Tensor], Any]) -> None:
    """Let `change` work in place on tensors as vectors: on many of a kind together, for each call takes its time."""
    kinds: dict[tuple, list[list[Tensor]]] = {}
    for tensor in tensors:
        groups = kinds.setdefault((tensor.dtype, tensor.device), [[]])
        if sum(other.nbytes for other in groups[-1]) > AT_ONCE:
            groups.append([])
        groups[-1].append(tensor)
    for alike in (group for groups in kinds.values() for group in groups):
        values = torch.cat([tensor.reshape(-1) for tensor in alike])
        change(values)
        for tensor, part in zip(alike, values.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(part.view(tensor.shape))


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpacked(data: bytes) -> Any:
    """What another process of this run has packed, its tensors on the CPU."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether it is of the connection to other ranks, and not of that to the worker of a loader."""
    if WORKER_LOST in str(error):
        return False
    is_named = re.search("gloo|NCCL|onnection (closed|reset)|imed out", str(error))
    return isinstance(error, dist.DistError) or is_named is not None


def join(timeout: float | None = None) -> Ranks:
    """Join the processes that were started with this one; where there are none, or was nobody to start them, be alone.

    The environment says so: that of `torchrun`, of SLURM's `srun`, or a process group that has been made already, as in
    Ray Train. The processes talk through NCCL where they have accelerators, else gloo. `timeout`: the seconds after
    which a process that others wait for is taken for lost, 30 minutes if not said.
    """
    if not dist.is_initialized():
        environment = {"WORLD_SIZE": "1", **(_slurm(os.environ) if "RANK" not in os.environ else {}), **os.environ}
        if int(environment["WORLD_SIZE"]) == 1:
            return Ranks()
        os.environ.update(environment)
        _use_own_device(int(environment.get("LOCAL_RANK", 0)))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        duration = _duration(None if timeout is None else max(timeout, START))
        rank, n = int(environment.get("RANK", -1)), int(environment["WORLD_SIZE"])
        dist.init_process_group(backend, store=meeting_place(duration), rank=rank, world_size=n, timeout=duration)
        atexit.register(_leave)
    if dist.get_world_size() == 1:
        return Ranks()
    key = (id(dist.group.WORLD), timeout)
    if key not in _known:
        _known[key] = _made_known(_duration(timeout))
    return _known[key]


def _made_known(timeout: timedelta) -> Ranks:
    host = dist.new_group(backend="gloo", timeout=timeout)
    group = dist.new_group(timeout=timeout) if torch.cuda.is_available() else host
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)), host, group)
    ranks.gather(None)  # torch lets one go on, and even end, while others still look for it
    return ranks


def _duration(seconds: float | None) -> timedelta:
    return timedelta(minutes=30) if seconds is None else timedelta(seconds=seconds)


def _use_own_device(local_rank: int) -> None:
    if not torch.cuda.is_available():
        return
    n = torch.cuda.device_count()
    if n == 1 and "SLURM_PROCID" in os.environ:  # with --gpus-per-task each process sees its own alone, as number 0
        local_rank = 0
    if local_rank >= n:
        raise ValueError(
            f"This is process {local_rank} on its machine, which has {n} GPUs, numbered from 0: start as many "
            "processes as there are GPUs (torchrun --nproc-per-node gpu)."
        )
    torch.cuda.set_device(local_rank)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """What torch wants to know, as `srun` has put it; nothing for a process that is not one of several tasks of it.

    The port follows from the job and step, so that two of them on one machine do not meet. Values that are set already
    win.
    """
    n = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if n == "1" or "SLURM_PROCID" not in environment:
        return {}
    job, step = int(environment.get("SLURM_JOB_ID", 0)), int(environment.get("SLURM_STEP_ID", 0))
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "localhost")
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": n,
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": _first_host(nodes),
        "MASTER_PORT": str(15000 + (job * 17 + step) % 15000),
    }


def _first_host(nodes: str) -> str:
    """The first of SLURM's list of machines: `gpu[03-05,9],login` → `gpu03`."""
    match = re.match(r"([^,\[]*)(?:\[([^\],\-]*)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in match.groups()) if match else nodes
