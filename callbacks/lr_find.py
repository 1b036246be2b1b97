"""The learning rate finder: train with a growing learning rate until the loss explodes, and read a good one off the curve.

Smith 2015, "Cyclical learning rates for training neural networks", arXiv:1506.01186.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .core import Callback, CancelFit, CancelValidate
from .schedule import sched_exp, set_hyper

__all__ = ["LRFinder", "minimum", "slide", "steep", "valley"]


class LRFinder(Callback):
    """Raise the learning rate geometrically from `start_lr` to `end_lr` over `num_it` steps.

    Stops early when the smoothed loss exceeds 4 times its best (`stop_div`) or is no longer finite. `lrs` and `losses`
    (smoothed) hold the curve.
    """

    order = -16  # before Evaluate, to keep it from starting

    def __init__(self, start_lr: float = 1e-7, end_lr: float = 10.0, num_it: int = 100, stop_div: bool = True, beta: float = 0.9):
        self.sched, self.num_it, self.stop_div, self.beta = sched_exp(start_lr, end_lr), num_it, stop_div, beta
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self.suggestions: dict[str, float] = {}
        self.average = 0.0

    def before_batch(self, learn: Any) -> None:
        self.lr = self.sched(len(self.lrs) / max(1, self.num_it - 1))
        set_hyper(learn.opt, "lr", [self.lr])

    def after_loss(self, learn: Any) -> None:
        loss = float(learn.loss.detach())
        self.average = self.beta * self.average + (1 - self.beta) * loss
        smooth = self.average / (1 - self.beta ** (len(self.lrs) + 1))
        diverged = not math.isfinite(smooth) or (self.losses and smooth > 4 * min(self.losses))
        if diverged and (self.stop_div or not math.isfinite(smooth)):
            raise CancelFit
        self.lrs.append(self.lr)
        self.losses.append(smooth)

    def after_batch(self, learn: Any) -> None:
        if len(self.lrs) >= self.num_it:
            raise CancelFit

    def before_validate(self, learn: Any) -> None:
        raise CancelValidate

    def plot(self) -> None:
        """Loss by learning rate, with the suggestions marked."""
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(layout="constrained")
        ax.plot(self.lrs, self.losses)
        for number, (name, lr) in enumerate(self.suggestions.items()):
            ax.plot(lr, np.interp(math.log(lr), np.log(self.lrs), self.losses), "o", color=f"C{number + 1}", label=f"{name}: {lr:.2e}")
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss (smoothed)")
        if self.suggestions:
            ax.legend()


def valley(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """The learning rate halfway (in log space) down the longest descent of the loss; a good first choice.

    The descent is the longest decreasing subsequence of the curve, so bumps do not end it.
    """
    length = np.ones(len(losses), int)
    start = np.arange(len(losses))
    for i in range(1, len(losses)):
        longer = [j for j in range(i) if losses[j] > losses[i]]
        if longer:
            best = max(longer, key=lambda j: length[j])
            length[i], start[i] = length[best] + 1, start[best]
    end = int(length.argmax())
    return float(lrs[(int(start[end]) + end) // 2])


def minimum(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the learning rate at the lowest loss."""
    return float(lrs[int(np.argmin(losses))]) / 10


def steep(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """The learning rate where the loss falls fastest."""
    return float(lrs[int(np.argmin(np.gradient(np.asarray(losses), np.log(lrs))))]) if len(lrs) > 1 else float(lrs[0])


def slide(lrs: Sequence[float], losses: Sequence[float], share: float = 0.8) -> float:
    """The largest learning rate before the loss has made `share` of its whole way down: far, but not at the edge."""
    losses = np.asarray(losses)
    lowest = int(losses.argmin())
    goal = losses[: lowest + 1].max() - share * (losses[: lowest + 1].max() - losses[lowest])
    above = np.flatnonzero(losses[: lowest + 1] > goal)
    return float(lrs[int(above[-1])]) if len(above) else float(lrs[lowest])
