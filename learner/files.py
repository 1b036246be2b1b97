"""Files that are written whole and read without trust.

What is written goes to a temporary name first, is synced, then renamed: a crash leaves the old file or the new one.
What is read can only bring tensors and plain values; code in a file is never run.
"""

import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["FileError", "load_file", "save_file"]


FOLDER = 0x10  # a bit of a zip entry's attributes


class FileError(ValueError):
    """A file that cannot be used: the message says which, why, and what to do."""


def save_file(content: dict[str, Any], path: str | Path) -> Path:
    """Write tensors and plain values with `torch.save`, atomically; parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_file(path: str | Path) -> Any:
    """What `save_file` wrote, its tensors on the CPU.

    Raises FileNotFoundError, and FileError for a file that is damaged, of another kind, or holds anything but tensors
    and plain values – which is refused, not run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_not_found(path))
    if not _is_archive(path):
        raise FileError(
            f"{path} is not a file that torch.save wrote, or its end is missing ({path.stat().st_size:,} bytes): copy "
            "it again, or use the original. It was not opened further, since other formats can run code. (What torch "
            "wrote before version 1.6 is read after loading and saving it with a newer torch.)"
        )
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        raise FileError(
            f"{path} holds more than tensors and plain values{f': it asks for {asked[1]}' if asked else ''}. It was "
            "refused, and nothing in it was run. If it is a file of yours, save the state_dict() of the model instead."
        ) from None
    except Exception as error:  # a damaged archive fails in many ways: zipfile's, torch's, zlib's
        reason = str(error).partition("\n")[0]
        raise FileError(
            f"{path} is damaged or of another kind ({type(error).__name__}: {reason}): copy it again, or use the "
            "original."
        ) from error


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # in which older Pythons say that some damages cannot be an archive
        return False


def _check_sums(path: Path) -> None:
    """Raise BadZipFile where bytes have changed: `torch.load` takes them as they are, and a model is silently wrong."""
    with zipfile.ZipFile(path) as archive:
        if changed := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {changed} does not fit")
        for entry in archive.infolist():
            if entry.external_attr & FOLDER:
                raise zipfile.BadZipFile(f"{entry.filename} is marked as a folder")  # from which torch reads nothing


def _not_found(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder, not a file."
    near = sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))[:5] if path.parent.is_dir() else []
    return f"{path} does not exist{f'; its folder has {near}' if near else ''}."
