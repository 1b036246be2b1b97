"""Metrics that need all predictions at once, as rankings do: kept batch by batch, scored at the end.

`sklearn_metric` makes any function of scikit-learn's kind one of them:

    from sklearn.metrics import log_loss, top_k_accuracy_score
    sklearn_metric(log_loss, activation=partial(torch.softmax, dim=-1))
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .loss_checks import check_same_count
from .metrics import StatefulMetric, metric_name, predicted_classes
from .metrics_running import Moments, as_columns
from .tensors import double_precision, full_precision, rows

__all__ = ["APScore", "APScoreBinary", "RocAuc", "RocAucBinary", "SpearmanCorrCoef", "sklearn_metric"]


@dataclass(eq=False)
class CollectingMetric(StatefulMetric):
    """Keeps what `collect` returns for each batch, on its device, and scores the concatenation."""

    @abstractmethod
    def collect(self, pred: Tensor, targ: Tensor) -> tuple[Tensor, Tensor]:
        """What to keep of a batch: a row of predictions and one of targets for each sample."""

    @abstractmethod
    def score_all(self, pred: Tensor, targ: Tensor) -> Any:
        """The value, from all rows."""

    def measure(self, pred: Tensor, targ: Tensor) -> list[tuple[Tensor, Tensor]]:
        pred, targ = self.collect(pred.detach(), targ.detach())
        return [(pred.clone(), targ.clone())]  # the next batch may be written over this one's memory (CUDA graphs)

    def score(self, state: list[tuple[Tensor, Tensor]]) -> Tensor:
        preds, targs = zip(*state, strict=True)
        return torch.as_tensor(self.score_all(torch.cat(preds), torch.cat(targs)))


@dataclass(eq=False)
class RocAuc(CollectingMetric):
    """Area under the ROC curve of each class against the rest, by softmax probability; the mean over classes.

    `pred` has a class `axis`, integer `targ` has not. With `multi` both have a label `axis`, and `targ` holds 0 and 1.
    Classes that no target has, or all, have no curve and are left out (scikit-learn refuses them); nan if none remains.
    """

    axis: int = -1
    multi: bool = False

    def collect(self, pred: Tensor, targ: Tensor) -> tuple[Tensor, Tensor]:
        if self.multi:
            check_same_count(pred, targ, "With multi=True a target of 0 or 1 for each output is needed.")
            return rows(pred, self.axis), rows(targ.reshape(pred.shape), self.axis)
        return rows(pred, self.axis), predicted_classes(pred, targ, self.axis)[1]

    def score_all(self, pred: Tensor, targ: Tensor) -> Tensor:
        scores, positive = self.each_against_the_rest(pred, targ)
        areas = area_under_roc(scores.T, positive.T)
        return areas[~areas.isnan()].mean()

    def each_against_the_rest(self, pred: Tensor, targ: Tensor) -> tuple[Tensor, Tensor]:
        """What ranks the samples for each class `(n, c)`, and which of them are of the class."""
        if self.multi:
            return double_precision(pred), targ > 0.5
        positive = targ[:, None] == torch.arange(pred.shape[-1], device=pred.device)
        _check_all_known(positive.any(1), f"0…{pred.shape[-1] - 1}")
        return double_precision(pred).softmax(-1), positive


@dataclass(eq=False)
class APScore(RocAuc):
    """Average precision of each class against the rest, the mean over classes; parameters and shapes as in `RocAuc`.

    Classes that no target has are left out; with `multi` they score 0, as in scikit-learn.
    """

    def score_all(self, pred: Tensor, targ: Tensor) -> Tensor:
        scores, positive = self.each_against_the_rest(pred, targ)
        columns = zip(scores.T, positive.T, positive.any(0) | self.multi, strict=True)
        return torch.stack([average_precision(score, true) for score, true, counts in columns if counts]).mean()


@dataclass(eq=False)
class RocAucBinary(CollectingMetric):
    """Area under the ROC curve of class 1; `pred` has two outputs on `axis`, or one for each target of 0 or 1.

    nan if all targets are of one class.
    """

    axis: int = -1

    def collect(self, pred: Tensor, targ: Tensor) -> tuple[Tensor, Tensor]:
        return _log_odds(pred, targ, self.axis)

    def score_all(self, pred: Tensor, targ: Tensor) -> Tensor:
        _check_all_known((targ == 0) | (targ == 1), "0 and 1")
        return area_under_roc(double_precision(pred), targ == 1)


@dataclass(eq=False)
class APScoreBinary(RocAucBinary):
    """Average precision of class 1; shapes as in `RocAucBinary`.

    0 if no target is positive, as in scikit-learn.
    """

    def score_all(self, pred: Tensor, targ: Tensor) -> Tensor:
        _check_all_known((targ == 0) | (targ == 1), "0 and 1")
        return average_precision(pred, targ == 1)


@dataclass(eq=False)
class SpearmanCorrCoef(CollectingMetric):
    """Spearman's rank correlation of predictions and targets, the mean over outputs; nan if either is constant."""

    def collect(self, pred: Tensor, targ: Tensor) -> tuple[Tensor, Tensor]:
        return as_columns(pred, targ)

    def score_all(self, pred: Tensor, targ: Tensor) -> Tensor:
        return Moments.of(average_ranks(pred.T).T, average_ranks(targ.T).T).correlation().mean()


