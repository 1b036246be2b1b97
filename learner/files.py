"""Files that are written whole and read without trust.

What is written goes to a temporary name first, is synced, then renamed: a crash leaves the old file or the new one.
What is read can only bring tensors and plain values; code in a file is never run.
"""

import contextlib
import errno
import glob
import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

__all__ = ["FileError", "WriteError", "load_file", "one_line", "save_bytes", "save_file", "save_text"]


FOLDER = 0x10  # a bit of a zip entry's attributes
PROGRAM = "constants.pkl"  # by which torch tells a TorchScript archive, whose code some versions run on loading


class FileError(ValueError):
    """A file that cannot be used: the message says which, why, and what to do."""


class WriteError(OSError):
    """A file that could not be written: the message says which, why, and what helps; `errno` is the system's."""


def save_file(content: dict[str, Any], path: str | Path) -> Path:
    """Write tensors and plain values with `torch.save`, atomically; parent folders are made.

    What a killed process left half written beside it is removed. Raises WriteError, an OSError, where the disk is full
    or read-only, a folder is a file, and the like: what was there before is unchanged then.
    """
    return _write(Path(path), lambda file: _save(content, file))


def save_text(text: str, path: str | Path) -> Path:
    """Write a text in UTF-8, as `save_file` writes."""
    return save_bytes(text.encode(), path)


def save_bytes(content: bytes, path: str | Path) -> Path:
    """Write bytes, such as those of a picture, as `save_file` writes."""
    return _write(Path(path), lambda file: file.write(content))


def _write(path: Path, fill: Callable[["_Output"], Any]) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
        _replace(path, fill)
    except OSError as error:
        raise _write_error(path, error) from error
    return path


def _replace(path: Path, fill: Callable[["_Output"], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _Output(io.FileIO(temporary, "w")) as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


class _Output(io.BufferedWriter):
    """A file that remembers what the disk answered: of a full one, torch says only "unexpected pos"."""

    failure: OSError | None = None

    def write(self, buffer: Any, /) -> int:
        try:
            return super().write(buffer)
        except OSError as error:
            self.failure = error
            raise


def _save(content: dict[str, Any], file: _Output) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:
        if file.failure is None:
            raise
        raise file.failure from error


def _sync_folder(folder: Path) -> None:
    """Let a renaming last through a power cut, where folders can be synced: not on Windows, nor everywhere else."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # the file is there, whole and synced
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_left_over(path: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        pid = left.name[len(path.name) + 2 : -len(".part")]
        if pid.isdecimal() and not _is_running(int(pid)):
            with contextlib.suppress(OSError):  # another user's; or in use, which Windows tells in this way only
                left.unlink()


def _is_running(pid: int) -> bool:
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _write_error(path: Path, error: OSError) -> WriteError:
    file = next((p for p in path.parents if os.path.exists(p) and not os.path.isdir(p)), None)
    reason = f"{file} is a file, not a folder" if file else error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "Free some space, or write to another disk" if full else "Choose a path where you may write"
    said = WriteError(f"{path} could not be written: {reason}. {advice}. What was there before is unchanged.")
    said.errno = error.errno
    return said


def load_file(path: str | Path) -> Any:
    """What `save_file` wrote, its tensors on the CPU.

    Raises FileNotFoundError, and FileError for a file that is damaged, of another kind, or holds anything but tensors
    and plain values – which is refused, not run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_not_found(path))
    with path.open("rb") as file:
        if not _is_archive(file):
            raise FileError(
                f"{path} is not a file that torch.save wrote, or its end is missing ({path.stat().st_size:,} bytes): "
                "copy it again, or use the original. It was not opened further, since other formats can run code. "
                "(What torch wrote before version 1.6 is read after loading and saving it with a newer torch.)"
            )
        try:
            _check_entries(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL (\S+)", str(error))
            raise FileError(
                f"{path} holds more than tensors and plain values"
                f"{f': it asks for {one_line(asked[1])}' if asked else ''}. It was refused, and nothing in it was run. "
                "If it is a file of yours, save the state_dict() of the model instead."
            ) from None
        except Exception as error:  # a damaged archive fails in many ways: zipfile's, torch's, zlib's
            reason = one_line(str(error).partition("\n")[0])
            raise FileError(
                f"{path} is damaged or of another kind ({type(error).__name__}: {reason}): copy it again, or use the "
                "original."
            ) from error


def one_line(text: Any, n: int = 120) -> str:
    """What a file says, and so may be anything, as at most `n` printable characters for a message."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 8 * n]).split())
    return words if len(words) <= n else f"{words[: n - 1]}…"


def _is_archive(file: IO[bytes]) -> bool:
    """Whether torch will take the file for a zip archive, by its begin, and `_check_entries` will, by its end."""
    begin = file.read(4)
    try:
        return begin == b"PK\x03\x04" and zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # in which older Pythons say that some damages cannot be an archive
        return False


def _check_entries(file: IO[bytes]) -> None:
    """Raise BadZipFile where bytes have changed: `torch.load` takes them as they are, and a model is silently wrong.

    Also where torch could read other bytes than those that are checked here, or more than the file is long.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        for entry in entries:
            if entry.external_attr & FOLDER:
                raise zipfile.BadZipFile(f"{entry.filename} is marked as a folder")  # from which torch reads nothing
            if entry.compress_type != zipfile.ZIP_STORED:
                raise zipfile.BadZipFile(f"{entry.filename} is compressed, as torch.save does not do")
            if entry.filename.endswith(PROGRAM):
                raise zipfile.BadZipFile(f"{entry.filename} makes it a TorchScript program, no file of weights")
        if min(entry.header_offset for entry in entries) > 0:
            raise zipfile.BadZipFile("something stands before the archive")
        if len({entry.filename.lower() for entry in entries}) < len(entries):
            raise zipfile.BadZipFile("it holds two files of one name")
        if sum(entry.file_size for entry in entries) > file.seek(0, os.SEEK_END):
            raise zipfile.BadZipFile("it says to hold more bytes than it has")
        if changed := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {changed} does not fit")


def _not_found(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder, not a file."
    near = sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))[:5] if path.parent.is_dir() else []
    return f"{path} does not exist{f'; its folder has {near}' if near else ''}."
