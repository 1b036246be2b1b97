"""A few hashes that tell whether a later run has the same data, without reading files: their names and sizes will do.

>>> fingerprint(data.train_ds)
{'kind': 'Dataset', 'items': 244, 'content': 'b94d27…', 'names': '5e88f4…', 'sizes': '9c1185…'}
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.util import hash_pandas_object
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from .dataset import Dataset
from .getters import ColReader
from .portable import describe

__all__ = ["content_hash", "fingerprint"]

WHOLE = 2**23  # bytes of a tensor or array that are hashed; of a bigger one, evenly spaced rows
MANY = 100_000  # files whose sizes are asked for; of more, evenly spaced ones
KEPT_IN = ("samples", "data", "targets", "labels")  # attributes in which torchvision's datasets have their items
VALUES = (str, int, float, bytes, np.generic)
LISTS = (list, tuple, range, np.ndarray, Tensor, pd.DataFrame, pd.Series)


def fingerprint(dataset: Any) -> dict[str, Any]:
    """What a dataset, or a loader without one, consists of: `kind`, number of `items` and hashes (SHA-256, in hex).

    `content` is of the items as they are listed: texts, numbers, tables, tensors (of those above 8 MiB, evenly spaced
    rows). Of files there are the `names`, relative to their common folder, and the `sizes` (of 100,000 at most); that
    is of paths, of texts that are absolute paths, and of what a `ColReader` reads as paths from a table. `labels` are
    there if a function of the user's own reads them for a block that learns from them. Labels that it reads for other
    blocks are not looked at, nor is what datasets of other kinds keep, but for torch's and torchvision's usual places.
    No item is opened, and no loader is asked for a batch.
    """
    collected = _Content()
    found = {"kind": type(dataset).__name__, "items": _length(dataset)}
    collected.add(_content(dataset))
    if isinstance(dataset, Dataset):
        collected.files += _listed_files(dataset)
        if labels := [content_hash(values) for values in _own_labels(dataset)]:
            found["labels"] = labels[0] if len(labels) == 1 else content_hash(labels)
    return {**found, **collected.hashes()}


def content_hash(value: Any) -> str:
    """The SHA-256 of a value made of plain values, paths, tensors, arrays and tables; of other objects, of their class.

    It is equal in all processes.
    """
    collected = _Content()
    collected.add(value)
    return _sha256("\0".join([collected.hash.hexdigest(), *collected.files]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class _Content:
    """A hash of values that come one after another, and the files among them."""

    def __init__(self):
        self.hash = hashlib.sha256()
        self.files: list[str] = []  # among the values, which the hash does not have

    def hashes(self) -> dict[str, str]:
        if not self.files:
            return {"content": self.hash.hexdigest()}
        cut = os.path.commonprefix(self.files).rfind(os.sep) + 1  # noqa: RUF071  # of the common folder
        names = "\0".join(name[cut:] for name in self.files).replace(os.sep, "/")
        sizes = " ".join(str(_size(name)) for name in self.files[:: 1 + len(self.files) // MANY])
        return {"content": self.hash.hexdigest(), "names": _sha256(names), "sizes": _sha256(sizes)}

    def add(self, value: Any) -> None:
        if isinstance(value, Path) or (isinstance(value, str) and os.path.isabs(value)):
            self.files.append(os.fspath(value))
            self._note("a file")
        elif value is None or isinstance(value, VALUES):
            value = value.item() if isinstance(value, np.generic) else value
            self._note(f"{type(value).__name__} {value!r}")
        elif isinstance(value, Tensor):
            self._add_tensor(value)
        elif isinstance(value, np.ndarray):
            self._add_array(value)
        elif isinstance(value, (pd.DataFrame, pd.Series)):
            self._add_table(value)
        else:
            self._add_parts(value)

    def _add_parts(self, value: Any) -> None:
        if isinstance(value, Mapping):
            parts = [part for pair in value.items() for part in pair]
        elif isinstance(value, (set, frozenset)):
            parts = sorted(content_hash(part) for part in value)
        elif is_dataclass(value) and not isinstance(value, type):
            parts = [getattr(value, field.name) for field in fields(value)]
        else:
            parts = value if isinstance(value, (list, tuple, range)) else []
        self._note(f"{type(value).__name__} of {len(parts)}")
        if parts and all(isinstance(part, Path) for part in parts):  # as most often, so this is to be fast
            self.files += map(str, parts)
            self._note("files")
        else:
            for part in parts:
                self.add(part)

    def _add_tensor(self, tensor: Tensor) -> None:
        self._note(f"{tensor.dtype} {tuple(tensor.shape)}")
        if tensor.layout == torch.strided and not tensor.is_quantized:
            rows = _rows(tensor.detach(), tensor.numel() * tensor.element_size()).cpu().contiguous()
            self.hash.update(rows.reshape(-1).view(torch.uint8).numpy())

    def _add_array(self, array: np.ndarray) -> None:
        if array.dtype.hasobject:
            return self.add(array.tolist())
        self._note(f"{array.dtype} {array.shape}")
        self.hash.update(_rows(array, array.nbytes).tobytes())

    def _add_table(self, table: pd.DataFrame | pd.Series) -> None:
        columns = table.dtypes.items() if isinstance(table, pd.DataFrame) else [(table.name, table.dtype)]
        self._note(f"{type(table).__name__} {[(name, str(dtype)) for name, dtype in columns]} {len(table)}")
        try:
            self.hash.update(hash_pandas_object(table).to_numpy().tobytes())  # type: ignore[operator]
        except TypeError:  # it holds lists, or others that pandas cannot hash
            self.add(table.to_dict("list") if isinstance(table, pd.DataFrame) else table.tolist())

    def _note(self, text: str) -> None:
        self.hash.update(text.encode("utf-8", "surrogatepass") + b"\0")


def _rows(values: Any, n_bytes: int) -> Any:
    """A tensor or array, or where it is big as many evenly spaced rows as make up `WHOLE` bytes."""
    return values if n_bytes <= WHOLE or values.ndim == 0 else values[:: -(-n_bytes // WHOLE)]


def _size(name: str) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def _content(dataset: Any) -> Any:
    """What a dataset has in memory of its items."""
    if isinstance(dataset, Dataset):
        return _content(dataset.items)
    if isinstance(dataset, TensorDataset):
        return dataset.tensors
    if isinstance(dataset, Subset):
        return [_content(dataset.dataset), np.asarray(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        return [_content(part) for part in dataset.datasets]
    if isinstance(dataset, LISTS):
        return dataset
    kept = {name: getattr(dataset, "__dict__", {}).get(name) for name in KEPT_IN}
    return {name: value for name, value in kept.items() if isinstance(value, LISTS)}


def _listed_files(dataset: Dataset) -> Iterator[str]:
    """The files that a table names, of the getters that say which folder they are in."""
    table = dataset.items
    if not isinstance(table, pd.DataFrame):
        return
    for getter in dataset.getters:
        if isinstance(getter, ColReader) and isinstance(getter.pref, Path):
            for column in [getter.cols] if isinstance(getter.cols, (str, int)) else getter.cols:
                values = table[column] if column in table.columns else table.iloc[:, int(column)]
                yield from (os.path.join(getter.pref, f"{value}{getter.suff}") for value in values)


def _own_labels(dataset: Dataset) -> Iterator[list]:
    """The labels that functions of the user's own read, of the blocks for which all have been read before."""
    for which in range(dataset.n_inp, len(dataset.blocks)):
        if dataset.blocks[which].learns and _is_own(dataset.getters[which]):
            yield dataset.values(which)


def _is_own(getter: Callable | None) -> bool:
    """Whether a getter is, or calls, a function of the user's own, which may read labels from anywhere."""
    own: dict[str, Any] = {}
    try:
        describe(getter, own)
    except ValueError:  # it has no description
        return True
    return bool(own)
