"""Finding items and reading their inputs and labels: the `get_items`, `get_x` and `get_y` of a `DataBlock`."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .portable import Portable, portable

__all__ = ["AttrGetter", "ColReader", "FuncLabeller", "ItemGetter", "ItemName", "RegexLabeller", "SamplePart",
           "get_files", "get_image_files", "parent_label"]  # fmt: skip

IMAGE_EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jfif"}


@portable
def get_files(path: str | Path, extensions: str | Iterable[str] | None = None, recurse: bool = True,
              folders: str | Sequence[str] | None = None) -> list[Path]:  # fmt: skip
    """All files under `path`, sorted, hidden ones left out.

    `extensions` as ['.csv', '.txt'] (any case); `folders` limits the search to these folders directly below `path`.
    Raises FileNotFoundError where `path` or one of `folders` is not a folder.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"files are looked for in a folder, not a {type(path).__name__}: leave get_items out for a list."
        )
    roots = [Path(path) / folder for folder in _names(folders)] if folders else [Path(path)]
    wanted = {f".{e.lower().removeprefix('.')}" for e in _names(extensions)} if extensions is not None else None
    found = (file for root in roots for file in _walk(root, recurse))
    return sorted(file for file in found if wanted is None or file.suffix.lower() in wanted)


def _names(names: str | Iterable[str]) -> Iterable[str]:
    return [names] if isinstance(names, str) else names


def _walk(root: Path, recurse: bool) -> Iterator[Path]:
    if not root.is_dir():
        where = "" if root.is_absolute() else f" (looked for it from {Path.cwd()})"
        raise FileNotFoundError(f"{root} is not a folder{where}.")
    for folder, subfolders, names in os.walk(root, followlinks=True):
        inside = (s for s in subfolders if not s.startswith(".") and not _leads_back(Path(folder, s)))
        subfolders[:] = inside if recurse else ()
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _leads_back(folder: Path) -> bool:
    """Whether `folder` is a link to a folder that it lies in, where a walk would never end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


@portable
def get_image_files(path: str | Path, recurse: bool = True, folders: str | Sequence[str] | None = None) -> list[Path]:
    """All image files under `path` by their extension, sorted; see `get_files`."""
    return get_files(path, IMAGE_EXTENSIONS, recurse, folders)


@portable
def parent_label(item: str | Path) -> str:
    """The name of the folder that a file is in: `data/train/ants/1.jpg` → `ants`. Raises ValueError if it has none."""
    label = Path(item).parent.name
    if not label:
        raise ValueError(f"{str(item)!r} names no folder that could be its label")
    return label


@dataclass(frozen=True)
class RegexLabeller(Portable):
    """The first group that `pat` matches in an item's path (written with forward slashes).

    >>> RegexLabeller(r"([^/]+)_\\d+.jpg$")("pets/great_pyrenees_173.jpg")
    'great_pyrenees'
    """

    pat: str

    def __post_init__(self):
        if re.compile(self.pat).groups < 1:
            raise ValueError(f"The pattern {self.pat!r} has no group: put the label in brackets, r'([^/]+)_\\d+.jpg$'.")

    def __call__(self, item: str | Path) -> str:
        text = item.as_posix() if isinstance(item, Path) else str(item)
        match = re.search(self.pat, text)
        if match is None:
            raise ValueError(f"the pattern does not match; try it with re.search({self.pat!r}, {text!r})")
        return match.group(1)


@dataclass(frozen=True)
class ColReader(Portable):
    """Reads one or several columns of a row: `cols` are names or positions.

    `pref` and `suff` are put around each value (a folder and an extension, say; a `Path` prefix is joined, so that an
    absolute path stays as it is); `label_delim` splits the value into a list of labels. An item without columns, such
    as a file name given to `learn.predict`, is taken as the value itself.
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
        if isinstance(self.pref, Path):
            return os.path.join(self.pref, f"{value}{self.suff}")
        return f"{self.pref}{value}{self.suff}"


def _column(row: Any, col: str | int) -> Any:
    if isinstance(row, tuple):
        row = dict(zip(getattr(row, "_fields", range(len(row))), row, strict=True))
    names = list(row.keys())
    if col in names:
        return row[col]
    if isinstance(col, int) and -len(names) <= col < len(names):
        return row[names[col]]
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
class SamplePart(Portable):
    """Value `i` of an item that is a sample already: a tuple, or if `of` says so a list, of a value for each block.

    Anything else, such as what is given to `learn.predict`, is taken as the value itself.
    """

    i: int
    of: str = "tuple"

    def __call__(self, item: Any) -> Any:
        return item[self.i] if isinstance(item, {"tuple": tuple, "list": list}[self.of]) else item


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
