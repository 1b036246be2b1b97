"""Bytes by key in a growing file that processes share, of which any may be killed at any moment.

    store = Store.in_memory(limit=2**30)       # or Store.on_disk(folder, limit=2**30)
    store.put(key, b"an item")                 # `key`: 16 bytes, a hash of all that the item depends on
    store.get(key)                             # bytearray(b"an item"), or None

Two files: the bytes one after the other, and a list of records that say where they are. A record is written after its
bytes, both under a lock that the system lifts when its holder dies, and carries a checksum of itself and one of the
bytes and their key. So what is torn, cut off or damaged is not found, and is put again. Nothing is mapped into memory:
a file that somebody cuts off would end the process. The pages of the files are shared by all processes all the same.
"""

import contextlib
import os
import struct
import tempfile
import time
import weakref
import zlib
from collections.abc import Iterator
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

import numpy as np

from .sizes import in_words

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["DATA", "INDEX", "RECORD", "Store", "StoreFull"]

INDEX, DATA = "index", "data"  # the two files
RECORD = struct.Struct("<16sQQII")  # key, begin, length, checksum of key and bytes, checksum of the record before here
SHORT = struct.Struct("<Q")  # the first half of a key, by which records are looked up
MANY = 4096  # records that are looked up in a dict, which takes ten times the memory, before they are sorted
PATIENCE = 1.0  # seconds to wait for the lock, which others hold for less than a thousandth of it
SPARE = 0.05, 10 * 10**9  # of a disk, that share is left free, but no more than so many bytes


class StoreFull(OSError):
    """Bytes that there is no room for, or that could not be written: the message says why."""


