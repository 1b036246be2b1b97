"""Where processes meet that torchrun has started again, after some of them were lost.

The launchers keep one store for all rounds of a run (torch 2.5 to at least 2.14), in which the addresses of those that
are no more still stand: whoever reads them calls the dead. So the processes of a round agree on a part of it of their
own. Neither a number of the round nor of the restarts would do, since no two launchers need to count alike.
"""

import os
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist

__all__ = ["meeting_place"]

GREETING = "warmstart/greeting of {}"  # of a rank: the name that its process has given itself
ANSWER = "warmstart/answer to {}"  # by that name: the one of rank 0's process
CAME = "warmstart/{} came to {}"  # the first knows the name of the second


def meeting_place(timeout: timedelta, environment: Mapping[str, str] = os.environ) -> dist.Store | None:
    """The part of torchrun's store that this round's processes alone know; None for those that it did not start."""
    if "TORCHELASTIC_RUN_ID" not in environment or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    rank, n = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=timeout)
    return dist.PrefixStore(f"warmstart/round of {agreed_name(store, rank, n, timeout)}", store)


def agreed_name(store: dist.Store, rank: int, n: int, timeout: timedelta) -> str:
    """A name that is the same for all ranks and for no other round: the one that rank 0's process gives itself.

    A rank greets by a name of its own, and rank 0 answers whatever greeting stands there, again when it is another,
    until all have come. An old greeting is answered in vain. Raises RuntimeError where one does not come in time.
    """
    name = uuid.uuid4().hex
    if rank:
        store.set(GREETING.format(rank), name)
        answer = store.get(ANSWER.format(name)).decode()
        store.set(CAME.format(name, answer), "")
        return answer
    missing, end = dict.fromkeys(range(1, n), ""), time.monotonic() + timeout.total_seconds()
    while missing:
        for other, answered in list(missing.items()):
            if answered and store.check([CAME.format(answered, name)]):
                del missing[other]
            elif store.check([GREETING.format(other)]):
                missing[other] = store.get(GREETING.format(other)).decode()
                store.set(ANSWER.format(missing[other]), name)
        if time.monotonic() > end:
            raise RuntimeError(f"Timed out: rank {', '.join(map(str, missing))} of {n} did not come.")
        time.sleep(0.02)
    return name
