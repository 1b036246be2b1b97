"""Metrics of overlap, for segmentation: what was marked and what should have been, counted over all pixels.

    learn = Learner(data, model, metrics=[foreground_acc, DiceMulti(ignore_index=255)])

`pred` are logits with the classes on `axis`, `(bs, c, h, w)` or of any number of axes; integer `targ` has no such axis.
Pixels are counted over all batches, so an image without a class spoils nothing. Those whose target is `ignore_index`
count for nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .loss_checks import check_same_count
from .metrics import StatefulMetric, averaged_as, predicted_classes
from .metrics_confusion import class_counts, divide, is_kept, of_known
from .tensors import double_precision, full_precision

__all__ = ["Dice", "DiceMulti", "JaccardCoeff", "JaccardCoeffMulti", "foreground_acc"]


def _foreground_counts(pred: Tensor, targ: Tensor, bkg_idx: int = 0, axis: int = 1,
                       ignore_index: int | None = None) -> Tensor:  # fmt: skip
    """For each sample of the batch, how many pixels of the foreground are right, and how many there are."""
    guess, true = predicted_classes(pred, targ, axis)
    foreground = (true != bkg_idx) & is_kept(true, ignore_index)
    return double_precision(torch.stack([(foreground & (guess == true)).sum(), foreground.sum()])) / len(targ)


def _right_of_all(counts: Tensor) -> Tensor:
    return counts[0] / counts[1]


@averaged_as(_foreground_counts, then=_right_of_all)
def foreground_acc(pred: Tensor, targ: Tensor, bkg_idx: int = 0, axis: int = 1,
                   ignore_index: int | None = None) -> Tensor:  # fmt: skip
    """Share of right pixels among those whose target is not the background; nan if there are none.

    Over several batches it is the share of all their pixels.
    """
    return _right_of_all(_foreground_counts(pred, targ, bkg_idx, axis, ignore_index))


@dataclass(eq=False)
class Dice(StatefulMetric):
    """Twice the pixels of class 1 found over those predicted plus those true: their F1 score (Dice 1945).

    `pred` has two outputs on `axis`, or one for each target of 0 or 1; a pixel is predicted where its probability is
    above `thresh`. 0 if none is, nor should be.
    """

    axis: int = 1
    thresh: float = 0.5
    ignore_index: int | None = None

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        said, targ = _answers(pred, targ, self.axis, self.thresh)
        kept, true = is_kept(targ, self.ignore_index), targ == 1
        unknown = ~true & (targ != 0)
        return torch.stack([(mask & kept).sum() for mask in (said & true, said, true, unknown)])

    def score(self, state: Tensor) -> Tensor:
        return _dice(*_of_0_and_1(state))


@dataclass(eq=False)
class JaccardCoeff(Dice):
    """Pixels of class 1 found over those that are predicted or true: intersection over union (Jaccard 1901).

    Parameters as in `Dice`.
    """

    def score(self, state: Tensor) -> Tensor:
        return _jaccard(*_of_0_and_1(state))


@dataclass(eq=False)
class DiceMulti(StatefulMetric):
    """The mean of each class's Dice coefficient, over the classes that occur in targets or predictions."""

    axis: int = 1
    ignore_index: int | None = None

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        return class_counts(pred, targ, self.axis, self.ignore_index)

    def score(self, state: Tensor) -> Tensor:
        counts = of_known(state)
        return _mean_of_occurring(_dice(*counts), counts)


@dataclass(eq=False)
class JaccardCoeffMulti(DiceMulti):
    """The mean of each class's intersection over union, over the classes that occur in targets or predictions."""

    def score(self, state: Tensor) -> Tensor:
        counts = of_known(state)
        return _mean_of_occurring(_jaccard(*counts), counts)


def _answers(pred: Tensor, targ: Tensor, axis: int, thresh: float) -> tuple[Tensor, Tensor]:
    """Where class 1 is more probable than `thresh`, and the targets, both flat."""
    odds = full_precision(pred)
    if pred.numel() != targ.numel() and pred.shape[axis] == 2:
        odds = odds.select(axis, 1) - odds.select(axis, 0)
    check_same_count(odds, targ, f"Two outputs on axis {axis}, or one, are needed; DiceMulti takes more.")
    return odds.flatten().sigmoid() > thresh, targ.flatten()


def _of_0_and_1(counts: Tensor) -> Tensor:
    """Pixels found, predicted and true, as floats `(3,)`; ValueError if a target was something else."""
    if counts[3]:
        raise ValueError(f"{int(counts[3])} targets are neither 0 nor 1: give ignore_index=, or use DiceMulti.")
    return double_precision(counts[:3])


def _dice(found: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    return divide(2 * found, predicted + true)


def _jaccard(found: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    return divide(found, predicted + true - found)


def _mean_of_occurring(scores: Tensor, counts: Tensor) -> Tensor:
    occurs = counts[1] + counts[2] > 0
    return scores[occurs].mean()
