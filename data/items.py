"""Items: what a source lists – paths, rows of a DataFrame, anything – by position, and in words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from torch.utils.data import Subset

__all__ = ["ItemError", "as_items", "each", "item_at", "kind", "short", "take"]


class ItemError(ValueError):
    """A step of the pipeline failed on an item, or a batch of them: the message names item, step and fix."""


def as_items(source: Any) -> Any:
    """`source` as something that has a length and positions.

    A list, DataFrame, Series or map-style dataset stays as it is, anything else that can be iterated becomes a list.
    Raises TypeError for what is one thing rather than several.
    """
    if isinstance(source, (str, bytes, Path)) or not (isinstance(source, Iterable) or hasattr(source, "__getitem__")):
        raise TypeError(
            f"{short(source)} ({kind(source)}) is not a list of items: give the DataBlock a get_items, such as "
            "get_items=get_image_files, or pass the list itself, as get_image_files(path) gives it."
        )
    return source if _has_positions(source) else list(source)


def _has_positions(source: Any) -> bool:
    return isinstance(source, Sized) and hasattr(source, "__getitem__") and not isinstance(source, Mapping)


def item_at(items: Any, position: int) -> Any:
    """One item, a row (Series) of a DataFrame."""
    return items.iloc[position] if isinstance(items, (pd.DataFrame, pd.Series)) else items[position]


def each(items: Any) -> Iterator[Any]:
    """The items one by one, the rows of a DataFrame."""
    return (item_at(items, position) for position in range(len(items)))


def take(items: Any, positions: Iterable[int]) -> Any:
    """Some of the items: a list of a list, rows of a DataFrame, a `Subset` of a dataset, which is not read yet."""
    positions = [int(p) for p in positions]
    if isinstance(items, (pd.DataFrame, pd.Series)):
        return items.iloc[positions]
    if isinstance(items, Sequence) or hasattr(items, "ndim"):  # an array or tensor is a list of its rows
        return [items[p] for p in positions]
    return Subset(items, positions)


def kind(value: Any) -> str:
    """What `value` is, in a word: its type, `Path` whatever the system."""
    return "Path" if isinstance(value, Path) else type(value).__name__


def short(value: Any, width: int = 90) -> str:
    """`value` in at most `width` characters, of a path its end, of a tensor its shape."""
    if isinstance(value, Tensor):
        return f"{type(value).__name__} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (pd.DataFrame, pd.Series)) and value.size > 20:
        return f"{type(value).__name__} {value.shape}"
    if isinstance(value, pd.Series):
        value = value.to_dict()
    text = " ".join(str(value).split())
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if isinstance(value, Path) or "/" in text[:2] else f"{text[: width - 1]}…"
