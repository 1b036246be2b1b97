"""A few hashes that tell whether a later run has the same data, without reading files: their names and sizes will do.

>>> fingerprint(data.train_ds)
{'kind': 'Dataset', 'items': 244, 'content': 'b94d27…', 'names': '5e88f4…', 'sizes': '9c1185…'}
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from .dataset import Dataset
from .getters import ColReader
from .portable import describe

__all__ = ["content_hash", "fingerprint"]

WHOLE = 2**23  # bytes of a tensor or array that are hashed; of a bigger one, evenly spaced rows
MANY = 100_000  # items of a list that are hashed, and files whose sizes are asked for; of more, evenly spaced ones
LISTS = (list, tuple, np.ndarray, Tensor, pd.DataFrame, pd.Series)


def fingerprint(dataset: Any) -> dict[str, Any]:
    """The `kind` of a dataset, its number of `items` (None: unknown) and SHA-256 hashes of what it has in memory.

    `content` is of items as they are listed. Files among them – paths, and texts that are absolute paths – count by
    their `names` relative to their common folder, and `sizes`. `labels` are there where a function of the user's own
    reads those that a block learns from. Of a dataset that is neither ours nor torch's, the lists, arrays and tensors
    count that it has as `samples`, `data` or `targets`. No item is read.
    """
    files: list[str] = []
    found = {"kind": type(dataset).__name__, "items": _length(dataset)}
    found["content"] = content_hash(_content(dataset), files)
    if isinstance(dataset, Dataset):
        files += _files_of_table(dataset)
        if labels := list(_own_labels(dataset)):
            found["labels"] = content_hash(labels)
    if files:
        cut = os.path.commonprefix(files).rfind(os.sep) + 1  # noqa: RUF071  # of the common folder
        found["names"] = content_hash([file[cut:].replace(os.sep, "/") for file in files])
        found["sizes"] = content_hash([_size(file) for file in _spaced(files)])
    return found


def content_hash(value: Any, files: list[str] | None = None) -> str:
    """The SHA-256, equal in all processes, of a value made of plain values, paths, tensors, arrays and tables.

    Of any other object its class counts. With `files`, the names of files among the values go there, and do not count.
    """
    digest = hashlib.sha256()
    _add(value, digest, files)
    return digest.hexdigest()


def _add(value: Any, digest: Any, files: list[str] | None) -> None:
    if files is not None and (isinstance(value, PurePath) or (isinstance(value, str) and os.path.isabs(value))):
        files.append(os.fspath(value))
        digest.update(b"a file\0")
    elif value is None or isinstance(value, (str, int, float, bytes, PurePath, range)):
        digest.update(f"{type(value).__name__} {value!r}\0".encode("utf-8", "surrogatepass"))
    elif isinstance(value, (Tensor, np.ndarray, np.generic)):
        _add_array(value, digest, files)
    elif isinstance(value, (list, tuple)):
        digest.update(f"{type(value).__name__} of {len(value)}\0".encode())
        for part in _spaced(value):
            _add(part, digest, files)
    elif isinstance(value, (pd.DataFrame, Mapping)):
        digest.update(b"by name\0")
        _add([*value.items()], digest, files)
    elif isinstance(value, pd.Series):
        _add(value.to_numpy(), digest, files)
    else:
        digest.update(f"{type(value).__qualname__}\0".encode())
        if is_dataclass(value):
            _add(getattr(value, "__dict__", None), digest, files)


def _add_array(array: Any, digest: Any, files: list[str] | None) -> None:
    if str(array.dtype) == "object":
        return _add(array.tolist(), digest, files)
    digest.update(f"{array.dtype} {tuple(array.shape)}\0".encode())
    if isinstance(array, Tensor) and array.layout == torch.strided and not array.is_quantized:
        array = _rows(array.detach()).cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    if not isinstance(array, Tensor):
        digest.update(_rows(array).tobytes())


def _rows(values: Any) -> Any:
    """A tensor or array, or where it is big as many evenly spaced rows as make up `WHOLE` bytes."""
    return values if values.nbytes <= WHOLE or values.ndim == 0 else values[:: -(-values.nbytes // WHOLE)]


def _spaced(values: Any) -> Any:
    """A list, or where it is long `MANY` evenly spaced ones of its values."""
    return values[:: max(1, -(-len(values) // MANY))]


def _size(file: str) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return os.stat(file).st_size
    except (OSError, ValueError):
        return -1


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
    if isinstance(dataset, LISTS):
        return dataset
    kept = [getattr(dataset, "__dict__", {}).get(name) for name in ("samples", "data", "targets")]  # as torchvision's
    return [value for value in kept if isinstance(value, LISTS)]


def _files_of_table(dataset: Dataset) -> Iterator[str]:
    """The files that a column of a table names, of the getters that say which folder they are in."""
    table = dataset.items
    for getter in dataset.getters if isinstance(table, pd.DataFrame) else ():
        if isinstance(getter, ColReader) and isinstance(getter.pref, PurePath) and isinstance(getter.cols, (str, int)):
            column = table[getter.cols] if getter.cols in table.columns else table.iloc[:, int(getter.cols)]
            yield from (os.path.join(getter.pref, f"{value}{getter.suff}") for value in column)


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
