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
    state_names = ("epoch",)

    def __init__(self, sizes: Mapping[int, int]):
        if not sizes or not all(_is_whole(epoch, 0) and _is_whole(bs, 1) for epoch, bs in sizes.items()):
            raise ValueError(f"{sizes!r} are no batch sizes by epoch: as in {{0: 16, 2: 64}}, epochs count from 0.")
        self.sizes = dict(sizes)
        self.data: Any = None
        self.own: Any = None  # the data's loader
        self.to_come: dict[int, Any] = {}  # loaders by the epoch that they begin with
        self.epoch = 0  # that the loader in use is for

    def before_fit(self, learn: Any) -> None:
        self.data, self.own = learn.data, learn.data.train_dl
        self.to_come = {epoch: self.own.with_bs(bs) for epoch, bs in self.sizes.items()}
        self._begin_epoch(0)

    def after_epoch(self, learn: Any) -> None:
        self._begin_epoch(learn.epoch + 1)

    def _begin_epoch(self, epoch: int) -> None:
        self.epoch, self.data.dls[0] = epoch, self.to_come.pop(epoch, self.data.train_dl)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        while self.own is not None and self.epoch < state["epoch"]:
            self._begin_epoch(self.epoch + 1)

    def after_fit(self, learn: Any) -> None:
        if self.own is not None:
            self.data.dls[0] = self.own
        self.data, self.own, self.to_come = None, None, {}

    after_cancel_fit = after_fit


def _is_whole(n: Any, least: int) -> bool:
    return isinstance(n, Integral) and int(n) >= least
