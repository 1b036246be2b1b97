"""Losses that know what their predictions mean.

A loss is called as `loss(pred, targ)` on what the model returns. It also says how to read those numbers: `activation`
turns them into probabilities or values, `decodes` into the answer (a class, a mask, a value), and `check` explains,
before training starts, why predictions and targets do not fit. Calling a loss never waits for the accelerator; `check`
may.

    >>> loss = CrossEntropyLoss(label_smoothing=0.1)
    >>> loss(torch.zeros(64, 10), torch.arange(64) % 10)
    tensor(2.3026)

Every loss has `reduction`: "mean", "sum", or "none" for one loss per target, in the shape of the targets. Predictions
in half precision are computed with in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.portable import Portable
from .loss_checks import (
    check_between_0_and_1,
    check_class_numbers,
    check_classes,
    check_not_nan,
    check_same_count,
    check_weights,
)
from .tensors import Weights, as_list, as_values, classes_second, full_precision, weights_like

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "FocalLoss", "L1Loss", "LabelSmoothingCrossEntropy", "MSELoss",
           "loss_activation", "loss_decodes"]  # fmt: skip


class ClassLoss(Portable):
    """What losses of one class per target share: predictions with a class `axis`, targets without it."""

    axis: int
    weight: Weights
    ignore_index: int

    def __post_init__(self):
        self.weight = as_list(self.weight)

    def activation(self, pred: Tensor) -> Tensor:
        """Probabilities, in the shape of `pred`."""
        return full_precision(pred).softmax(self.axis)

    def decodes(self, pred: Tensor) -> Tensor:
        """The likeliest class, integer, in the shape of `pred` without its class axis."""
        return pred.argmax(self.axis)

    def n_targets(self, targ: Tensor) -> Tensor | int:
        """How many targets the mean over a batch is of; a tensor on their device, so that nothing waits for it."""
        return targ.numel() if targ.is_floating_point() else (targ != self.ignore_index).sum()

    def check(self, pred: Tensor, targ: Tensor) -> None:
        """Raise ValueError if targets are no classes of the model, or shapes, dtypes or `weight` do not fit."""
        check_classes(pred, targ, self.axis, self.ignore_index)
        check_weights("weight", self.weight, (pred.shape[self.axis],))


@dataclass
class CrossEntropyLoss(ClassLoss):
    """Cross-entropy of logits `pred` and integer classes `targ`, whatever their shapes: the class axis is `axis`.

    `pred` is `(bs, c)`, `(bs, seq, c)`, or with `axis=1` `(bs, c, h, w)`; `targ` is the same without the class axis.
    Float targets in the shape of `pred` are probabilities of the classes. `weight` holds one number per class and, as
    in PyTorch, the mean is divided by the weights' sum. Targets equal to `ignore_index` count for nothing.
    `label_smoothing` in [0, 1] is the probability spread over all classes (Szegedy et al. 2016, arXiv:1512.00567).
    """

    weight: Weights = None
    ignore_index: int = -100
    reduction: str = "mean"
    label_smoothing: float = 0.0
    axis: int = -1

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        logits = classes_second(full_precision(pred), self.axis)
        if targ.is_floating_point():
            shape, flat_targ = pred.select(self.axis, 0).shape, classes_second(targ, self.axis).to(logits.dtype)
        else:
            shape, flat_targ = targ.shape, targ.reshape(logits.shape[:1] + logits.shape[2:]).long()
        loss = F.cross_entropy(
            logits, flat_targ, weights_like(logits, self.weight), ignore_index=self.ignore_index,
            reduction=self.reduction, label_smoothing=self.label_smoothing,
        )  # fmt: skip
        return loss.reshape(shape) if self.reduction == "none" else loss


@dataclass
class LabelSmoothingCrossEntropy(ClassLoss):
    """`CrossEntropyLoss(label_smoothing=eps)` under fast.ai's name."""

    eps: float = 0.1
    weight: Weights = None
    reduction: str = "mean"
    axis: int = -1
    ignore_index: int = -100

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        return CrossEntropyLoss(self.weight, self.ignore_index, self.reduction, self.eps, self.axis)(pred, targ)


@dataclass
class FocalLoss(ClassLoss):
    """Cross-entropy times `(1 - p)**gamma`, p the true class's probability: easy targets fade.

    Lin et al. 2017, arXiv:1708.02002, for any number of classes. Shapes are those of `CrossEntropyLoss`, with integer
    targets. `weight` (the paper's α, one number per class) multiplies each target's loss and, unlike in
    `CrossEntropyLoss`, does not divide the mean, which is over all targets that are not `ignore_index`.
    """

    gamma: float = 2.0
    weight: Weights = None
    reduction: str = "mean"
    axis: int = -1
    ignore_index: int = -100

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        plain = CrossEntropyLoss(ignore_index=self.ignore_index, reduction="none", axis=self.axis)(pred, targ)
        kept = targ.long() != self.ignore_index
        wrong = (-torch.expm1(-plain)).clamp_min(torch.finfo(plain.dtype).tiny)  # 0**gamma has no gradient if gamma < 1
        loss = wrong**self.gamma * plain
        if (weight := weights_like(loss, self.weight)) is not None:
            loss = loss * weight[targ.long().where(kept, 0)]
        if self.reduction == "mean":
            return loss.sum() / kept.sum()
        return loss.sum() if self.reduction == "sum" else loss

    def check(self, pred: Tensor, targ: Tensor) -> None:
        """Raise ValueError if targets are no classes of the model, or shapes, dtypes or `weight` do not fit."""
        check_class_numbers(targ)
        super().check(pred, targ)


