"""What training has been like: losses and hyper-parameters of every step, results of every epoch, and their plots."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from .lr_find import LRFinder

__all__ = ["Records"]


class Records:
    """What a `Recorder` has recorded, to be read and drawn.

    `losses, lrs, moms, sizes` hold a number per step: the loss, learning rate and momentum of the last parameter group,
    samples. `history` is a DataFrame with a row per epoch: `epoch, train_loss` (averaged by sample), `valid_loss`, the
    metrics, `time` in seconds; `step_history` one per validation within an epoch. Losses stay on the device until
    somebody reads them.
    """

    def __init__(self):
        self.rows: list[dict[str, Any]] = []
        self.step_rows: list[dict[str, Any]] = []
        self.lrs: list[float] = []
        self.moms: list[float] = []
        self.sizes: list[int] = []
        self.epoch_ends: list[int] = []  # the number of steps done at the end of each epoch
        self.lr_finder: LRFinder | None = None
        self.first_step = 0  # of the epoch
        self._losses: list[float] = []
        self._pending: list[Tensor] = []

    def monitored(self, name: str) -> float:
        """The last epoch's `name`: a loss, a metric, or what a system logged. ValueError names what there is."""
        row = self.rows[-1]
        if name not in row:
            known = ", ".join(key for key in row if key not in ("epoch", "time"))
            raise ValueError(f"There is no {name!r} to monitor: this epoch gave {known}.")
        return row[name]

    @property
    def losses(self) -> list[float]:
        """The training loss of every step."""
        if self._pending:
            self._losses += torch.stack(self._pending).flatten().tolist()
            self._pending.clear()
        return self._losses

    def mean_loss(self, first_step: int) -> float:
        """The training loss since a step, averaged by sample; NaN where there was no step."""
        losses, sizes = self.losses[first_step:], self.sizes[first_step:]
        total = sum(loss * n for loss, n in zip(losses, sizes, strict=True))
        return total / sum(sizes) if sizes else float("nan")

    def smooth_loss(self, beta: float = 0.98, window: int = 200) -> float:
        """This epoch's training loss, exponentially weighted without the bias towards 0 at the start; NaN at first."""
        recent = self.losses[max(self.first_step, len(self.losses) - window) :]
        weights = [beta**age for age in reversed(range(len(recent)))]
        total = sum(w * loss for w, loss in zip(weights, recent, strict=True))
        return total / sum(weights) if recent else float("nan")

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch: `epoch, train_loss, valid_loss`, metrics, `time` in seconds."""
        rows = pd.DataFrame(self.rows, columns=None if self.rows else ["epoch", "train_loss", "valid_loss", "time"])
        return rows.reindex(columns=[*(c for c in rows.columns if c != "time"), "time"])

    @property
    def step_history(self) -> pd.DataFrame:
        """A row per validation within an epoch: `epoch, step` of the fit, `train_loss` of the epoch so far, results."""
        return pd.DataFrame(self.step_rows)

    # ---- plots

    def plot_losses(self, skip_start: int = 5, with_valid: bool = True) -> None:
        """The training loss by step, but for the first `skip_start`, and the validation loss at each epoch's end."""
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(layout="constrained")
        losses, history = self.losses, self.history
        steps = range(skip_start, len(losses))
        many = len(steps) > 50
        ax.plot(steps, losses[skip_start:], label="train", alpha=0.35 if many else 1, color="tab:blue")
        if many:
            smooth = pd.Series(losses).ewm(span=max(5, len(losses) / 20)).mean()
            ax.plot(steps, smooth[skip_start:], label="train, smoothed", color="tab:blue")
        if with_valid and "valid_loss" in history:
            ends = [end - 1 for end in self.epoch_ends]
            ax.plot(ends, history["valid_loss"], "o-", label="valid", color="tab:orange")
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
        """Both losses, and each metric, by epoch."""
        from matplotlib import pyplot as plt

        history = self.history
        losses = [c for c in ("train_loss", "valid_loss") if c in history]
        metrics = [c for c in history if c not in ("epoch", "time", *losses)]
        width = 1 + len(metrics)
        _, axes = plt.subplots(1, width, figsize=(4 * width, 3.2), squeeze=False, layout="constrained")
        for ax, columns in zip(axes[0], [losses, *([metric] for metric in metrics)], strict=True):
            for column in columns:
                ax.plot(history["epoch"], history[column], "o-", label=column)
            ax.set(xlabel="epoch", title="loss" if columns is losses else columns[0])
            ax.xaxis.get_major_locator().set_params(integer=True)
        axes[0][0].legend()

    def plot_lr_find(self) -> None:
        """The curve of the last `lr_find`. Raises ValueError before there was one."""
        if self.lr_finder is None:
            raise ValueError("There is no curve yet: call learn.lr_find() first.")
        self.lr_finder.plot()