def average_ranks(x: Tensor) -> Tensor:
    """Ranks from 1 along the last axis, float64, equal values sharing the mean of theirs; all nan if there is a nan."""
    x = x.contiguous()
    ordered = x.sort(-1).values
    below, up_to = torch.searchsorted(ordered, x), torch.searchsorted(ordered, x, right=True)
    return (double_precision(below + up_to + 1) / 2).masked_fill(x.isnan().any(-1, keepdim=True), torch.nan)


def area_under_roc(scores: Tensor, positive: Tensor) -> Tensor:
    """Chance that a positive scores above a negative, ties half (Mann & Whitney 1947), along the last axis.

    `(..., n)` scores and bool mask give `(...)` float64, nan where there are no positives or no negatives.
    """
    n_positive, n_negative = (double_precision(mask.sum(-1)) for mask in (positive, ~positive))
    rank_sum = average_ranks(scores).where(positive, 0).sum(-1)
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Mean of the precision at each positive's rank, 0 without any; of `(n,)` scores and bool mask."""
    if scores.isnan().any():
        return double_precision(torch.tensor(torch.nan, device=scores.device))
    found = scores[positive]
    precision = double_precision(_n_at_least(found, found)) / _n_at_least(found, scores)
    return precision.mean() if len(found) else precision.new_zeros(())


def _n_at_least(thresholds: Tensor, x: Tensor) -> Tensor:
    return len(x) - torch.searchsorted(x.sort().values, thresholds)


def _log_odds(pred: Tensor, targ: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """What ranks as the probability of class 1 does, and the targets, both flat."""
    pred = double_precision(pred)
    if pred.numel() != targ.numel() and pred.shape[axis] == 2:
        pred = pred.select(axis, 1) - pred.select(axis, 0)
    check_same_count(pred, targ, f"Two outputs on axis {axis}, or one, are needed for each target.")
    return pred.flatten(), targ.flatten()


def _check_all_known(known: Tensor, expected: str) -> None:
    if not known.all():
        raise ValueError(f"{int((~known).sum())} of {len(known)} targets are not in {expected}.")


@dataclass(eq=False)
class _SklearnMetric(CollectingMetric):
    func: Callable[[Any, Any], Any]
    axis: int | None = -1
    thresh: float | None = None
    activation: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self):
        self.name = self.name or metric_name(self.func)

    def collect(self, pred: Tensor, targ: Tensor) -> tuple[Tensor, Tensor]:
        if self.thresh is None and self.activation is None and self.axis is not None:
            return predicted_classes(pred, targ, self.axis)
        pred = full_precision(pred)
        if self.thresh is not None:
            pred = (self.activation or torch.sigmoid)(pred) > self.thresh
        elif self.activation is not None:
            pred = self.activation(pred)
        return pred.reshape(targ.shape) if pred.numel() == targ.numel() else pred, targ

    def score_all(self, pred: Tensor, targ: Tensor) -> Any:
        return self.func(targ.cpu().numpy(), pred.cpu().numpy())


def sklearn_metric(
    func: Callable[[Any, Any], Any],
    axis: int | None = -1,
    *,
    thresh: float | None = None,
    activation: Callable[[Tensor], Tensor] | None = None,
    name: str | None = None,
) -> CollectingMetric:
    """A metric from `func(targ, pred) -> number` on numpy arrays of all samples, as scikit-learn's are.

    `func` gets the classes with the largest outputs on `axis`, flat, next to as many targets; with `thresh`, the mask
    `activation(pred) > thresh` (a sigmoid unless you say otherwise); with `activation` alone, its result; with
    `axis=None`, the outputs as they are. Set `func`'s own options with a partial: `partial(f1_score, average="macro")`.
    """
    return _SklearnMetric(func, axis, thresh, activation, name=name)
