"""Shorter fits: fewer steps, less time, fewer batches, or validation more often than once an epoch."""

import time
from collections.abc import Mapping
from itertools import islice
from numbers import Integral
from typing import Any

from .core import Callback, CancelFit, CancelTrain

__all__ = ["LimitBatches", "OverfitBatches", "StopAfter", "ValidateEvery"]


class StopAfter(Callback):
    """End the fit after `steps` of the optimizer or after `seconds`: with a last validation, and within the epoch.

    Schedules know of `steps`, and come to their end with it. A fit that resumes goes on counting; several processes end
    together, when the first of them has had its time.
    """

    order = 90  # when all others have seen the epoch's end
    real_runs_only = True

    def __init__(self, steps: int | None = None, seconds: float | None = None):
        if steps is None and seconds is None:
            raise ValueError("StopAfter(steps=…) or StopAfter(seconds=…): when is the fit to end?")
        if steps is not None:
            _check_count("steps", steps, "steps until the fit ends")
        if seconds is not None and not seconds > 0:
            raise ValueError(f"seconds={seconds}: the time until the fit ends, more than 0.")
        self.steps, self.seconds, self.start = steps, seconds, 0.0

    def before_fit(self, learn: Any) -> None:
        self.start = time.perf_counter()
        learn.max_steps = self.steps

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": time.perf_counter() - self.start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.start = time.perf_counter() - state["elapsed"]

    def after_batch(self, learn: Any) -> None:
        if learn.training and self._over(learn):
            raise CancelTrain

    def after_epoch(self, learn: Any) -> None:
        if self._over(learn):
            raise CancelFit

    def _over(self, learn: Any) -> bool:
        if self.steps is not None and learn.n_steps >= self.steps:
            return True
        return self.seconds is not None and learn.ranks.any(time.perf_counter() - self.start >= self.seconds)


class LimitBatches(Callback):
    """Read only the first `train` batches of an epoch, and the first `valid` of a validation; None: all.

    The epochs are shorter, and schedules know it. Training still shuffles, so each epoch has other batches.
    """

    order = -90
    real_runs_only = True

    def __init__(self, train: int | None = None, valid: int | None = None):
        for name, n in {"train": train, "valid": valid}.items():
            if n is not None:
                _check_count(name, n, "batches to read, if not all,")
        self.limits = train, valid
        self.before: list[tuple[Any, int | None]] = []  # loaders and the limits that they had

    def before_fit(self, learn: Any) -> None:
        if any(isinstance(cb, LimitBatches) and cb is not self for cb in learn.cbs):
            raise ValueError("Two LimitBatches in one fit contradict each other: leave it to one, or to n_batches=.")
        for dl, limit in zip(learn.data.dls, self.limits, strict=False):
            if dl is not None and limit is not None:
                self.before.append((dl, dl.limit))
                dl.limit = limit

    def after_fit(self, learn: Any) -> None:
        for dl, limit in self.before:
            dl.limit = limit
        self.before = []

    after_cancel_fit = after_fit


class OverfitBatches(Callback):
    """Train on the same `n` batches every epoch, the first of epoch 0, and validate on them.

    A model that cannot learn these by heart, or data whose labels are wrong, will not do better on more.
    """

    order = -90
    real_runs_only = True

    def __init__(self, n: int = 1):
        _check_count("n", n, "batches to learn by heart")
        self.n = n
        self.loaders: list[Any] = []

    def before_fit(self, learn: Any) -> None:
        learn.data.train_dl.set_epoch(0)
        batches = list(islice(learn.data.train_dl, self.n))
        self.loaders = [dl for dl in learn.data.dls[:2] if dl is not None]
        for dl in self.loaders:
            dl.replay = batches

    def after_fit(self, learn: Any) -> None:
        for dl in self.loaders:
            dl.replay = None
        self.loaders = []

    after_cancel_fit = after_fit


class ValidateEvery(Callback):
    """Validate every `steps` steps of the optimizer, too: `learn.recorder.step_history` has a row for each time."""

    order = 80
    real_runs_only = True
    state_names = ("done",)

    def __init__(self, steps: int):
        _check_count("steps", steps, "steps between validations")
        self.steps, self.done = steps, 0

    def before_fit(self, learn: Any) -> None:
        if learn.data.valid_dl is None:
            raise ValueError("ValidateEvery has nothing to validate on: the data has no validation set.")
        self.done = 0

    def after_batch(self, learn: Any) -> None:
        if learn.training and learn.n_steps >= self.done + self.steps:
            self.done = learn.n_steps
            learn.recorder.note_validation(learn.n_steps, learn.validate())


def _check_count(name: str, n: Any, meaning: str) -> None:
    """Raise ValueError unless `n` is a whole number from 1 on."""
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"{name}={n!r}: the number of {meaning} is a whole number, 1 or more.")
