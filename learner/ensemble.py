"""Several learners as one: the mean of what they say of the same items.

    ensemble = Ensemble([forwards, backwards])           # two readers of the same texts, say
    probs, targs = ensemble.get_preds()
    ensemble.predict("A film that nobody will forget.")

Howard & Ruder 2018, arXiv:1801.06146, section 3.3, average a classifier that reads forwards and one that reads
backwards. Networks of other sizes, or other seeds, do as well.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..callbacks.nested import map_tensors, tensors_in
from .inference import Prediction, as_predictions
from .losses import loss_activation

__all__ = ["Ensemble"]

SAME = "split the data of all at the same seed, by a column or a list, or pass items=, which all of them then predict."


class Ensemble:
    """Learners of the same labels, each with its own data and model, which answer with the mean of their activated
    outputs: probabilities, or numbers.

    Raises ValueError where there are fewer than two, or one knows other labels, or the same in another order.
    """

    def __init__(self, learners: Sequence[Any]):
        self.learners = list(learners)
        if len(self.learners) < 2:
            raise ValueError(f"An ensemble is of two learners or more, got {len(self.learners)}.")
        first, *others = map(_labels, self.learners)
        for number, labels in enumerate(others, 1):
            if labels != first:
                raise ValueError(
                    f"Learner {number} has the labels {_short(labels)}, learner 0 {_short(first)}: the mean would mix "
                    "them up. Give all of them the same vocabulary, CategoryBlock(vocab=…)."
                )

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(type(learn.model).__name__ for learn in self.learners)})"

    def get_preds(self, split: Literal["valid", "train"] = "valid", items: Any = None,
                  with_labels: bool = False) -> tuple[Any, Any]:  # fmt: skip
        """`(preds, targs)` on the CPU, in the order of the set, or of new raw `items`; targets are None without labels.

        Each learner reads a set of its own data. Raises ValueError where these are of other items, or in another order.
        """
        if items is not None:
            found = [learn.get_preds(dl=learn.data.test_dl(items, with_labels)) for learn in self.learners]
        else:
            self._check_same_items(split)
            found = [learn.get_preds(split) for learn in self.learners]
        preds, targs = zip(*found, strict=True)
        for number, others in enumerate(targs[1:], 1):
            if not all(map(torch.equal, tensors_in(targs[0]), tensors_in(others))):
                raise ValueError(f"Learner {number} has other targets than learner 0: {SAME}")
        return _mean(preds), targs[0]

    def predict(self, item: Any) -> Prediction:
        """`(decoded, index, probs)` of one raw item, as `Learner.predict` gives them.

        Raises ValueError for targets with places in an image, of which each learner may see another part.
        """
        parts = [learn.predict(item).probs for learn in self.learners]
        rows = [map_tensors(lambda t: t[None], part if isinstance(part, Tensor) else tuple(part)) for part in parts]
        return self._predictions(_mean(rows))[0]

    def batch_predict(self, items: Sequence[Any]) -> list[Prediction]:
        """`predict` for many raw items, in batches."""
        return self._predictions(self.get_preds(items=items)[0]) if len(items) else []

    def _predictions(self, probs: Any) -> list[Prediction]:
        first = self.learners[0]
        if moved := [type(block).__name__ for block in first.data.targets if block.is_spatial]:
            raise ValueError(f"{moved[0]}'s have places in an image, of which each learner may see another part.")
        act = loss_activation(first.loss_func)
        return as_predictions(first, map_tensors(lambda p: _outputs_of(p, act), probs), ())

    def _check_same_items(self, split: str) -> None:
        first, *others = (_items(learn, split) for learn in self.learners)
        for number, items in enumerate(others, 1):
            if not _same(first, items):
                raise ValueError(f"Learner {number} has other items in its {split} set than learner 0: {SAME}")


def _labels(learn: Any) -> list:
    """What the numbers of its targets mean."""
    return [getattr(block, "vocab", None) for block in learn.data.targets] or [learn.data.vocab]


def _items(learn: Any, split: str) -> Any:
    dataset = learn.data.train_ds if split == "train" else learn.data.valid_ds
    return getattr(dataset, "items", dataset)


def _same(a: Any, b: Any) -> bool:
    """Whether the items may be the same, in the same order: tables by their index, files and texts themselves."""
    if isinstance(a, (pd.DataFrame, pd.Series)) and isinstance(b, (pd.DataFrame, pd.Series)):
        return a.index.equals(b.index)
    if not (hasattr(a, "__len__") and hasattr(b, "__len__")):  # a stream, or no set at all
        return True
    if len(a) != len(b):
        return False
    if isinstance(a, (list, tuple, np.ndarray)) and isinstance(b, (list, tuple, np.ndarray)):
        return all(not isinstance(x, (str, PathLike)) or x == y for x, y in zip(a, b, strict=True))
    return True


def _mean(parts: Sequence[Any]) -> Any:
    """The mean of tensors of one shape, or of those in tuples. Raises ValueError where shapes differ."""
    if not isinstance(parts[0], Tensor):
        return tuple(_mean(column) for column in zip(*parts, strict=True))
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f"The learners' outputs differ in shape, {[tuple(p.shape) for p in parts]}: are their targets "
                         "of the same kind?")  # fmt: skip
    return torch.stack(list(parts)).mean(0)


def _outputs_of(probs: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """What a model would have had to return for its loss to read these values in it."""
    ways = (probs, probs.log(), probs.logit())
    return next((raw for raw in ways if torch.allclose(act(raw), probs, atol=1e-5)), probs)


def _short(labels: list) -> str:
    text = ", ".join(map(str, labels))
    return text if len(text) <= 80 else f"{text[:79]}…"