class Store:
    """See above. A copy that a spawned process gets has the same files; one pickled otherwise begins anew in memory."""

    def __init__(self, index: int, data: int, limit: int, folder: Path | None = None):
        self.index, self.data, self.limit, self.folder = index, data, limit, folder
        self.writable = bool(fcntl) and fcntl.fcntl(data, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        self._n_seen = 0  # records that this process has read
        self._recent: dict[int, int] = {}  # the last of them: short key -> number of the record
        self._sorted = (
            np.empty(0, np.uint64),
            np.empty(0, np.int64),
        )  # those before: short keys, and numbers
        self._damaged: dict[bytes, int] = {}  # number of the record that has been found wrong
        weakref.finalize(self, _close, index, data)

    @classmethod
    def in_memory(cls, limit: int) -> "Store":
        """In memory that is given back when the last of the processes that use it has ended, in whatever way."""
        return cls(*_files(None), limit)

    @classmethod
    def on_disk(cls, folder: Path, limit: int) -> "Store":
        """In `folder`, which is made; read-only where it cannot be written. Raises OSError where it cannot be read."""
        return cls(*_files(folder), limit, folder)

    def __len__(self) -> int:
        """Items, and those that have been replaced."""
        return os.fstat(self.index).st_size // RECORD.size

    @property
    def n_bytes(self) -> int:
        return os.fstat(self.data).st_size

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {"limit": self.limit, "folder": self.folder}
        if self.folder is None and get_spawning_popen() is not None:
            state["files"] = reduction.DupFd(self.index), reduction.DupFd(self.data)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        limit, folder = state["limit"], state["folder"]
        index, data = [file.detach() for file in state["files"]] if "files" in state else _files(folder)
        self.__init__(index, data, limit, folder)

    # ---- reading

    def get(self, key: bytes) -> bytearray | None:
        """The bytes of that key, a copy that may be written to; None where they are not there, or damaged."""
        number = self._number(key)
        if number is None:
            return None
        try:
            return self._read(key, number)
        except (OSError, ValueError, MemoryError):
            self._damaged[key] = number
            return None

    def _read(self, key: bytes, number: int) -> bytearray:
        """The bytes that record `number` speaks of. Raises ValueError unless record and bytes are whole."""
        record = os.pread(self.index, RECORD.size, number * RECORD.size)
        found, begin, length, checksum, of_record = RECORD.unpack(record.ljust(RECORD.size, b"\0"))
        if found != key or of_record != zlib.crc32(record[:-4]) or begin + length > self.n_bytes:
            raise ValueError("the record is damaged")
        content, n_read = bytearray(length), 0
        while n_read < length:
            n = os.preadv(self.data, [memoryview(content)[n_read:]], begin + n_read)
            if n == 0:
                raise ValueError("the file has become shorter")
            n_read += n
        if zlib.crc32(content, zlib.crc32(key)) != checksum:
            raise ValueError("the bytes are damaged")
        return content

    def _number(self, key: bytes) -> int | None:
        """The number of the last record of that key, also of those that another process has just written."""
        (short,) = SHORT.unpack_from(key)
        number = self._seen(short)
        if number is None or self._damaged.get(key) == number:
            self._see_new()
            number = self._seen(short)
        return number

    def _seen(self, short: int) -> int | None:
        if short in self._recent:
            return self._recent[short]
        keys, numbers = self._sorted
        place = int(np.searchsorted(keys, np.uint64(short), "right")) - 1
        return int(numbers[place]) if place >= 0 and keys[place] == short else None

    def _see_new(self) -> None:
        """Read the records that have been added since."""
        n = len(self)
        if n < self._n_seen:  # somebody has cut it off
            self._n_seen, self._recent, self._damaged = 0, {}, {}
            self._sorted = np.empty(0, np.uint64), np.empty(0, np.int64)
        begin = self._n_seen * RECORD.size
        added = os.pread(self.index, n * RECORD.size - begin, begin)
        for number, (key, *_) in enumerate(RECORD.iter_unpack(added[: len(added) // RECORD.size * RECORD.size])):
            self._recent[SHORT.unpack_from(key)[0]] = self._n_seen + number
        self._n_seen += len(added) // RECORD.size
        if len(self._recent) > max(MANY, len(self._sorted[0])):
            self._sort()

    def _sort(self) -> None:
        keys = np.concatenate([self._sorted[0], np.fromiter(self._recent.keys(), np.uint64, len(self._recent))])
        numbers = np.concatenate([self._sorted[1], np.fromiter(self._recent.values(), np.int64, len(self._recent))])
        order = np.argsort(keys, kind="stable")
        self._sorted, self._recent = (keys[order], numbers[order]), {}

    # ---- writing

    def put(self, key: bytes, content: bytes) -> None:
        """Add the bytes, unless another process was first. Raises StoreFull where they cannot be added.

        Where another process holds the lock for too long (one that was stopped, say), they are not added.
        """
        if not self.writable:
            raise StoreFull("it can only be read")
        try:
            with _locked(self.index) as is_alone:
                number = self._number(key) if is_alone else None
                if is_alone and (number is None or self._damaged.get(key) == number):
                    self._append(key, content)
        except StoreFull:
            raise
        except OSError as error:
            raise StoreFull(error.strerror or str(error)) from error

    def _append(self, key: bytes, content: bytes) -> None:
        begin, n = self.n_bytes, len(self)
        if begin + len(content) > self.limit:
            raise StoreFull(f"its {in_words(self.limit)} are used up")
        if self.folder is not None and _is_nearly_full(self.data, len(content)):
            raise StoreFull("the disk is nearly full")
        checksum = zlib.crc32(content, zlib.crc32(key))
        record = RECORD.pack(key, begin, len(content), checksum, 0)[:-4]
        try:
            _write(self.data, content, begin)
            _write(self.index, record + zlib.crc32(record).to_bytes(4, "little"), n * RECORD.size)
        except OSError:
            os.ftruncate(self.data, begin)  # what was written of it takes the last of the room
            raise


@contextlib.contextmanager
def _locked(file: int) -> Iterator[bool]:
    """While no other process writes; False where that takes longer than `PATIENCE`.

    Threads of a process do not keep each other out: what they may break, the checksums find.
    """
    end = time.monotonic() + PATIENCE
    while not (is_mine := _lock(file)) and time.monotonic() < end:
        time.sleep(0.0005)
    try:
        yield is_mine
    finally:
        if is_mine:
            fcntl.lockf(file, fcntl.LOCK_UN)  # type: ignore[union-attr]


def _lock(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[union-attr]
    except (BlockingIOError, PermissionError):
        return False
    return True


def _files(folder: Path | None) -> tuple[int, int]:
    """Index and data, open: in `folder`, or in memory."""
    if folder is None:
        return _anonymous_file(INDEX), _anonymous_file(DATA)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    index = _open(folder / INDEX)
    try:
        return index, _open(folder / DATA)
    except OSError:
        os.close(index)
        raise


def _anonymous_file(name: str) -> int:
    """A file without a name: in memory on Linux, where the size of /dev/shm does not limit it, else a temporary one."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(f"warmstart-{name}")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise error


def _close(*files: int) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            os.close(file)


def _write(file: int, content: bytes, begin: int) -> None:
    n_written = 0
    while n_written < len(content):
        n_written += os.pwrite(file, memoryview(content)[n_written:], begin + n_written)


def _is_nearly_full(file: int, n_bytes: int) -> bool:
    disk = os.fstatvfs(file)
    share, most = SPARE
    spare = min(share * disk.f_blocks * disk.f_frsize, most)
    return disk.f_bavail * disk.f_frsize - n_bytes < spare
