"""Thawing a frozen model while it trains."""

import warnings
from typing import Any

from .core import Callback

__all__ = ["Unfreeze"]


class Unfreeze(Callback):
    """Train all layer groups from the beginning of epoch `at` (counted from 0 in each fit); they stay thawed.

        learn.freeze()
        learn.fit_one_cycle(5, slice(1e-5, 1e-3), cbs=Unfreeze(at=1))

    The optimizer has held the frozen parameters all along; a schedule goes on as it was.
    """

    order = -30
    real_runs_only = True

    def __init__(self, at: int):
        if at < 0:
            raise ValueError(f"at={at}: the epoch from which all layers train, 0 or more.")
        self.at = at

    def before_fit(self, learn: Any) -> None:
        if self.at >= learn.n_epoch:
            warnings.warn(
                f"Unfreeze(at={self.at}) does nothing in this fit, whose last epoch is {learn.n_epoch - 1}.",
                stacklevel=2,
            )

    def before_epoch(self, learn: Any) -> None:
        if learn.epoch == self.at:
            learn.unfreeze()
