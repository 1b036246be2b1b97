"""Files that are written whole and read without trust.

What is written goes to a temporary name first, is synced, then renamed: a crash leaves the old file or the new one. What is
read can only bring tensors and plain values; code in a file is never run.
"""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["FileError", "load_file", "save_file"]


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


def load_file(path: str | Path, device: torch.device | str) -> Any:
    """What `save_file` wrote, its tensors on `device`.

    Raises FileNotFoundError, and FileError for a file that is damaged, of another kind, or holds anything but tensors and
    plain values – which is refused, not run.
    """
    path = Path(path)
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))[:5] if path.parent.is_dir() else []
        raise FileNotFoundError(f"{path} does not exist{f'; its folder has {near}' if near else ''}.")
    if not zipfile.is_zipfile(path):
        raise FileError(
            f"{path} is not a file that torch.save wrote, or its end is missing ({path.stat().st_size:,} bytes): copy it again, or use "
            "the original. It was not opened further, since other formats can run code."
        )
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), str(error).splitlines()[0])
        raise FileError(
            f"{path} holds more than weights and was refused, nothing in it was run: {reason} If it is a file of yours, save its "
            "state_dict() instead."
        ) from None
    except Exception as error:  # a damaged archive fails in many ways: zipfile's, torch's, zlib's
        raise FileError(f"{path} is damaged and cannot be read ({type(error).__name__}: {error}). Copy it again.") from error
