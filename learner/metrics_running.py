"""Metrics of running means: of errors, R², explained variance, Pearson's correlation, perplexity.

Means and covariances of two batches combine exactly to those of both (Chan, Golub & LeVeque 1979), in float64.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .loss_checks import check_same_count
from .losses import CrossEntropyLoss
from .metrics import StatefulMetric, averaged_as
from .tensors import as_values, double_precision

__all__ = ["ExplainedVariance", "PearsonCorrCoef", "Perplexity", "R2Score", "exp_rmspe", "mae", "mse", "rmse"]


def mse(pred: Tensor, targ: Tensor) -> Tensor:
    """Mean squared error."""
    return _errors(pred, targ).square().mean()


def mae(pred: Tensor, targ: Tensor) -> Tensor:
    """Mean absolute error."""
    return _errors(pred, targ).abs().mean()


@averaged_as(mse, then=torch.sqrt)
def rmse(pred: Tensor, targ: Tensor) -> Tensor:
    """Root of the mean squared error; over several batches the root of `mse` over all of them."""
    return mse(pred, targ).sqrt()


def _exp_mspe(pred: Tensor, targ: Tensor) -> Tensor:
    return torch.expm1(_errors(pred, targ)).square().mean()


@averaged_as(_exp_mspe, then=torch.sqrt)
def exp_rmspe(pred: Tensor, targ: Tensor) -> Tensor:
    """Root mean squared relative error of `exp(pred)` for `exp(targ)`; over batches averaged as `rmse` is."""
    return _exp_mspe(pred, targ).sqrt()


def _errors(pred: Tensor, targ: Tensor) -> Tensor:
    check_same_count(pred, targ, "A metric of values needs one prediction for each target.")
    pred, targ = as_values(pred, targ)
    return pred - targ


@dataclass
class Moments:
    """Of `n` pairs of d columns, means `(2, d)` and sums of products of deviations `(2, 2, d)`; `+` joins samples."""

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> "Moments":
        """Those of the pairs of `a` and `b`, both `(n, d)`."""
        both = torch.stack([a, b])
        mean = both.mean(1)
        apart = both - mean[:, None]
        return cls(len(a), mean, (apart[:, None] * apart).sum(2))

    def __add__(self, other: "Moments") -> "Moments":
        n, step = self.n + other.n, other.mean - self.mean
        between = step[:, None] * step * (self.n * other.n / n)
        return Moments(n, self.mean + step * (other.n / n), self.scatter + other.scatter + between)

    def correlation(self) -> Tensor:
        """Pearson's, of each column `(d,)`; nan where one of the two is constant."""
        return (self.scatter[0, 1] / (self.scatter[0, 0] * self.scatter[1, 1]).sqrt()).clamp(-1, 1)


def as_columns(pred: Tensor, targ: Tensor) -> tuple[Tensor, Tensor]:
    """Both as `(n, d)`: a row for each sample of `targ`, a column for each value of a sample."""
    check_same_count(pred, targ, "A metric of values needs one prediction for each target.")
    shape = (len(targ), -1)
    return pred.reshape(shape), targ.reshape(shape)


@dataclass(eq=False)
class R2Score(StatefulMetric):
    """Share of the targets' variance that predictions explain: 1 is perfect, 0 as good as the mean, below is worse.

    The mean over outputs if a sample has several, as in scikit-learn; 1 or 0 for constant targets that are met or not.
    """

    def measure(self, pred: Tensor, targ: Tensor) -> Moments:
        pred, targ = (double_precision(x) for x in as_columns(pred, targ))
        return Moments.of(targ - pred, targ)

    def score(self, state: Moments) -> Tensor:
        if state.n < 2:
            return torch.tensor(torch.nan)
        return _explained(state.scatter[0, 0] + state.n * state.mean[0] ** 2, state.scatter[1, 1])


@dataclass(eq=False)
class ExplainedVariance(R2Score):
    """`R2Score` forgiving a constant offset: 1 − variance of the error / variance of the targets."""

    def score(self, state: Moments) -> Tensor:
        return _explained(state.scatter[0, 0], state.scatter[1, 1])


def _explained(missed: Tensor, total: Tensor) -> Tensor:
    return torch.where(total > 0, 1 - missed / total, (missed == 0).to(total.dtype)).mean()


@dataclass(eq=False)
class PearsonCorrCoef(StatefulMetric):
    """Pearson's correlation of predictions and targets, the mean over outputs; nan if one of the two is constant."""

    def measure(self, pred: Tensor, targ: Tensor) -> Moments:
        return Moments.of(*(double_precision(x) for x in as_columns(pred, targ)))

    def score(self, state: Moments) -> Tensor:
        return state.correlation().mean()


@dataclass(eq=False)
class Perplexity(StatefulMetric):
    """exp of the mean cross-entropy over all targets: a language model's number of words still in question.

    `pred` `(bs, seq, vocab)` logits, `targ` `(bs, seq)` integer; those equal to `ignore_index` do not count.
    """

    axis: int = -1
    ignore_index: int = -100

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        check_same_count(pred.select(self.axis, 0), targ, "One target for each set of outputs is needed.")
        loss = CrossEntropyLoss(ignore_index=self.ignore_index, reduction="sum", axis=self.axis)(pred, targ)
        return double_precision(torch.stack([loss, (targ.long() != self.ignore_index).sum()]))

    def score(self, state: Tensor) -> Tensor:
        return (state[0] / state[1]).exp()
