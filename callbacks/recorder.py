"""What happened in training: losses and hyper-parameters of every step, a row of results for every epoch, and their plots."""

import time
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from .core import Callback
from .lr_find import LRFinder
from .schedule import get_hyper

__all__ = ["Recorder"]


class Recorder(Callback):
    """Records every training step and epoch, over all fits of the learner.

    `losses, lrs, moms` hold a number per step; `history` is a DataFrame with a row per epoch: `epoch, train_loss` (averaged by
    sample), `valid_loss`, the metrics, `time` in seconds. Losses stay on the device until somebody reads them.
    """

    order = -10

    def __init__(self):
        self.rows: list[dict[str, Any]] = []
        self.lrs: list[float] = []
        self.moms: list[float] = []
        self.sizes: list[int] = []
        self.epoch_ends: list[int] = []  # the number of steps done at the end of each epoch
        self.lr_finder: LRFinder | None = None
        self._losses: list[float] = []
        self._pending: list[Tensor] = []

    # ---- recording

    def before_fit(self, learn: Any) -> None:
        self._mom = next((key for key in ("betas", "momentum") if key in learn.opt.param_groups[0]), None)

    def before_epoch(self, learn: Any) -> None:
        self.start, self.first_step = time.perf_counter(), len(self.lrs)
        learn.results = {}

    def after_loss(self, learn: Any) -> None:
        if learn.training:
            group = learn.opt.param_groups[-1]
            self._pending.append(learn.loss.detach())
            self.sizes.append(learn.bs)
            self.lrs.append(group["lr"])
            self.moms.append(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))

    def after_epoch(self, learn: Any) -> None:
        row = {"epoch": len(self.rows), "train_loss": self.mean_loss(self.first_step), **learn.results}
        self.rows.append(row | {"time": time.perf_counter() - self.start})
        self.epoch_ends.append(len(self.lrs))

    # ---- reading

    @property
    def losses(self) -> list[float]:
        """The training loss of every step."""
        if self._pending:
            self._losses += torch.stack(self._pending).float().tolist()
            self._pending.clear()
        return self._losses

    def mean_loss(self, first_step: int) -> float:
        """The training loss since a step, averaged by sample; NaN where there was no step."""
        losses, sizes = self.losses[first_step:], self.sizes[first_step:]
        return sum(loss * n for loss, n in zip(losses, sizes, strict=True)) / sum(sizes) if sizes else float("nan")

    def smooth_loss(self, beta: float = 0.98, window: int = 200) -> float:
        """The exponentially weighted average of the last training losses, without the bias towards 0 at the start."""
        recent = self.losses[self.first_step :][-window:]
        weights = [beta ** (len(recent) - 1 - i) for i in range(len(recent))]
        return sum(w * loss for w, loss in zip(weights, recent, strict=True)) / sum(weights) if recent else float("nan")

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch: `epoch, train_loss, valid_loss`, metrics, `time` in seconds."""
        rows = pd.DataFrame(self.rows, columns=None if self.rows else ["epoch", "train_loss", "valid_loss", "time"])
        return rows[[*(c for c in rows.columns if c != "time"), "time"]]

    # ---- plots

    def plot_losses(self, skip_start: int = 5, with_valid: bool = True) -> None:
        """The training loss by step, without the first `skip_start` steps, and the validation loss at the end of each epoch."""
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(layout="constrained")
        steps = range(skip_start, len(self.losses))
        ax.plot(steps, self.losses[skip_start:], label="train", alpha=0.35 if len(steps) > 50 else 1, color="tab:blue")
        if len(steps) > 50:
            smooth = pd.Series(self.losses).ewm(alpha=0.05).mean()
            ax.plot(steps, smooth[skip_start:], label="train, smoothed", color="tab:blue")
        if with_valid and "valid_loss" in self.history:
            ends = [end - 1 for end in self.epoch_ends]
            ax.plot(ends, self.history["valid_loss"], "o-", label="valid", color="tab:orange")
        ax.set(xlabel="step", ylabel="loss")
        ax.legend()

    def plot_sched(self) -> None:
        """Learning rate and momentum of every step."""
        from matplotlib import pyplot as plt

        _, axes = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
        for ax, name, values in zip(axes, ("learning rate", "momentum"), (self.lrs, self.moms), strict=True):
            ax.plot(values)
            ax.set(xlabel="step", ylabel=name)

    def plot_metrics(self) -> None:
        """Each metric, and both losses, by epoch."""
        history = self.history.drop(columns="time")
        names = ["loss", *(c for c in history.columns if c not in ("epoch", "train_loss", "valid_loss"))]
        from matplotlib import pyplot as plt

        _, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.2), squeeze=False, layout="constrained")
        for ax, name in zip(axes[0], names, strict=True):
            for column in [c for c in ("train_loss", "valid_loss") if c in history] if name == "loss" else [name]:
                ax.plot(history["epoch"], history[column], "o-", label=column)
            ax.set(xlabel="epoch", title=name)
            ax.xaxis.get_major_locator().set_params(integer=True)
        axes[0][0].legend()

    def plot_lr_find(self) -> None:
        """The curve of the last `lr_find`. Raises ValueError before there was one."""
        if self.lr_finder is None:
            raise ValueError("There is no curve yet: call learn.lr_find() first.")
        self.lr_finder.plot()
