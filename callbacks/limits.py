"""Shorter fits: fewer steps, less time, fewer batches, or validation more often than once an epoch."""

import time
from itertools import islice
from typing import Any

import pandas as pd

from .core import Callback, CancelFit, CancelTrain

__all__ = ["LimitBatches", "OverfitBatches", "StopAfter", "ValidateEvery"]


class StopAfter(Callback):
    """End the fit after `steps` of the optimizer or after `seconds`: with a last validation, and within the epoch.

    Schedules know of `steps`, and come to their end with it.
    """

    order = 90  # when all others have seen the epoch's end

    def __init__(self, steps: int | None = None, seconds: float | None = None):
        if steps is None and seconds is None:
            raise ValueError("StopAfter(steps=…) or StopAfter(seconds=…): when is the fit to end?")
        self.steps, self.seconds = steps, seconds

    def before_fit(self, learn: Any) -> None:
        self.start = time.perf_counter()
        total = (learn.n_iter or 0) * learn.n_epoch
        if self.steps and not 0 < total < self.steps:
            learn.max_steps = self.steps

    def after_batch(self, learn: Any) -> None:
        if learn.training and self._over(learn):
            raise CancelTrain

    def after_epoch(self, learn: Any) -> None:
        if self._over(learn):
            raise CancelFit

    def _over(self, learn: Any) -> bool:
        too_long = self.seconds is not None and time.perf_counter() - self.start >= self.seconds
        return too_long or (self.steps is not None and learn.n_steps >= self.steps)


class LimitBatches(Callback):
    """Read only the first `train` batches of an epoch, and the first `valid` of a validation; None: all.

    The epochs are shorter, and schedules know it. Training still shuffles, so each epoch has other batches.
    """

    order = -90

    def __init__(self, train: int | None = None, valid: int | None = None):
        self.limits = (train, valid)

    def before_fit(self, learn: Any) -> None:
        for dl, limit in zip(learn.data.dls, self.limits, strict=False):
            if dl is not None:
                dl.limit = limit

    def after_fit(self, learn: Any) -> None:
        for dl in filter(None, learn.data.dls[:2]):
            dl.limit = None

    after_cancel_fit = after_fit


class OverfitBatches(Callback):
    """Train on the same first `n` batches every epoch, and validate on them.

    A model that cannot learn these by heart, or data whose labels are wrong, will not do better on more.
    """

    order = -90

    def __init__(self, n: int = 1):
        if n < 1:
            raise ValueError(f"n={n}: the number of batches to learn by heart, at least 1.")
        self.n = n

    def before_fit(self, learn: Any) -> None:
        batches = list(islice(learn.data.train_dl, self.n))
        for dl in filter(None, learn.data.dls[:2]):
            dl.replay = batches

    def after_fit(self, learn: Any) -> None:
        for dl in filter(None, learn.data.dls[:2]):
            dl.replay = None

    after_cancel_fit = after_fit


class ValidateEvery(Callback):
    """Validate every `steps` steps of the optimizer, too; `history` has a row for each time, with its `step`."""

    order = 80
    real_runs_only = True

    def __init__(self, steps: int):
        if steps < 1:
            raise ValueError(f"steps={steps}: the number of steps between validations, at least 1.")
        self.steps, self.done = steps, 0
        self.rows: list[dict[str, Any]] = []

    def before_fit(self, learn: Any) -> None:
        self.done = 0

    def after_batch(self, learn: Any) -> None:
        if learn.training and learn.n_steps >= self.done + self.steps:
            self.done = learn.n_steps
            losses = {"train_loss": learn.recorder.mean_loss(learn.recorder.first_step)}
            self.rows.append({"step": learn.n_steps, **losses, **learn.validate()})

    @property
    def history(self) -> pd.DataFrame:
        """A row per validation: `step, train_loss` (of the epoch so far), `valid_loss` and the metrics."""
        return pd.DataFrame(self.rows)
