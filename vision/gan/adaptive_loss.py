"""One target for all that a critic says of an image."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...data.portable import Portable

__all__ = ["AdaptiveLoss", "critic_accuracy"]


@dataclass
class AdaptiveLoss(Portable):
    """`loss_func(pred, targ)` for a critic that gives an image several scores: each gets the image's target.

    Predictions are `(bs, …)`, targets `(bs,)`, of any number type: class 1 is "real".

        Learner(data, gan_critic(), AdaptiveLoss(nn.BCEWithLogitsLoss()), metrics=critic_accuracy)
    """

    loss_func: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        return self.loss_func(pred, _for_each(pred, targ).to(pred.dtype))


def critic_accuracy(pred: Tensor, targ: Tensor) -> Tensor:
    """Share of a critic's scores `(bs, …)` that are right: above 0 where the target `(bs,)` is 1, "real"."""
    return (pred > 0).eq(_for_each(pred, targ) > 0.5).float().mean()


def _for_each(pred: Tensor, targ: Tensor) -> Tensor:
    """`targ` in the shape of `pred`. Raises ValueError where it is not one for each item."""
    if targ.numel() != len(pred):
        raise ValueError(
            f"A critic's scores of shape {tuple(pred.shape)} need one target for each of {len(pred)} images, 1 for a "
            f"real one; the targets have shape {tuple(targ.shape)}."
        )
    return targ.reshape(-1, *[1] * (pred.ndim - 1)).expand_as(pred)
