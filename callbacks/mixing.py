"""Training on blends of two samples, with the blended loss of both targets."""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .core import Callback

__all__ = ["CutMix", "MixUp"]


@dataclass
class BlendedLoss:
    """`loss_func` of a batch's own targets, by their share, plus that of each of the `others`, by theirs."""

    loss_func: Callable
    own: float = 1.0
    others: list[tuple[float, tuple]] = field(default_factory=list)

    def __call__(self, pred: Any, *yb: Tensor) -> Tensor:
        loss = self.own * self.loss_func(pred, *yb)
        for share, other in self.others:
            loss = loss + share * self.loss_func(pred, *other)
        return loss

    def check(self, pred: Any, *yb: Tensor) -> None:
        if check := getattr(self.loss_func, "check", None):
            check(pred, *yb)

    def blended(self, yb: tuple, order: Tensor, own: float) -> "BlendedLoss":
        """The loss after each sample, `own` of it, was blended with the one that `order` puts in its place."""
        kept = [(share * own, other) for share, other in self.others]
        came = [(share * (1 - own), _reordered(other, order)) for share, other in [(self.own, yb), *self.others]]
        return BlendedLoss(self.loss_func, self.own * own, kept + came)


def _reordered(values: tuple, order: Tensor) -> tuple:
    return tuple(value[order] for value in values)


class _Mixing(Callback, ABC):
    """Blends each training batch with itself in another order. λ is drawn for a batch from Beta(`alpha`, `alpha`).

    It follows from the data's seed, the epoch and the batch's number, so a run can be repeated.
    """

    order = 10

    def __init__(self, alpha: float):
        if not alpha > 0:
            raise ValueError(f"alpha={alpha}: Beta(alpha, alpha) needs a number above 0.")
        self.alpha = alpha

    @abstractmethod
    def mix(self, x: Tensor, other: Tensor, share: float, rand: random.Random) -> tuple[Tensor, float]:
        """The blend of two batches, `share` of it from the first, and the share that it came to."""

    def before_batch(self, learn: Any) -> None:
        if not learn.training:
            return
        self._check(learn)
        seed = torch.initial_seed() if learn.dl.seed is None else learn.dl.seed
        rand = random.Random(f"{type(self).__name__} {seed} {learn.epochs_begun} {learn.iter}")
        generator = torch.Generator().manual_seed(rand.getrandbits(63))
        order = torch.randperm(learn.bs, generator=generator).to(learn.xb[0].device, non_blocking=True)
        share, place = rand.betavariate(self.alpha, self.alpha), rand.random()
        mixed = [self.mix(x, x[order], share, random.Random(place)) for x in learn.xb]
        learn.xb, share = tuple(x for x, _ in mixed), mixed[0][1]
        loss = learn.loss_func if isinstance(learn.loss_func, BlendedLoss) else BlendedLoss(learn.loss_func)
        learn.loss_func = loss.blended(learn.yb, order, share)

    def _check(self, learn: Any) -> None:
        """Raise where there is no loss to blend, or inputs or targets that cannot be blended or reordered."""
        name = type(self).__name__
        if learn.loss_func is None or not learn.yb:
            raise ValueError(f"{name} blends losses: the learner needs a loss_func and targets.")
        inputs = learn.xb if isinstance(learn.xb, tuple) else (learn.xb,)
        if not all(isinstance(x, Tensor) and x.is_floating_point() for x in inputs):
            kinds = ", ".join(str(x.dtype) if isinstance(x, Tensor) else f"a {type(x).__name__}" for x in inputs)
            raise TypeError(f"{name} blends inputs, which must be floating-point tensors, and these are {kinds}.")
        if not all(isinstance(y, Tensor) for y in learn.yb):
            raise TypeError(f"{name} reorders targets, which must be tensors, not a {type(learn.yb[0]).__name__}.")

    def after_backward(self, learn: Any) -> None:
        if isinstance(learn.loss_func, BlendedLoss):
            learn.loss_func = learn.loss_func.loss_func

    after_cancel_batch = after_backward


class MixUp(_Mixing):
    """Train on `λ·x + (1-λ)·x'` with the loss `λ·loss(y) + (1-λ)·loss(y')` (Zhang et al. 2018, arXiv:1710.09412).

    One λ a batch, from Beta(`alpha`, `alpha`); any loss that is a mean or sum works.
    """

    def __init__(self, alpha: float = 0.4):
        super().__init__(alpha)

    def mix(self, x: Tensor, other: Tensor, share: float, rand: random.Random) -> tuple[Tensor, float]:
        return torch.lerp(other, x, share), share


class CutMix(_Mixing):
    """Train on images with a rectangle from another, losses blended by area (Yun et al. 2019, arXiv:1905.04899).

    One rectangle a batch, of `1-λ` of the image before it is cut off at the border, λ from Beta(`alpha`, `alpha`).
    """

    def __init__(self, alpha: float = 1.0):
        super().__init__(alpha)

    def mix(self, x: Tensor, other: Tensor, share: float, rand: random.Random) -> tuple[Tensor, float]:
        if x.ndim < 4:
            raise ValueError(f"CutMix cuts rectangles out of images (bs, c, h, w), and the input is {tuple(x.shape)}.")
        spans = [_span(length, math.sqrt(1 - share), rand.random()) for length in x.shape[-2:]]
        cut = (..., *(slice(*span) for span in spans))
        x = x.clone()
        x[cut] = other[cut]
        return x, 1 - math.prod(stop - start for start, stop in spans) / math.prod(x.shape[-2:])


def _span(length: int, share: float, centre: float) -> tuple[int, int]:
    """Where `share` of `length` around `centre` begins and ends, inside 0…length."""
    half, middle = length * share / 2, centre * length
    return max(0, round(middle - half)), min(length, round(middle + half))
