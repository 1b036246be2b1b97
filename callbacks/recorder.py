"""Recording what happens in training; how it is read and drawn is in `records.py`."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from .core import Callback, CancelFit
from .records import Records

__all__ = ["Recorder"]


class Recorder(Records, Callback):
    """Records every training step and epoch, over all fits of the learner: see `Records` for what, and how it is read.

    `epoch` counts over all fits, too. The loss is that of the batch, before it is scaled or accumulated.
    """

    order = -10
    real_runs_only = True
    state_names = ("rows", "step_rows", "epoch_ends", "first_step")

    def __init__(self):
        super().__init__()
        self.start = time.perf_counter()  # of the epoch

    def before_epoch(self, learn: Any) -> None:
        self.start, self.first_step = time.perf_counter(), len(self.lrs)

    def after_loss(self, learn: Any) -> None:
        if learn.training:
            group = learn.opt.param_groups[-1]
            self._pending.append(learn.loss.detach())
            self.sizes.append(learn.n_samples)
            self.lrs.append(group["lr"])
            self.moms.append(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))

    def after_epoch(self, learn: Any) -> None:
        row = {"epoch": len(self.rows), "train_loss": self.mean_loss(self.first_step), **learn.results}
        self.rows.append(row | {"time": time.perf_counter() - self.start})
        self.epoch_ends.append(len(self.lrs))

    def after_cancel_epoch(self, learn: Any) -> None:
        if isinstance(sys.exc_info()[1], CancelFit) and learn.results:  # ended by its results: they count
            self.after_epoch(learn)

    def state_dict(self) -> dict[str, Any]:
        """Lists of numbers as tensors: to read a million objects takes seconds."""
        numbers = {"losses": self.losses, "lrs": self.lrs, "moms": self.moms, "sizes": self.sizes}
        tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in numbers.items()}
        return {**super().state_dict(), **tensors, "elapsed": time.perf_counter() - self.start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._losses, self.lrs, self.moms = (state[name].tolist() for name in ("losses", "lrs", "moms"))
        self.sizes, self._pending = state["sizes"].long().tolist(), []
        self.start = time.perf_counter() - state["elapsed"]

    def note_validation(self, step: int, results: Mapping[str, float]) -> None:
        """Keep the results of a validation within an epoch, after so many steps of the fit."""
        train_loss = self.mean_loss(self.first_step)
        self.step_rows.append({"epoch": len(self.rows), "step": step, "train_loss": train_loss, **results})
