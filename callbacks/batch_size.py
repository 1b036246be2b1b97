"""Batches that grow in the course of a fit."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from .core import Callback

__all__ = ["BatchSizeSchedule"]


class BatchSizeSchedule(Callback):
    """Train with another batch size from an epoch on: `BatchSizeSchedule({0: 16, 2: 64})`.

    Larger batches late do what a lower learning rate does, in fewer steps (Smith et al. 2018, "Don't decay the learning
    rate, increase the batch size", arXiv:1711.00489). The items of an epoch come in the order they would have anyway;
    until the first epoch that is named the batches are the data's own, and after the fit again.
    """

    order = -80  # after LimitBatches and OverfitBatches, whose limits the loaders take over
    real_runs_only = True

    def __init__(self, sizes: Mapping[int, int]):
        if not sizes or not all(_is_whole(epoch, 0) and _is_whole(bs, 1) for epoch, bs in sizes.items()):
            raise ValueError(f"{sizes!r} are no batch sizes by epoch: as in {{0: 16, 2: 64}}, epochs count from 0.")
        self.sizes = dict(sizes)
        self.own: Any = None  # the data's loader
        self.to_come: dict[int, Any] = {}  # loaders by the epoch that they begin with

    def before_fit(self, learn: Any) -> None:
        self.own = learn.data.train_dl
        self.to_come = {epoch: self.own.with_bs(bs) for epoch, bs in self.sizes.items()}
        self._begin_epoch(learn, 0)

    def after_epoch(self, learn: Any) -> None:
        self._begin_epoch(learn, learn.epoch + 1)

    def _begin_epoch(self, learn: Any, epoch: int) -> None:
        learn.data.dls[0] = self.to_come.pop(epoch, learn.data.train_dl)

    def after_fit(self, learn: Any) -> None:
        if self.own is not None:
            learn.data.dls[0] = self.own
        self.own, self.to_come = None, {}

    after_cancel_fit = after_fit


def _is_whole(n: Any, least: int) -> bool:
    return isinstance(n, Integral) and int(n) >= least
