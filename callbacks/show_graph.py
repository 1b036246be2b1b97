"""A graph of the losses that grows below the cell while it trains."""

import io
from typing import Any

import pandas as pd

from .core import Callback
from .progress import NotebookDisplay

__all__ = ["ShowGraph"]


class ShowGraph(Callback):
    """Shows training and validation loss of the fit in a notebook, in one picture that is renewed after each epoch.

    Elsewhere, and inside `learn.no_bar()`, it shows nothing: `learn.recorder.plot_losses()` draws the like afterwards.
    """

    order = 55  # below the progress bar's table
    real_runs_only = rank0_only = True
    state_names = ("n_steps", "n_epochs")

    def __init__(self):
        self.handle: Any = None
        self.n_steps, self.n_epochs = 0, 0  # of earlier fits

    def before_fit(self, learn: Any) -> None:
        self.handle = None
        self.n_steps, self.n_epochs = len(learn.recorder.lrs), len(learn.recorder.rows)

    def after_epoch(self, learn: Any) -> None:
        if not isinstance(learn.progress.display, NotebookDisplay):
            return
        from IPython.display import Image, display

        picture = Image(data=self._draw(learn))
        if self.handle is None:
            self.handle = display(picture, display_id=True)
        else:
            self.handle.update(picture)

    def _draw(self, learn: Any) -> bytes:
        """The graph as a PNG, over the steps of the whole fit."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3.5), layout="constrained")  # not pyplot's, which would show it once more
        ax = figure.subplots()
        losses = pd.Series(learn.recorder.losses[self.n_steps :])
        smooth = losses.ewm(span=max(5, len(losses) / 20)).mean()
        ax.plot(losses.index + 1, losses, color="tab:blue", alpha=0.25)
        ax.plot(losses.index + 1, smooth, color="tab:blue", label="train, smoothed")
        ends = [end - self.n_steps for end in learn.recorder.epoch_ends[self.n_epochs :]]
        valid = [row.get("valid_loss") for row in learn.recorder.rows[self.n_epochs :]]
        if any(value is not None for value in valid):
            ax.plot(ends, valid, "o-", color="tab:orange", label="valid")
        ax.set(
            xlabel="step", ylabel="loss", xlim=(0, max(ends[-1], (learn.data.train_dl.n_batches or 0) * learn.n_epoch))
        )
        ax.legend()
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=80)
        return png.getvalue()
