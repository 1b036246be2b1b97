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

from .portable import Portable
from .transforms import Transform

__all__ = ["Block", "CategoryBlock", "MultiCategoryBlock", "RegressionBlock"]

NA = "#na#"


@dataclass
class Block(Portable):
    """A value that `torch.as_tensor` understands; the base of every block."""

    loss: ClassVar[str | Callable | None] = None  # the loss for a target of this kind: its name in learner.losses, or a callable
    is_picture: ClassVar[bool] = False  # drawn on axes, rather than written into a table
    is_spatial: ClassVar[bool] = False  # its positions must move with those of the sample's other spatial values
    learns: ClassVar[bool] = False  # `setup` reads the training values
    item_tfms: ClassVar[Sequence[Transform]] = ()  # what every item of this kind needs
    batch_tfms: ClassVar[Sequence[Transform]] = ()  # what every batch of this kind needs

    def setup(self, values: Iterable[Any]) -> "Block":
        """A copy that has learned what it needs from the raw training `values` (only read where `learns`)."""
        return self

    def for_min_side(self, min_side: int) -> "Block":
        """A copy for pictures of which the first transform needs no more than `min_side` pixels on the shorter side."""
        return self

    @property
    def n_out(self) -> int | None:
        """How many outputs a model needs to predict this value; None where the block cannot know."""
        return None

    def encode(self, value: Any) -> Tensor:
        """The raw value (what `get_x` or `get_y` returned) as a tensor."""
        return torch.as_tensor(value)

    def collate(self, values: Sequence[Tensor]) -> Tensor:
        """The encoded values of a batch as one tensor `(bs, …)`. Raises RuntimeError where shapes differ."""
        return torch.stack([v.as_subclass(Tensor) for v in values])

    def wrap(self, batch: Tensor) -> Tensor:
        """The batch typed (as a `torchvision.tv_tensors` class, say) for the batch transforms."""
        return batch

    def decode(self, encoded: Tensor) -> Any:
        """An encoded (or predicted and decoded by the loss) value as a person knows it."""
        return encoded

    def text(self, value: Any) -> str:
        """A decoded value in words."""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    def draw(self, value: Any, ax: Any) -> None:
        """Draw a decoded value on matplotlib axes: a label becomes the title."""
        ax.set_title(self.text(value), fontsize=10)

    def draw_result(self, target: Any, pred: Any, ax: Any) -> None:
        """Draw target and prediction: two lines of title, green where they agree."""
        target, pred = self.text(target), self.text(pred)
        ax.set_title(f"{target}\n{pred}", fontsize=10, color="green" if target == pred else "red")


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _vocabulary(values: Iterable[Any], sort: bool) -> list:
    """Distinct values as plain Python objects, sorted where they can be compared (by their text otherwise) or as they come."""
    distinct = list(dict.fromkeys(v.item() if isinstance(v, np.generic) else v for v in values))
    if not sort:
        return distinct
    return sorted(distinct, key=str) if len({isinstance(v, str) for v in distinct}) > 1 else sorted(distinct)


def _index_of(vocab: Sequence, add_na: bool) -> dict:
    names = [NA, *vocab] if add_na and (not vocab or vocab[0] != NA) else vocab
    return {name: i for i, name in enumerate(names)}


def _unknown(value: Any, known: Iterable) -> ValueError:
    names = list(known)
    shown = ", ".join(map(repr, names[:10])) + (f", … ({len(names)} in all)" if len(names) > 10 else "")
    return ValueError(
        f"the label {value!r} is not in the vocabulary ({shown}), which comes from the training items. Move an item with this label "
        "into the training set, or give the block the whole vocabulary: vocab=[…]."
    )


@dataclass
class CategoryBlock(Block):
    """One label out of a vocabulary, encoded as its index (0-d int64).

    `vocab` is learned from the training items where it is not given, sorted unless `sort=False`; with `add_na` index 0
    is '#na#', which stands for missing labels.
    """

    vocab: list | None = None
    sort: bool = True
    add_na: bool = False

    loss: ClassVar = "CrossEntropyLoss"
    learns: ClassVar[bool] = True

    def setup(self, values: Iterable[Any]) -> "CategoryBlock":
        labels = self.vocab if self.vocab is not None else _vocabulary((v for v in values if not _is_missing(v)), self.sort)
        return replace(self, vocab=list(_index_of(list(labels), self.add_na)))

    @cached_property
    def _index(self) -> dict:
        return _index_of(self.vocab or [], self.add_na)

    @property
    def n_out(self) -> int | None:
        return None if self.vocab is None else len(self._index)

    def encode(self, value: Any) -> Tensor:
        if self.add_na and _is_missing(value):
            value = NA
        try:
            return torch.tensor(self._index[value])
        except (KeyError, TypeError):
            raise _unknown(value, self._index) from None

    def decode(self, encoded: Tensor) -> Any:
        return list(self._index)[int(encoded)]


@dataclass
class MultiCategoryBlock(Block):
    """Any number of labels out of a vocabulary, encoded as 0s and 1s (float32, one per label).

    The raw value is a list of labels, or – with `encoded=True` – the 0s and 1s themselves (several columns, say), for
    which `vocab` gives the names.
    """

    encoded: bool = False
    vocab: list | None = None
    add_na: bool = False

    loss: ClassVar = "BCEWithLogitsLoss"
    learns: ClassVar[bool] = True

    def setup(self, values: Iterable[Any]) -> "MultiCategoryBlock":
        if self.encoded:
            vocab = self.vocab if self.vocab is not None else list(range(len(next(iter(values)))))
            return replace(self, vocab=list(vocab))
        labels = self.vocab if self.vocab is not None else _vocabulary((o for v in values for o in self._labels(v)), sort=True)
        return replace(self, vocab=list(_index_of(list(labels), self.add_na)))

    @cached_property
    def _index(self) -> dict:
        return _index_of(self.vocab or [], self.add_na)

    @property
    def n_out(self) -> int | None:
        return None if self.vocab is None else len(self._index)

    def _labels(self, value: Any) -> Iterable:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise TypeError(f"MultiCategoryBlock needs a list of labels for each item, got {value!r}: split it in get_y, or use label_delim.")
        return value

    def encode(self, value: Any) -> Tensor:
        if self.encoded:
            return torch.as_tensor(np.asarray(value, np.float32))
        hot = torch.zeros(len(self._index))
        for label in self._labels(value):
            if label not in self._index and not self.add_na:
                raise _unknown(label, self._index)
            hot[self._index.get(label, 0)] = 1.0
        return hot

    def decode(self, encoded: Tensor) -> list:
        return [name for name, on in zip(self._index, encoded.tolist(), strict=True) if on > 0.5]

    def text(self, value: Sequence) -> str:
        return ";".join(map(str, value))


@dataclass
class RegressionBlock(Block):
    """One number (0-d float32) or `n_out` of them; `n_out` is read off the first training item where it is not given."""

    n_out: int | None = None  # type: ignore[assignment]

    loss: ClassVar = "MSELoss"
    learns: ClassVar[bool] = True

    def setup(self, values: Iterable[Any]) -> "RegressionBlock":
        if self.n_out is not None:
            return self
        first = np.asarray(next(iter(values), 0.0))
        return replace(self, n_out=first.size)

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
        return f"{value:.4g}" if isinstance(value, float) else ", ".join(f"{v:.4g}" for v in value)  # type: ignore[union-attr]
