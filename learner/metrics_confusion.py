"""Metrics of how often each class is true, predicted, and rightly so: sums of counts, exact in any batches.

Each equals scikit-learn's function of the same meaning on all samples at once.

    F1Score()                    # two classes: of class 1; more: the mean over classes
    F1Score(multi=True)          # several labels per item: the mean over labels
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from .loss_checks import check_same_count
from .metrics import StatefulMetric, predicted_classes
from .tensors import double_precision, full_precision, rows

__all__ = ["BalancedAccuracy", "CohenKappa", "F1Score", "FBeta", "Jaccard", "MatthewsCorrCoef", "Precision", "Recall"]

Average = Literal["binary", "macro", "micro", "weighted"]


def class_counts(pred: Tensor, targ: Tensor, axis: int, ignore_index: int | None = None) -> Tensor:
    """Integer counts `(3, c + 1)`: how often a class was rightly predicted, predicted, true; last, no class at all.

    Where a target equals `ignore_index`, neither it nor the prediction counts.
    """
    n = pred.shape[axis]
    guess, targ = predicted_classes(pred, targ, axis)
    true, kept = _known_or_last(targ, n), is_kept(targ, ignore_index)
    return torch.stack([_count(x, n + 1, kept) for x in (true.where(true == guess, n), guess, true)])


def is_kept(targ: Tensor, ignore_index: int | None) -> Tensor:
    """A bool mask: which targets count."""
    return torch.ones_like(targ, dtype=torch.bool) if ignore_index is None else targ != ignore_index


def confusion_counts(pred: Tensor, targ: Tensor, axis: int) -> Tensor:
    """Counts `(c + 1, c)`, integer: a row for each true class, last for no class at all; a column for each guess."""
    n = pred.shape[axis]
    guess, targ = predicted_classes(pred, targ, axis)
    cell = _known_or_last(targ, n) * n + guess
    return _count(cell, (n + 1) * n, torch.ones_like(cell)).view(n + 1, n)


def _known_or_last(targ: Tensor, n: int) -> Tensor:
    return targ.long().where((targ >= 0) & (targ < n), n)


def _count(x: Tensor, length: int, kept: Tensor) -> Tensor:
    """How often each of 0…length − 1 occurs in `x`, where `kept`; bincount would wait for the device."""
    return torch.zeros(length, dtype=torch.long, device=x.device).index_add_(0, x, kept.long())


def _check_all_known(n_unknown: Tensor, n: int) -> None:
    if n_unknown:
        raise ValueError(f"{int(n_unknown)} targets are not in 0…{n - 1}, the classes of a model with {n} outputs. "
                         "Leave out what is to be ignored, or give the model an output for each class.")  # fmt: skip


def label_counts(pred: Tensor, targ: Tensor, axis: int, thresh: float, sigmoid: bool) -> Tensor:
    """Counts `(3, c)` for each label along `axis`, integer: rightly predicted, predicted, true."""
    check_same_count(pred, targ, "With multi=True a target of 0 or 1 for each output is needed.")
    pred, targ = rows(full_precision(pred), axis), rows(targ.reshape(pred.shape), axis)
    said, true = (pred.sigmoid() if sigmoid else pred) > thresh, targ > 0.5
    return torch.stack([(said & true).sum(0), said.sum(0), true.sum(0)])


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0."""
    return torch.where(b == 0, 0.0, a / b)


