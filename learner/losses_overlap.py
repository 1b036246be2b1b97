"""A loss of overlap, for segmentation: it sees regions rather than pixels, however few of them a class has.

    learn = Learner(data, model, DiceLoss(weight=[0, 1, 1]))

Its gradient is faint where a region is missed altogether, so it is often used in a `CombinedLoss` with cross-entropy.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .loss_checks import check_class_numbers
from .losses import ClassLoss
from .tensors import Weights, weights_like

__all__ = ["DiceLoss"]


@dataclass
class DiceLoss(ClassLoss):
    """1 − the Dice coefficient of each image and class, with probabilities for predictions (Milletari et al. 2016).

    `pred` are logits `(bs, c, h, w)`, or of any shape with the classes on `axis`; `targ` integer classes without it.
    The coefficient is `(2 · both + smooth) / (predicted + true + smooth)`, sums over an image's pixels; with
    `square_in_union` predicted is the sum of squared probabilities, as in the paper (arXiv:1606.04797). An image's loss
    is the mean over its classes, weighted if `weight` holds one number for each (0 leaves the background out).
    `reduction` is "mean" or "sum" over images, "none" for one loss per image, `(bs,)`. Pixels whose target is
    `ignore_index` count for nothing.
    """

    axis: int = 1
    smooth: float = 1e-6
    reduction: str = "mean"
    square_in_union: bool = False
    weight: Weights = None
    ignore_index: int = -100

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        p = self.activation(pred).movedim(self.axis, 1)
        p = p.reshape(*p.shape[:2], -1)
        targ = targ.reshape(len(p), 1, p.shape[2]).long()
        p = p * (targ != self.ignore_index)
        true = targ == torch.arange(p.shape[1], device=targ.device)[:, None]
        both, predicted = (p * true).sum(-1), (p * p if self.square_in_union else p).sum(-1)
        loss = 1 - (2 * both + self.smooth) / (predicted + true.sum(-1) + self.smooth)
        loss = self._mean_over_classes(loss)
        return loss.mean() if self.reduction == "mean" else loss.sum() if self.reduction == "sum" else loss

    def check(self, pred: Tensor, targ: Tensor) -> None:
        """Raise ValueError if targets are no classes of the model, or shapes, dtypes or `weight` do not fit."""
        check_class_numbers(targ)
        super().check(pred, targ)

    def _mean_over_classes(self, loss: Tensor) -> Tensor:
        weight = weights_like(loss, self.weight)
        return loss.mean(1) if weight is None else loss @ weight / weight.sum()
