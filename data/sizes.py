"""Numbers of bytes: as a person writes and reads them, and how many are free.

>>> as_bytes("1.5GB"), in_words(262_144)
(1500000000, '262 KB')
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["as_bytes", "free_memory", "in_words"]

UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3}
CONTAINER = Path("/sys/fs/cgroup")  # where Linux says how much memory this container may take, and takes
LIMITS = [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")]


def as_bytes(size: str | int) -> int:
    """A size above 0, a number or a text as "20GB". Raises ValueError for anything else."""
    text = str(size).upper().replace(" ", "")
    number, factor = (text[:-2], UNITS[text[-2:]]) if text[-2:] in UNITS else (text, 1)
    try:
        n_bytes = int(float(number) * factor)
    except (ValueError, OverflowError):
        n_bytes = 0
    if n_bytes <= 0:
        raise ValueError(f"{size!r} is no size: give a number of bytes, or a text such as '20GB' ({', '.join(UNITS)}).")
    return n_bytes


def in_words(n_bytes: int) -> str:
    """A number of bytes in its largest unit, to three digits."""
    unit = next((unit for unit, size in UNITS.items() if n_bytes >= size), None)
    return f"{n_bytes} bytes" if unit is None else f"{float(f'{n_bytes / UNITS[unit]:.3g}'):g} {unit}"


def free_memory() -> int:
    """Bytes that this process may still take, of the machine's memory or the container's.

    Of several that `torchrun` has started here, each has its share.
    """
    free = [*_of_machine(), *_of_container()]
    return min(free) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _of_machine() -> Iterator[int]:
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])


def _of_container() -> Iterator[int]:
    for most, taken in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max", where there is no limit
            yield max(0, int((CONTAINER / most).read_text()) - int((CONTAINER / taken).read_text()))
