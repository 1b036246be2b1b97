"""The caches on disk: a folder for each, of which the least recently used make room.

    list_caches()               # a table
    clear_cache(days=30)        # removes those that nobody has used for 30 days

Decoded items are in `$WARMSTART_HOME/items`, in files `index` and `data` (see `data/store.py`), and the tokens of texts
in `$WARMSTART_HOME/tokens`, in a file `tokens.npz`. A file `about.json` says what the cache is of, and was written when
it was last used.
"""

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import PIL
import torch
import torchvision

from .. import __version__
from .home import warmstart_home
from .store import DATA, INDEX, RECORD

__all__ = ["TOKENS", "cache_folder", "caches_folder", "clear_cache", "default_limit", "list_caches", "make_room",
           "mark_used"]  # fmt: skip

FORMAT = 1  # of the files; a new one leaves old caches alone
ABOUT = "about.json"
TOKENS = "tokens.npz"
CONTENT = (INDEX, DATA, TOKENS)
VERSIONS = (
    FORMAT,
    __version__,
    torch.__version__,
    torchvision.__version__,
    PIL.__version__,
)  # by which pixels may differ


def list_caches(folder: str | Path | None = None) -> pd.DataFrame:
    """The caches on disk, a row for each, the most recently used first.

    `files` is the folder that the files are in, `item_tfms` what is done to them, `items` how many there are,
    `size` their bytes, `last_used` a time, `path` the cache's own folder. Of texts that were tokenised, `files` is how
    the first begins, `item_tfms` the tokenizer. `folder` is that of `Cache(folder=…)`.
    """
    return _table(reversed(_all_caches(folder)))


def clear_cache(days: float = 0, folder: str | Path | None = None) -> pd.DataFrame:
    """Remove the caches on disk that have not been used for so many days, by default all; the table of the removed.

    A training that uses one at the moment goes on, and no longer finds it when it is run again.
    """
    end = time.time() - days * 24 * 60 * 60
    old = [cache for cache in reversed(_all_caches(folder)) if _last_used(cache) <= end]
    table = _table(old)
    for cache in old:
        _remove(cache)
    return table


def caches_folder(folder: str | Path | None, of: Literal["items", "tokens"] = "items") -> Path:
    """Where the caches are: `folder`, by default `$WARMSTART_HOME/items`, or that of tokens."""
    return warmstart_home() / of if folder is None else Path(folder).expanduser()


def cache_folder(parent: Path, about: Mapping[str, Any]) -> Path:
    """The folder in `parent` of the cache that `about` describes, in JSON values."""
    return parent / hashlib.blake2b(json.dumps([about, VERSIONS]).encode(), digest_size=8).hexdigest()


def default_limit(parent: Path) -> int:
    """Half of the bytes that would be free without the caches."""
    existing = next(path for path in (parent, *parent.absolute().parents) if path.exists())
    return (shutil.disk_usage(existing).free + sum(map(_size, _caches(parent)))) // 2


def make_room(parent: Path, wanted: Path, most: int) -> int:
    """Remove the least recently used caches until all but `wanted` have at most `most` bytes; how many they have."""
    others = [cache for cache in _caches(parent) if cache != wanted]
    total = sum(map(_size, others))
    while total > most:
        total -= _size(others[0])
        _remove(others.pop(0))
    return total


def mark_used(cache: Path, about: Mapping[str, Any]) -> None:
    """Say what the cache is of, and that it is used now, where it may be written."""
    with contextlib.suppress(OSError):
        (cache / ABOUT).write_text(json.dumps(about), "utf-8")


def _all_caches(folder: str | Path | None) -> list[Path]:
    """Those of items and of tokens, or those in `folder`, the least recently used first."""
    parents = [caches_folder(folder)] if folder is not None else [caches_folder(None), caches_folder(None, "tokens")]
    return sorted((cache for parent in parents for cache in _caches(parent)), key=_last_used)


def _caches(parent: Path) -> list[Path]:
    """The folders of caches, and of nothing else, the least recently used first."""
    found = [*parent.iterdir()] if parent.is_dir() else []
    ours = [path for path in found if re.fullmatch("[0-9a-f]{16}", path.name) and _is_cache(path)]
    return sorted(ours, key=_last_used)


def _is_cache(folder: Path) -> bool:
    return (folder / INDEX).is_file() or (folder / TOKENS).is_file()


def _last_used(cache: Path) -> float:
    """In seconds since 1970; 0 where the cache has just been removed."""
    for name in (ABOUT, INDEX, TOKENS):
        with contextlib.suppress(OSError):
            return (cache / name).stat().st_mtime
    return 0.0


def _bytes(file: Path) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_size
    return 0


def _size(cache: Path) -> int:
    return sum(_bytes(cache / name) for name in CONTENT)


def _remove(cache: Path) -> None:
    """Remove our files, and the folder if nothing else is in it."""
    with contextlib.suppress(OSError):
        for name in (*CONTENT, ABOUT):
            (cache / name).unlink(missing_ok=True)
        cache.rmdir()


def _table(caches: Iterable[Path]) -> pd.DataFrame:
    names = pd.Index(["files", "item_tfms", "items", "size", "last_used", "path"])
    return pd.DataFrame(map(_row, caches), columns=names)


def _row(cache: Path) -> list[Any]:
    n_items = _bytes(cache / INDEX) // RECORD.size
    try:
        about = json.loads((cache / ABOUT).read_text("utf-8"))
        words, n_items = [str(about["files"]), str(about["item_tfms"])], int(about.get("items", n_items))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        words = ["", ""]
    return [*words, n_items, _size(cache), datetime.fromtimestamp(_last_used(cache)), cache]