@dataclass(eq=False)
class _ClassScore(StatefulMetric):
    """What precision, recall and F-beta share: a score for each class, averaged; `Precision` explains the fields."""

    average: Average | None = field(default=None, kw_only=True)
    pos_label: int = field(default=1, kw_only=True)
    axis: int = field(default=-1, kw_only=True)
    multi: bool = field(default=False, kw_only=True)
    thresh: float = field(default=0.5, kw_only=True)
    sigmoid: bool = field(default=True, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if self.average not in (None, *get_args(Average)):
            raise ValueError(f"average must be None or one of {get_args(Average)}, found {self.average!r}.")
        if self.pos_label not in (0, 1) or (self.average == "binary" and self.multi):
            raise ValueError("average='binary' scores one class of two: pos_label must be 0 or 1, and multi False.")

    @abstractmethod
    def class_score(self, right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        """The score of each class, from how often it was rightly predicted, predicted, and true; all `(c,)` float."""

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        if self.multi:
            return label_counts(pred, targ, self.axis, self.thresh, self.sigmoid)
        if self.average == "binary" and pred.shape[self.axis] != 2:
            raise ValueError(f"average='binary' is for two classes, but the model has {pred.shape[self.axis]} outputs: "
                             "choose 'macro', 'micro' or 'weighted'.")  # fmt: skip
        return class_counts(pred, targ, self.axis)

    def score(self, state: Tensor) -> Tensor:
        counts = double_precision(state) if self.multi else of_known(state)
        weights = torch.ones_like(counts[0]) if self.multi else (counts[1] + counts[2] > 0).to(counts.dtype)
        match self.average or ("binary" if counts.shape[1] == 2 and not self.multi else "macro"):
            case "binary":
                return self.class_score(*counts[:, self.pos_label])
            case "micro":
                return self.class_score(*counts.sum(1))
            case "weighted":
                weights = counts[2]
        return divide((self.class_score(*counts) * weights).sum(), weights.sum())


def of_known(counts: Tensor) -> Tensor:
    """`class_counts` as floats `(3, c)`; ValueError if a target was of no class."""
    _check_all_known(counts[2, -1], counts.shape[1] - 1)
    return double_precision(counts[:, :-1])


@dataclass(eq=False)
class Precision(_ClassScore):
    """Share of a class's predictions that are right.

    `average` has scikit-learn's meaning: "binary" is the score of class `pos_label` of two, "macro" the mean over the
    classes that occur in targets or predictions, "weighted" the same weighted by how often a class is true, "micro" the
    score of all counts together. None stands for "binary" with two classes and "macro" otherwise. A class that is never
    predicted, or never true, scores 0 where its score would be 0 / 0.

    `pred` has a class `axis`, integer `targ` has not. With `multi`, both have a label `axis`, an output means yes where
    it is above `thresh` (after a sigmoid, unless `sigmoid=False`), and "macro" is over all labels.
    """

    def class_score(self, right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        return divide(right, predicted)


@dataclass(eq=False)
class Recall(_ClassScore):
    """Share of a class's samples that are found; for the parameters see `Precision`."""

    def class_score(self, right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        return divide(right, true)


@dataclass(eq=False)
class FBeta(_ClassScore):
    """Harmonic mean of precision and recall, where recall counts `beta` times as much; the rest as in `Precision`."""

    beta: float

    def class_score(self, right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        return divide((1 + self.beta**2) * right, predicted + self.beta**2 * true)


@dataclass(eq=False)
class F1Score(_ClassScore):
    """Harmonic mean of precision and recall; for the parameters see `Precision`."""

    def class_score(self, right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        return divide(2 * right, predicted + true)


@dataclass(eq=False)
class Jaccard(_ClassScore):
    """Targets and predictions of a class that agree, of all that are either; for the parameters see `Precision`."""

    def class_score(self, right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        return divide(right, predicted + true - right)


@dataclass(eq=False)
class BalancedAccuracy(StatefulMetric):
    """Mean recall of the classes that occur in the targets (Brodersen et al. 2010); `pred` has a class `axis`."""

    axis: int = -1

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        return class_counts(pred, targ, self.axis)

    def score(self, state: Tensor) -> Tensor:
        right, _, true = of_known(state)
        return divide(divide(right, true).sum(), (true > 0).sum())


@dataclass(eq=False)
class CohenKappa(StatefulMetric):
    """Agreement beyond what chance gives (Cohen 1960): 1 is perfect, 0 is chance, nan if there is but one class in all.

    `weights` makes a confusion count by how far apart the classes' numbers are: "linear" or "quadratic". scikit-learn
    counts only classes that occur when it measures this distance, unless `labels` names them all.
    """

    axis: int = -1
    weights: Literal["linear", "quadratic"] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.weights not in (None, "linear", "quadratic"):
            raise ValueError(f"weights must be None, 'linear' or 'quadratic', found {self.weights!r}.")

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        return confusion_counts(pred, targ, self.axis)

    def score(self, state: Tensor) -> Tensor:
        _check_all_known(state[-1].sum(), state.shape[1])
        matrix = double_precision(state[:-1])
        by_chance = matrix.sum(1).outer(matrix.sum(0)) / matrix.sum()
        number = torch.arange(len(matrix), device=matrix.device)
        apart = (number[:, None] - number).abs()
        cost = {None: (apart > 0).long(), "linear": apart, "quadratic": apart**2}[self.weights]
        return 1 - (cost * matrix).sum() / (cost * by_chance).sum()


@dataclass(eq=False)
class MatthewsCorrCoef(StatefulMetric):
    """Correlation of true and predicted classes for two or more classes (Gorodkin 2004): 1 is perfect, 0 is chance.

    0 if all targets, or all predictions, are of one class, as in scikit-learn.
    """

    axis: int = -1

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        return class_counts(pred, targ, self.axis)

    def score(self, state: Tensor) -> Tensor:
        right, predicted, true = of_known(state)
        n = true.sum()
        covariance = right.sum() * n - predicted @ true
        return divide(covariance, ((n**2 - predicted @ predicted) * (n**2 - true @ true)).sqrt())
