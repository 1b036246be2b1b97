"""Which items train and which validate: each splitter maps items to two lists of positions, `(train, valid)`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .items import each, kind
from .portable import Portable
from .randomness import fresh_seed

__all__ = ["ColSplitter", "EndSplitter", "FileSplitter", "FuncSplitter", "GrandparentSplitter", "IndexSplitter",
           "KFoldSplitter", "MaskSplitter", "RandomSplitter", "RandomSubsetSplitter", "TrainTestSplitter"]  # fmt: skip

Split = tuple[list[int], list[int]]


def _by_mask(is_valid: Iterable[Any]) -> Split:
    mask = np.fromiter((bool(v) for v in is_valid), bool)
    return np.flatnonzero(~mask).tolist(), np.flatnonzero(mask).tolist()


def _booleans(values: Iterable[Any], where: str) -> list[bool]:
    """The values, checked: NaN or a text, which Python takes as true, is neither true nor false here."""
    plain = [v.item() if hasattr(v, "item") else v for v in values]
    wrong = [v for v in plain if not (isinstance(v, (bool, int, float)) and v in (0, 1))]
    if wrong:
        raise ValueError(f"{where} holds {wrong[0]!r}: it must hold True or False (or 1 or 0) for each item.")
    return [bool(v) for v in plain]


def _by_positions(n: int, valid: Iterable[int]) -> Split:
    mask = np.zeros(n, bool)
    mask[np.fromiter(valid, np.int64)] = True
    return _by_mask(mask)


def _shuffled(n: int, seed: int | None) -> np.ndarray:
    return np.random.default_rng(fresh_seed() if seed is None else seed).permutation(n)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} is a share of the items: it lies between 0 and 1.")


@dataclass(frozen=True)
class RandomSplitter(Portable):
    """A random share `valid_pct` (0–1) of the items validates; the same `seed` gives the same split."""

    valid_pct: float = 0.2
    seed: int | None = None

    def __post_init__(self):
        _check_share("valid_pct", self.valid_pct)

    def __call__(self, items: Sequence) -> Split:
        order = _shuffled(len(items), self.seed).tolist()
        cut = round(self.valid_pct * len(items))
        return order[cut:], order[:cut]


@dataclass(frozen=True)
class TrainTestSplitter(Portable):
    """As `RandomSplitter`, each label of `stratify` (one per item) keeping its share in both parts."""

    test_size: float = 0.2
    stratify: Sequence | None = None
    seed: int | None = None

    def __post_init__(self):
        _check_share("test_size", self.test_size)

    def __call__(self, items: Sequence) -> Split:
        labels = np.zeros(len(items)) if self.stratify is None else np.asarray(self.stratify)
        if len(labels) != len(items):
            raise ValueError(f"stratify has {len(labels)} labels for {len(items)} items: give one for each, in order.")
        order = _shuffled(len(items), self.seed)
        # Sorted by label (stably, so still shuffled inside one), every 1/test_size-th: shares differ by under one item.
        dealt = order[np.argsort(pd.factorize(labels)[0][order], kind="stable")]
        picked = np.diff(np.floor(np.arange(len(items) + 1) * self.test_size + 0.5)) > 0
        return _by_positions(len(items), dealt[picked])


@dataclass(frozen=True)
class GrandparentSplitter(Portable):
    """By the name of the folder two levels up: `data/train/ants/1.jpg` trains, `data/valid/ants/2.jpg` validates."""

    train_name: str = "train"
    valid_name: str = "valid"

    def __call__(self, items: Sequence[str | Path]) -> Split:
        names = [Path(item).parent.parent.name for item in items]
        train = [i for i, name in enumerate(names) if name == self.train_name]
        valid = [i for i, name in enumerate(names) if name == self.valid_name]
        if not train or not valid:
            raise ValueError(
                f"GrandparentSplitter found {len(train)} items under {self.train_name!r} and {len(valid)} under "
                f"{self.valid_name!r}; the folders two levels above the items are {sorted(set(names))[:10]}. Name "
                "them: train_name= and valid_name= (train= and valid= in from_folder)."
            )
        return train, valid


@dataclass(frozen=True)
class FuncSplitter(Portable):
    """`func(item)` is true for the items that validate."""

    func: Callable[[Any], bool]

    def __call__(self, items: Sequence) -> Split:
        return _by_mask(self.func(item) for item in each(items))


@dataclass(frozen=True)
class IndexSplitter(Portable):
    """The items at the positions `valid_idx` validate."""

    valid_idx: Sequence[int]

    def __call__(self, items: Sequence) -> Split:
        outside = [i for i in self.valid_idx if not -len(items) <= i < len(items)]
        if outside:
            raise IndexError(f"IndexSplitter: position {outside[0]} does not exist, there are {len(items)} items.")
        return _by_positions(len(items), self.valid_idx)


@dataclass(frozen=True)
class MaskSplitter(Portable):
    """`mask` is true at the positions that validate."""

    mask: Sequence[bool]

    def __call__(self, items: Sequence) -> Split:
        if len(self.mask) != len(items):
            raise ValueError(f"MaskSplitter: the mask has {len(self.mask)} values for {len(items)} items.")
        return _by_mask(_booleans(self.mask, "MaskSplitter's mask"))


@dataclass(frozen=True)
class ColSplitter(Portable):
    """The rows of a DataFrame whose column `col` (name or position) is true validate."""

    col: str | int = "is_valid"

    def __call__(self, items: pd.DataFrame) -> Split:
        if not isinstance(items, pd.DataFrame):
            raise TypeError(f"ColSplitter needs a DataFrame, got {kind(items)}: use FuncSplitter for other items.")
        names = list(items.columns)
        if self.col in names:
            values = items[self.col]
        elif isinstance(self.col, int) and -len(names) <= self.col < len(names):
            values = items.iloc[:, self.col]
        else:
            raise KeyError(f"ColSplitter: no column {self.col!r}; the columns are {names}.")
        return _by_mask(_booleans(values, f"ColSplitter's column {self.col!r}"))


@dataclass(frozen=True)
class FileSplitter(Portable):
    """The items whose file name (without folders) is listed in the text file `fname`, one a line, validate."""

    fname: str | Path

    def __call__(self, items: Sequence[str | Path]) -> Split:
        listed = {line.strip() for line in Path(self.fname).read_text(encoding="utf-8").splitlines()}
        return _by_mask(Path(item).name in listed for item in items)


def _amount(size: float, n: int) -> int:
    return int(size * n + 1e-9) if isinstance(size, float) and size <= 1 else int(size)


@dataclass(frozen=True)
class RandomSubsetSplitter(Portable):
    """Random `train_sz` items train and `valid_sz` others validate: counts, or shares as floats of at most 1."""

    train_sz: float
    valid_sz: float
    seed: int | None = None

    def __call__(self, items: Sequence) -> Split:
        n_train, n_valid = _amount(self.train_sz, len(items)), _amount(self.valid_sz, len(items))
        if n_train + n_valid > len(items):
            raise ValueError(f"RandomSubsetSplitter wants {n_train} + {n_valid} items, there are {len(items)}.")
        order = _shuffled(len(items), self.seed).tolist()
        return order[:n_train], order[n_train : n_train + n_valid]


@dataclass(frozen=True)
class EndSplitter(Portable):
    """The last share `valid_pct` of the items validates: for time series and other ordered items."""

    valid_pct: float = 0.2

    def __post_init__(self):
        _check_share("valid_pct", self.valid_pct)

    def __call__(self, items: Sequence) -> Split:
        cut = len(items) - round(self.valid_pct * len(items))
        return list(range(cut)), list(range(cut, len(items)))


@dataclass(frozen=True)
class KFoldSplitter(Portable):
    """Part `fold` of `n_splits` validates: train one learner per fold for cross-validation.

    Items are dealt to the folds like cards, in their order when `seed` is None, otherwise shuffled; the same seed keeps
    the folds of several splitters disjoint.
    """

    n_splits: int = 5
    fold: int = 0
    seed: int | None = None

    def __post_init__(self):
        if self.n_splits < 2:
            raise ValueError(f"n_splits={self.n_splits}: cross-validation needs at least 2 folds.")
        if not 0 <= self.fold < self.n_splits:
            raise ValueError(f"fold={self.fold}: with n_splits={self.n_splits} the folds are 0 to {self.n_splits - 1}.")

    def __call__(self, items: Sequence) -> Split:
        order = np.arange(len(items)) if self.seed is None else _shuffled(len(items), self.seed)
        return _by_positions(len(items), order[self.fold :: self.n_splits])
