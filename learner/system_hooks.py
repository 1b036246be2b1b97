"""What a system may have called and may read: Lightning's hooks and the trainer's facts, by their names there."""

import math
from typing import Any

from ..callbacks.core import Callback
from ..data.batch import join_batch

__all__ = ["SystemHooks", "TrainerView"]


class SystemHooks(Callback):
    """Calls a system's hooks, those that it has."""

    order = -13  # when an epoch ends, before what it logs is collected

    def before_fit(self, learn: Any) -> None:
        _call(learn, "on_fit_start")
        _call(learn, "on_train_start")

    def before_train(self, learn: Any) -> None:
        _call(learn, "on_train_epoch_start")

    def after_train(self, learn: Any) -> None:
        _call(learn, "on_train_epoch_end")

    def before_validate(self, learn: Any) -> None:
        _call(learn, "on_validation_start")
        _call(learn, "on_validation_epoch_start")

    def after_validate(self, learn: Any) -> None:
        _call(learn, "on_validation_epoch_end")
        _call(learn, "on_validation_end")

    def before_batch(self, learn: Any) -> None:
        if learn.system:
            stage = "train" if learn.training else "validation"
            _call(learn, f"on_{stage}_batch_start", join_batch(learn.xb, learn.yb, learn.batch), learn.iter)

    def after_batch(self, learn: Any) -> None:
        if learn.system:
            stage = "train" if learn.training else "validation"
            _call(learn, f"on_{stage}_batch_end", learn.pred, join_batch(learn.xb, learn.yb, learn.batch), learn.iter)

    def after_backward(self, learn: Any) -> None:
        _call(learn, "on_after_backward")

    def before_step(self, learn: Any) -> None:
        _call(learn, "on_before_optimizer_step", learn.opt)

    def after_step(self, learn: Any) -> None:
        _call(learn, "on_before_zero_grad", learn.opt)

    def after_fit(self, learn: Any) -> None:
        _call(learn, "on_train_end")
        _call(learn, "on_fit_end")


def _call(learn: Any, hook: str, *args: Any) -> None:
    if learn.system and callable(function := getattr(learn.model, hook, None)):
        function(*args)


class TrainerView:
    """What a system may read of its trainer."""

    sanity_checking, logger, datamodule = False, None, None

    def __init__(self, learn: Any):
        self.learn = learn

    def __getattr__(self, name: str) -> Any:
        known = [key for key in (*vars(type(self)), "learn") if not key.startswith("_")]
        raise AttributeError(f"a Learner, unlike a Trainer, has no {name!r} to read: it has {sorted(known)}.")

    @property
    def global_rank(self) -> int:
        return self.learn.ranks.rank

    @property
    def world_size(self) -> int:
        return self.learn.ranks.n

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0

    @property
    def current_epoch(self) -> int:
        return self.learn.epoch

    @property
    def global_step(self) -> int:
        return self.learn.n_steps

    @property
    def max_epochs(self) -> int:
        return self.learn.n_epoch

    @property
    def max_steps(self) -> int:
        """-1 where the fit is not limited by steps."""
        return self.learn.max_steps or -1

    @property
    def num_training_batches(self) -> int | float:
        n = self.learn.data.train_dl.n_batches
        return float("inf") if n is None else n

    @property
    def estimated_stepping_batches(self) -> int | float:
        return min(self.learn.max_steps or math.inf, self.num_training_batches * self.learn.n_epoch)

    @property
    def optimizers(self) -> list:
        return getattr(self.learn.opt, "optimizers", [self.learn.opt])

    @property
    def training(self) -> bool:
        return self.learn.training

    @property
    def callback_metrics(self) -> dict[str, float]:
        """The results of the last validation."""
        return dict(self.learn.results)
