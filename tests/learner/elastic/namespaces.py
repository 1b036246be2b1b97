"""Machines to try things out on: network namespaces with an address each, on a network that nothing else is on.

    python namespaces.py 3 torchrun --nnodes 3 … train.py

runs a command on three of them, with what this machine has but its network. Needs Linux and the rights of root.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["address", "machines", "why_not"]

PREFIX = "warmstart-test"


def address(number: int) -> str:
    """Of the machine with that number, counted from 0."""
    return f"10.77.0.{11 + number}"


@contextmanager
def machines(n: int) -> Iterator[list[list[str]]]:
    """Inside, there are `n` machines, each given by how a command line begins to run on it.

    Each has a network card `eth0`. The switch between them is in a namespace of its own, too, so this machine's
    network is not touched, and all is gone with the namespaces. What runs in them when they are left is killed, and
    so is what a run that was killed has left behind.
    """
    _remove_leftovers()
    name = f"{PREFIX}-{os.getpid()}"
    switch, names = f"{name}-switch", [f"{name}-{number}" for number in range(n)]
    try:
        for namespace in (switch, *names):
            _ip("netns", "add", namespace)
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        for number, namespace in enumerate(names):
            _plug_in(namespace, address(number), switch, f"port{number}")
        yield [["ip", "netns", "exec", namespace] for namespace in names]
    finally:
        for namespace in (*names, switch):
            _remove(namespace)


def why_not() -> str | None:
    """What is in the way of making machines here; None where nothing is."""
    if shutil.which("ip") is None:
        return "network namespaces are made by the command ip, which is not here"
    try:
        with machines(1):
            return None
    except OSError as error:
        return f"network namespaces need rights that this user or container has not got: {error}"


def _plug_in(namespace: str, own_address: str, switch: str, port: str) -> None:
    _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _ip("-n", switch, "link", "set", port, "master", "switch", "up")
    _ip("-n", namespace, "address", "add", f"{own_address}/24", "dev", "eth0")
    for card in ("lo", "eth0"):
        _ip("-n", namespace, "link", "set", card, "up")


def _ip(*command: str) -> str:
    done = subprocess.run(["ip", *command], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise OSError(f"ip {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _existing() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line.startswith(PREFIX)]


def _remove(namespace: str) -> None:
    if namespace in _existing():
        for pid in _ip("netns", "pids", namespace).split():
            try:
                os.kill(int(pid), 9)
            except ProcessLookupError:
                continue
        _ip("netns", "delete", namespace)


def _remove_leftovers() -> None:
    """Remove what belongs to runs whose process is no more."""
    for namespace in _existing():
        owner = namespace.removeprefix(f"{PREFIX}-").partition("-")[0]
        if not Path("/proc", owner).exists():
            _remove(namespace)


if __name__ == "__main__":
    with machines(int(sys.argv[1])) as found:
        for process in [subprocess.Popen([*machine, *sys.argv[2:]]) for machine in found]:
            process.wait()
