"""The learning rate finder: train with a growing learning rate until the loss explodes, and read a good one off.

Smith 2015, "Cyclical learning rates for training neural networks", arXiv:1506.01186.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .core import Callback, CancelFit, CancelValidate
from .hyper import set_hyper
from .schedule import sched_exp

__all__ = ["LRFinder", "minimum", "slide", "steep", "valley"]


class LRFinder(Callback):
    """Raise the learning rate geometrically from `start_lr` to `end_lr` over `num_it` steps, without validation.

    Of a system that steps its optimizers by itself a batch counts as a step, and all of them have the same rate. Stops
    early when the smoothed loss exceeds 4 times its best (`stop_div`) or is no longer finite. `lrs` and `losses`
    (smoothed) hold the curve, `suggestions` what `suggest` read off it. Unlike training it waits for every loss.
    """

    order = -16  # before Evaluate, to keep it from starting

    def __init__(self, start_lr: float = 1e-7, end_lr: float = 10.0, num_it: int = 100, stop_div: bool = True,
                 beta: float = 0.9):  # fmt: skip
        self.sched, self.num_it, self.stop_div, self.beta = sched_exp(start_lr, end_lr), num_it, stop_div, beta
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self.suggestions: dict[str, float] = {}
        self.average, self.of_step = 0.0, []  # losses of the batches since the last step

    def before_batch(self, learn: Any) -> None:
        self.lr = self.sched(len(self.lrs) / max(1, self.num_it - 1))
        set_hyper(learn.opt, "lr", [self.lr])

    def after_loss(self, learn: Any) -> None:
        self.of_step.append(float(learn.loss.detach()))
        if not math.isfinite(self.of_step[-1]):
            raise CancelFit

    def after_step(self, learn: Any) -> None:
        if learn.automatic:
            self._note()

    def after_batch(self, learn: Any) -> None:
        if not learn.automatic and self.of_step:  # it has stepped before its loss was known
            self._note()

    def _note(self) -> None:
        """Add a point to the curve, and end the fit where that was the last."""
        self.average = self.beta * self.average + (1 - self.beta) * sum(self.of_step) / len(self.of_step)
        smooth = self.average / (1 - self.beta ** (len(self.lrs) + 1))
        if self.stop_div and self._diverged(smooth):
            raise CancelFit
        self.of_step = []
        self.lrs.append(self.lr)
        self.losses.append(smooth)
        if len(self.lrs) >= self.num_it:
            raise CancelFit

    def _diverged(self, smooth: float) -> bool:
        best = min(self.losses, default=smooth)
        return smooth > best + 3 * abs(best)  # 4 times a positive one

    def before_validate(self, learn: Any) -> None:
        raise CancelValidate

    def suggest(self, functions: Callable | Sequence[Callable]) -> dict[str, float]:
        """What each of `functions(lrs, losses)` makes of the curve, by its name. Raises ValueError below 5 steps."""
        if len(self.lrs) < 5:
            raise ValueError(
                f"The learning rate finder saw {len(self.lrs)} finite losses, too few to judge. Is start_lr too high, "
                "num_it below 5, or the data not finite?"
            )
        functions = [functions] if callable(functions) else functions
        self.suggestions = {_name(function): function(self.lrs, self.losses) for function in functions}
        return self.suggestions

    def plot(self) -> None:
        """Loss by learning rate, with the suggestions marked."""
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(layout="constrained")
        ax.plot(self.lrs, self.losses)
        for number, (name, lr) in enumerate(self.suggestions.items(), 1):
            loss = np.interp(math.log(lr), np.log(self.lrs), self.losses)
            ax.plot(lr, loss, "o", color=f"C{number}", label=f"{name}: {lr:.2e}")
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss (smoothed)")
        descent = self.losses[0] - min(self.losses)
        if descent > 0:  # the explosion is not what one wants to see
            ax.set_ylim(top=min(max(self.losses), self.losses[0] + descent) + 0.1 * descent)
        if self.suggestions:
            ax.legend()


def _name(function: Any) -> str:
    """A function's name, or that of a partial's function."""
    return getattr(getattr(function, "func", function), "__name__", type(function).__name__)


def valley(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """The learning rate in the middle of the longest descent of the loss; a good first choice.

    The descent is the longest decreasing subsequence of the curve, so bumps do not end it. Its middle is half its
    length before its end: the steps that belong to it are counted, not the plateau that they may begin on.
    """
    length = np.ones(len(losses), int)
    for i in range(1, len(losses)):
        length[i] = 1 + max((length[j] for j in range(i) if losses[j] > losses[i]), default=0)
    end = int(length.argmax())
    return float(lrs[end - int(length[end]) // 2])


def minimum(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the learning rate at the lowest loss."""
    return float(lrs[int(np.argmin(losses))]) / 10


def steep(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """The learning rate where the loss falls fastest: in the middle of the tenth of the curve that falls furthest.

    Its first tenth does not count, where the smoothed loss is still that of a few batches.
    """
    values, n = np.asarray(losses), max(1, len(losses) // 10)
    begin = len(losses) // 10
    falls = values[begin + n :] - values[begin:-n]
    return float(lrs[begin + int(falls.argmin()) + n // 2])


def slide(lrs: Sequence[float], losses: Sequence[float], share: float = 0.8) -> float:
    """The largest learning rate before the loss has made `share` of its whole way down: far, but not at the edge."""
    lowest = int(np.argmin(losses))
    way_down = np.asarray(losses[: lowest + 1])
    above = np.flatnonzero(way_down > way_down.max() - share * np.ptp(way_down))
    return float(lrs[int(above[-1])]) if len(above) else float(lrs[lowest])
