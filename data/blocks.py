"""Blocks: what one kind of value is – how it is encoded to a tensor, collated, decoded and shown.

A `DataBlock` has one block for each value of a sample. `show_batch`, `show_results` and `predict` only walk the blocks.
To write your own, derive a dataclass from `Block` and override what differs:

    @dataclass
    class AudioBlock(Block):
        rate: int = 16_000
        def encode(self, value): return torchaudio.load(value)[0]
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import default_collate

from .items import short
from .portable import Portable
from .transforms import Transform

__all__ = ["Block", "CategoryBlock", "MultiCategoryBlock", "RegressionBlock"]

NA = "#na#"


@dataclass
class Block(Portable):
    """A value that `torch.as_tensor` understands; the base of every block."""

    loss: ClassVar[str | Callable | None] = None  # for a target of this kind: its name in learner.losses, or a callable
    is_picture: ClassVar[bool] = False  # drawn on axes, rather than written into a table
    is_spatial: ClassVar[bool] = False  # its positions must move with those of the sample's other spatial values
    is_sequence: ClassVar[bool] = False  # values differ in length: items of about the same make a batch
    reads_item: ClassVar[bool] = True  # False: the value is made, whatever the item, as noise is
    learns: ClassVar[bool] = False  # `setup` reads the training values, and every value is tried before training
    item_tfms: ClassVar[Sequence[Transform]] = ()  # what every item of this kind needs
    batch_tfms: ClassVar[Sequence[Transform]] = ()  # what every batch of this kind needs

    def read_ahead(self, values: Sequence[Any], n_workers: int | None = None) -> "Block":
        """A copy that has done the slow part of `encode` for the raw `values` of all items (where it `learns`).

        `n_workers` processes share the work; None leaves their number to the block. `encode` reports bad values.
        """
        return self

    def setup(self, values: Sequence[Any]) -> "Block":
        """A copy that has learned what it needs from the raw training `values` (only read where `learns`)."""
        return self

    def own_loader(self, dataset: Any, bs: int, device: torch.device, batch_tfms: Sequence[Transform], training: bool,
                   shuffle: bool) -> Any:  # fmt: skip
        """A `DeviceLoader` of a `Dataset` whose first block this is, if its batches are no lists of items.

        So are the windows of a language model. None: items make batches, as usual.
        """
        return None

    def for_min_side(self, min_side: int) -> "Block":
        """A copy for pictures of which the first transform needs no more than `min_side` pixels on the shorter side."""
        return self

    @property
    def n_out(self) -> int | None:
        """How many outputs a model needs to predict this value; None where the block cannot know."""
        return None

    def is_missing(self, value: Any) -> bool:
        """Whether there is no raw value (None, NaN) and the block has no place for that: an error."""
        return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))

    def encode(self, value: Any) -> Tensor:
        """The raw value (what `get_x` or `get_y` returned) as a tensor; numbers in double precision become float32."""
        tensor = torch.as_tensor(value)
        return tensor.float() if tensor.dtype == torch.float64 else tensor

    def collate(self, values: Sequence[Tensor]) -> Tensor:
        """The encoded values of a batch as one tensor `(bs, …)`. Raises RuntimeError where shapes differ."""
        return default_collate([v.as_subclass(Tensor) for v in values])

    def wrap(self, batch: Tensor) -> Tensor:
        """The batch typed (as a `torchvision.tv_tensors` class, say) for the batch transforms."""
        return batch

    def decode(self, encoded: Tensor) -> Any:
        """An encoded (or predicted and decoded by the loss) value as a person knows it."""
        return encoded

    def text(self, value: Any) -> str:
        """A decoded value in words."""
        if isinstance(value, Tensor):
            return short(value) if value.numel() > 8 else ", ".join(f"{v:.4g}" for v in value.flatten().tolist())
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    def draw(self, value: Any, ax: Any) -> None:
        """Draw a decoded value on matplotlib axes: a label becomes the title."""
        ax.set_title(self.text(value), fontsize=10)

    def draw_result(self, target: Any, pred: Any, ax: Any) -> None:
        """Draw target and prediction: two lines of title, green where they agree."""
        target, pred = self.text(target), self.text(pred)
        ax.set_title(f"{target}\n{pred}", fontsize=10, color="green" if target == pred else "red")


def _plain(label: Any) -> Any:
    """A label as a Python object: numpy's and torch's scalars hash and print differently."""
    return label.item() if isinstance(label, (np.generic, Tensor)) and label.ndim == 0 else label


def _complete(vocab: Iterable[Any], add_na: bool) -> list:
    """The distinct labels of a vocabulary in their order, '#na#' first where it is asked for."""
    return list(dict.fromkeys([*([NA] if add_na else []), *map(_plain, vocab)]))


def _learned(labels: Iterable[Any], sort: bool) -> list:
    """The distinct labels, sorted (by their text where they do not compare) or as they come."""
    distinct = list(dict.fromkeys(map(_plain, labels)))
    if not sort:
        return distinct
    try:
        return sorted(distinct)
    except TypeError:
        return sorted(distinct, key=str)


def _unknown(label: Any, vocab: Sequence[Any]) -> ValueError:
    shown = ", ".join(map(repr, vocab[:10])) + (f", … ({len(vocab)} in all)" if len(vocab) > 10 else "")
    return ValueError(
        f"the label {label!r} is not in the vocabulary ({shown}). Move an item with this label into the training set, "
        "from which the vocabulary is learned, or give the block all labels: vocab=[…]."
    )


class _LabelBlock(Block):
    """What blocks of labels share: a vocabulary, which may have a place for missing ones."""

    vocab: list | None
    add_na: bool

    learns: ClassVar[bool] = True

    def __post_init__(self):
        if self.vocab is not None:
            self.vocab = _complete(self.vocab, self.add_na)

    @cached_property
    def _index(self) -> dict:
        return {label: i for i, label in enumerate(self.vocab or [])}

    @property
    def n_out(self) -> int | None:
        return None if self.vocab is None else len(self.vocab)

    def is_missing(self, value: Any) -> bool:
        return not self.add_na and super().is_missing(value)


@dataclass
class CategoryBlock(_LabelBlock):
    """One label out of a vocabulary, encoded as its index (0-d int64).

    `vocab` is learned from the training items where it is not given, sorted unless `sort=False`; with `add_na` index 0
    is '#na#', which stands for missing labels.
    """

    vocab: list | None = None
    sort: bool = True
    add_na: bool = False

    loss: ClassVar = "CrossEntropyLoss"

    def setup(self, values: Sequence[Any]) -> "CategoryBlock":
        if self.vocab is not None:
            return self
        labels = [_one_label(value) for value in values if not Block.is_missing(self, value)]
        return replace(self, vocab=_learned(labels, self.sort))

    def encode(self, value: Any) -> Tensor:
        label = NA if self.add_na and Block.is_missing(self, value) else _one_label(value)
        if label not in self._index:
            raise _unknown(label, self.vocab or [])
        return torch.tensor(self._index[label])

    def decode(self, encoded: Tensor) -> Any:
        """The label of that number; the number itself where a model has more outputs than there are labels."""
        index, vocab = int(encoded), self.vocab or []
        return vocab[index] if index < len(vocab) else index


def _one_label(value: Any) -> Any:
    label = _plain(value)
    try:
        hash(label)
    except TypeError:
        raise TypeError(
            f"CategoryBlock takes one label for each item, got {value!r}: MultiCategoryBlock takes several."
        ) from None
    return label


@dataclass
class MultiCategoryBlock(_LabelBlock):
    """Any number of labels out of a vocabulary, encoded as 0s and 1s (float32, one per label).

    The raw value is a list of labels, or – with `encoded=True` – the 0s and 1s themselves (several columns, say), for
    which `vocab` gives the names. With `add_na`, '#na#' stands for missing and unknown labels.
    """

    encoded: bool = False
    vocab: list | None = None
    add_na: bool = False

    loss: ClassVar = "BCEWithLogitsLoss"

    def setup(self, values: Sequence[Any]) -> "MultiCategoryBlock":
        if self.vocab is not None:
            return self
        if self.encoded:
            return replace(self, vocab=list(range(len(values[0]))))
        return replace(self, vocab=_learned((label for value in values for label in self._labels(value)), sort=True))

    def _labels(self, value: Any) -> list:
        """The labels of one item; those that are missing (an empty cell, say) are left out."""
        if self.add_na and Block.is_missing(self, value):
            return [NA]
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise TypeError(
                f"MultiCategoryBlock needs a list of labels for each item, got {value!r}: split it in get_y, or with "
                "ColReader(label_delim=…)."
            )
        return [_plain(label) for label in value if not Block.is_missing(self, label)]

    def encode(self, value: Any) -> Tensor:
        return self._encode_numbers(value) if self.encoded else self._encode_labels(value)

    def _encode_numbers(self, value: Any) -> Tensor:
        hot = torch.as_tensor(np.asarray(value, np.float32))
        if hot.shape != (len(self._index),):
            raise ValueError(f"{len(self._index)} numbers, 0 or 1, are expected: one for each label; got {value!r}")
        return hot

    def _encode_labels(self, value: Any) -> Tensor:
        hot = torch.zeros(len(self._index))
        for label in self._labels(value):
            if label not in self._index and not self.add_na:
                raise _unknown(label, self.vocab or [])
            hot[self._index.get(label, 0)] = 1.0
        return hot

    def decode(self, encoded: Tensor) -> list:
        return [label for label, on in zip(self.vocab or [], encoded.tolist(), strict=True) if on > 0.5]

    def text(self, value: Sequence) -> str:
        return ";".join(map(str, value))


@dataclass
class RegressionBlock(Block):
    """One number (0-d float32) or `n_out` of them, which is read off the first training item where it is not given."""

    n_out: int | None = None  # type: ignore[assignment]  # a field here, a property of the other blocks

    loss: ClassVar = "MSELoss"
    learns: ClassVar[bool] = True

    def setup(self, values: Sequence[Any]) -> "RegressionBlock":
        return self if self.n_out is not None or not len(values) else replace(self, n_out=np.asarray(values[0]).size)

    def is_missing(self, value: Any) -> bool:
        return super().is_missing(value) or bool(np.any(pd.isna(value)))

    def encode(self, value: Any) -> Tensor:
        try:
            number = torch.as_tensor(np.asarray(value, np.float32))
        except (TypeError, ValueError):
            raise TypeError(f"RegressionBlock needs a number or a list of numbers, got {value!r}") from None
        if self.n_out is not None and number.numel() != self.n_out:
            raise ValueError(f"RegressionBlock(n_out={self.n_out}) got {number.numel()} numbers: {value!r}")
        return number

    def decode(self, encoded: Tensor) -> float | list[float]:
        return encoded.item() if encoded.numel() == 1 else encoded.tolist()

    def text(self, value: float | Sequence[float]) -> str:
        return ", ".join(f"{v:.4g}" for v in (value if isinstance(value, Sequence) else [value]))