@dataclass
class BCEWithLogitsLoss(Portable):
    """Binary cross-entropy of logits `pred` and targets of 0 and 1, any number of which may be 1 (multi-label).

    `targ` is of any dtype, in the shape of `pred` up to axes of length 1. `pos_weight` multiplies the loss of targets
    that are 1, `weight` all; each is one number, or one per output along the last axis. `thresh` is the probability
    above which `decodes` answers yes.
    """

    thresh: float = 0.5
    reduction: str = "mean"
    pos_weight: Weights = None
    weight: Weights = None

    def __post_init__(self):
        self.pos_weight, self.weight = as_list(self.pos_weight), as_list(self.weight)

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        pred = full_precision(pred)
        loss = F.binary_cross_entropy_with_logits(
            pred, targ.reshape(pred.shape).to(pred.dtype), weights_like(pred, self.weight),
            reduction=self.reduction, pos_weight=weights_like(pred, self.pos_weight),
        )  # fmt: skip
        return loss.reshape(targ.shape) if self.reduction == "none" else loss

    def activation(self, pred: Tensor) -> Tensor:
        """Probabilities, in the shape of `pred`."""
        return full_precision(pred).sigmoid()

    def decodes(self, pred: Tensor) -> Tensor:
        """A bool mask in the shape of `pred`: which probabilities are above `thresh`."""
        return self.activation(pred) > self.thresh

    def check(self, pred: Tensor, targ: Tensor) -> None:
        """Raise ValueError if the shapes differ, a target is outside [0, 1], or the weights do not fit."""
        hint = "One class per target, given as an integer, is a task for CrossEntropyLoss."
        check_same_count(pred, targ, hint)
        check_between_0_and_1(targ, hint)
        check_weights("weight", self.weight, (1, pred.shape[-1]))
        check_weights("pos_weight", self.pos_weight, (1, pred.shape[-1]))


class _ValueLoss(Portable):
    """What losses of numbers share: predictions are the values themselves."""

    def activation(self, pred: Tensor) -> Tensor:
        """`pred`, which holds the values already."""
        return pred

    def decodes(self, pred: Tensor) -> Tensor:
        """`pred`, which holds the values already."""
        return pred

    def check(self, pred: Tensor, targ: Tensor) -> None:
        """Raise ValueError unless there is one prediction for each target, and each target is a number."""
        check_same_count(pred, targ, "Does the model return as many values as a target has?")
        check_not_nan(targ)


@dataclass
class MSELoss(_ValueLoss):
    """Mean squared error; `(bs, 1)` predictions meet `(bs,)` targets, numbers of any dtype."""

    reduction: str = "mean"

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        return F.mse_loss(*as_values(pred, targ), reduction=self.reduction)


@dataclass
class L1Loss(_ValueLoss):
    """Mean absolute error; `(bs, 1)` predictions meet `(bs,)` targets, numbers of any dtype."""

    reduction: str = "mean"

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        return F.l1_loss(*as_values(pred, targ), reduction=self.reduction)


def loss_activation(loss_func: Any) -> Callable[[Tensor], Tensor]:
    """What turns predictions made for `loss_func` into probabilities or values.

    The loss's own `activation`; for PyTorch's cross-entropy softmax, NLL exp, binary cross-entropy with logits sigmoid
    (modules, functions, and partials of them); else the identity.
    """
    if callable(getattr(loss_func, "activation", None)):
        return loss_func.activation
    return _torch_reading(loss_func)[0]


def loss_decodes(loss_func: Any) -> Callable[[Tensor], Tensor]:
    """What turns predictions made for `loss_func` into answers: its own `decodes`, else as for `loss_activation`."""
    if callable(getattr(loss_func, "decodes", None)):
        return loss_func.decodes
    return _torch_reading(loss_func)[1]


def _torch_reading(loss_func: Any) -> tuple[Callable, Callable]:
    """Activation and decoding for a loss of PyTorch, whose class axis is 1, or 0 for a single item."""
    while isinstance(loss_func, partial):
        loss_func = loss_func.func
    if isinstance(loss_func, nn.CrossEntropyLoss) or loss_func is F.cross_entropy:
        return (lambda pred: pred.softmax(min(1, pred.ndim - 1))), _torch_argmax
    if isinstance(loss_func, nn.NLLLoss) or loss_func is F.nll_loss:
        return torch.exp, _torch_argmax
    if isinstance(loss_func, nn.BCEWithLogitsLoss) or loss_func is F.binary_cross_entropy_with_logits:
        return torch.sigmoid, BCEWithLogitsLoss().decodes
    return _identity, _identity


def _torch_argmax(pred: Tensor) -> Tensor:
    return pred.argmax(min(1, pred.ndim - 1))


def _identity(pred: Tensor) -> Tensor:
    return pred
