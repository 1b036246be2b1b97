"""Finding items and reading their inputs and labels: the `get_items`, `get_x` and `get_y` of a `DataBlock`."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .portable import Portable, portable

__all__ = ["AttrGetter", "ColReader", "FuncLabeller", "ItemGetter", "RegexLabeller", "get_files", "get_image_files",
           "parent_label"]  # fmt: skip

IMAGE_EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jfif"}


@portable
def get_files(
    path: str | Path, extensions: Iterable[str] | None = None, recurse: bool = True, folders: Sequence[str] | None = None
) -> list[Path]:
    """All files under `path`, sorted, hidden ones left out.

    `extensions` as ['.csv', '.txt'] (any case); `folders` limits the search to these folders directly below `path`.
    Raises FileNotFoundError where `path` or one of `folders` is not a folder.
    """
    roots = [Path(path) / folder for folder in folders] if folders else [Path(path)]
    wanted = {e.lower() for e in extensions} if extensions is not None else None
    found = [file for root in roots for file in _walk(root, recurse) if wanted is None or file.suffix.lower() in wanted]
    return sorted(found)


def _walk(root: Path, recurse: bool) -> Iterable[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder (looked for it from {Path.cwd()}).")
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [s for s in subfolders if recurse and not s.startswith(".")]
        yield from (Path(folder) / name for name in names if not name.startswith("."))


@portable
def get_image_files(path: str | Path, recurse: bool = True, folders: Sequence[str] | None = None) -> list[Path]:
    """All image files under `path` by their extension, sorted; see `get_files`."""
    return get_files(path, IMAGE_EXTENSIONS, recurse, folders)


@portable
def parent_label(item: str | Path) -> str:
    """The name of the folder that a file is in: `data/train/ants/1.jpg` → `ants`."""
    return Path(item).parent.name


@dataclass(frozen=True)
class RegexLabeller(Portable):
    """The first group that `pat` matches in an item's path (written with forward slashes).

    >>> RegexLabeller(r"([^/]+)_\\d+.jpg$")("pets/great_pyrenees_173.jpg")
    'great_pyrenees'
    """

    pat: str

    def __post_init__(self):
        if re.compile(self.pat).groups < 1:
            raise ValueError(f"The pattern {self.pat!r} has no group: put the label in brackets, as in r'([^/]+)_\\d+.jpg$'.")

    def __call__(self, item: str | Path) -> str:
        text = item.as_posix() if isinstance(item, Path) else str(item)
        match = re.search(self.pat, text)
        if match is None:
            raise ValueError(f"the pattern {self.pat!r} does not match {text!r}; try it with re.search({self.pat!r}, {text!r})")
        return match.group(1)


@dataclass(frozen=True)
class ColReader(Portable):
    """Reads one or several columns of a row: `cols` are names or positions.

    `pref` and `suff` are put around each value (a folder and an extension, say; a `Path` prefix gets its separator);
    `label_delim` splits the value into a list of labels. An item without columns, such as a file name given to
    `learn.predict`, is taken as the value itself.
    """

    cols: str | int | Sequence[str | int]
    pref: str | Path = ""
    suff: str = ""
    label_delim: str | None = None

    def __call__(self, row: Any) -> Any:
        if not isinstance(row, (pd.Series, dict, tuple)):
            return row
        if isinstance(self.cols, (str, int)):
            return self._read(row, self.cols)
        return [self._read(row, col) for col in self.cols]

    def _read(self, row: Any, col: str | int) -> Any:
        value = _column(row, col)
        if self.label_delim is not None:
            return [] if pd.isna(value) or value == "" else str(value).split(self.label_delim)
        if not self.pref and not self.suff:
            return value
        prefix = f"{self.pref}{os.sep}" if isinstance(self.pref, Path) else self.pref
        return f"{prefix}{value}{self.suff}"


def _column(row: Any, col: str | int) -> Any:
    columns = row if isinstance(row, (dict, pd.Series)) else pd.Series(row, index=getattr(row, "_fields", None))
    names = list(columns.keys())
    if col in names:
        return columns[col]
    if isinstance(col, int) and -len(names) <= col < len(names):
        return columns[names[col]]
    raise KeyError(f"there is no column {col!r}; the columns are {names}")


@dataclass(frozen=True)
class ItemName(Portable):
    """`func` of a file's name without its folders."""

    func: Callable[[str], Any]

    def __call__(self, item: str | Path) -> Any:
        return self.func(Path(item).name)


@dataclass(frozen=True)
class ItemGetter(Portable):
    """`item[i]`."""

    i: Any

    def __call__(self, item: Any) -> Any:
        return item[self.i]


@dataclass(frozen=True)
class AttrGetter(Portable):
    """`item.name`."""

    name: str

    def __call__(self, item: Any) -> Any:
        return getattr(item, self.name)


@dataclass(frozen=True)
class FuncLabeller(Portable):
    """`func(item)`: your own function, printed and exported by its name."""

    func: Callable[[Any], Any]

    def __call__(self, item: Any) -> Any:
        return self.func(item)
