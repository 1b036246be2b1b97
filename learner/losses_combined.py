"""Several losses as one, where each sees what the other misses.

    learn = Learner(data, model, CombinedLoss([CrossEntropyLoss(axis=1), DiceLoss()], weights=[1.0, 0.5]))

It is exported with the learner if its parts are losses of this library.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..data.portable import Portable
from .losses import loss_activation, loss_decodes
from .tensors import Weights, as_list

__all__ = ["CombinedLoss"]


@dataclass
class CombinedLoss(Portable):
    """The sum of several losses of the same predictions and targets, each times its number in `weights` (None: 1).

    Predictions are read as the first loss reads them. `reduction` is that of all parts, and setting it sets theirs;
    with "none" there is one loss per item, `(bs,)`. Raises TypeError for a part that is a class or cannot be called,
    ValueError where there is no part, where their reductions differ, and where there are not as many weights.
    """

    losses: Sequence[Callable[..., Tensor]]
    weights: Weights = None

    def __post_init__(self):
        self.losses = list(self.losses)
        self.weights = [1.0] * len(self.losses) if self.weights is None else as_list(self.weights)
        _check_parts(self.losses, self.weights or [])

    @property
    def reduction(self) -> str:
        """What all parts do with their losses: "mean", "sum" or "none"; AttributeError where one has no such choice."""
        first, *_ = [part.reduction for part in self.losses]  # type: ignore[attr-defined]
        return first

    @reduction.setter
    def reduction(self, value: str) -> None:
        for part in self.losses:
            part.reduction = value  # type: ignore[attr-defined]

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        values = [part(pred, targ) for part in self.losses]
        values = [value.reshape(len(value), -1).mean(1) if value.ndim else value for value in values]
        return sum(weight * value for weight, value in zip(self.weights, values, strict=True))  # type: ignore

    def activation(self, pred: Tensor) -> Tensor:
        """What the first loss makes of predictions: probabilities or values."""
        return loss_activation(self.losses[0])(pred)

    def decodes(self, pred: Tensor) -> Tensor:
        """What the first loss answers."""
        return loss_decodes(self.losses[0])(pred)

    def check(self, pred: Tensor, targ: Tensor) -> None:
        """Raise ValueError if predictions and targets do not fit one of the losses."""
        for part in self.losses:
            if check := getattr(part, "check", None):
                check(pred, targ)


def _check_parts(losses: Sequence[Any], weights: Sequence[float]) -> None:
    for part in losses:
        if isinstance(part, type) or not callable(part):
            raise TypeError(f"CombinedLoss got {part!r}: it takes losses, [CrossEntropyLoss(), DiceLoss()].")
    if len(weights) != len(losses) or not losses:
        raise ValueError(f"CombinedLoss has {len(losses)} losses and {len(weights)} weights: give a weight for each.")
    reductions = {part.reduction for part in losses if hasattr(part, "reduction")}
    if len(reductions) > 1:
        raise ValueError(f"the parts of a CombinedLoss reduce by {sorted(reductions)}: make them all 'mean', or 'sum'.")
