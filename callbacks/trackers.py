"""Callbacks that follow a result and act on it: stop, save the best, lower the learning rate; and stop at a NaN.

    learn.fit_one_cycle(20, cbs=[SaveModel("accuracy"), EarlyStopping("valid_loss", patience=3)])

What is monitored is a column of `learn.recorder.history`; how it is compared is in `monitor.py`. Each fit begins anew.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .core import Callback, CancelFit
from .monitor import Comparison, Monitor
from .schedule import ParamScheduler
from .torch_scheduler import TorchScheduler

__all__ = ["EarlyStopping", "ReduceLROnPlateau", "SaveModel", "TerminateOnNaN"]


class _Following(Callback):
    """Has a monitor, which a fit that resumes goes on with."""

    real_runs_only = True
    monitor: Monitor

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "monitor": self.monitor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.monitor.load_state_dict(state["monitor"])


class EarlyStopping(_Following):
    """End the fit once `monitor` has not improved for `patience` epochs, and say so below the progress table.

    `comp` and `min_delta` as in `Monitor`. Weights are those of the last epoch; `SaveModel` loads the best.
    """

    order = 90  # when all others have seen the epoch's end

    def __init__(self, monitor: str = "valid_loss", comp: Comparison | None = None, min_delta: float = 0.0,
                 patience: int = 1):  # fmt: skip
        self.monitor, self.patience = Monitor(monitor, comp, min_delta), _checked_patience(patience)

    def before_fit(self, learn: Any) -> None:
        self.monitor.start(learn)

    def after_epoch(self, learn: Any) -> None:
        self.monitor.update(learn)
        if self.monitor.n_worse >= self.patience:
            _say(learn, f"{_no_improvement(self.monitor)}: the fit ends early.")
            raise CancelFit


class SaveModel(_Following):
    """Save the model whenever `monitor` improves, and load the best one back when the fit ends.

    `comp` and `min_delta` as in `Monitor`. Files are those of `learn.save(fname)`, with the optimizer's state if
    `with_opt`. `every_epoch` – or every so many, `every_epoch=5` – saves whatever the results, as `fname_{epoch}`, by
    the epoch's number in the history; `at_end` saves what the fit ends with; neither loads anything. A fit that a
    callback ends gets its best model, too. One that fails or is interrupted keeps the weights it has, and the file.
    """

    order = 60
    state_names = ("saved",)

    def __init__(self, monitor: str = "valid_loss", comp: Comparison | None = None, min_delta: float = 0.0,
                 fname: str | Path = "model", every_epoch: bool | int = False, at_end: bool = False,
                 with_opt: bool = False):  # fmt: skip
        if every_epoch < 0:
            raise ValueError(f"every_epoch={every_epoch}: True, or the number of epochs between two files.")
        self.monitor, self.fname = Monitor(monitor, comp, min_delta), str(fname).removesuffix(".pth")
        self.every_epoch, self.at_end, self.with_opt = int(every_epoch), at_end, with_opt
        self.saved = False  # a best model, in this fit

    def before_fit(self, learn: Any) -> None:
        self.saved = False
        if not self.every_epoch:
            self.monitor.start(learn)
        if any(self._rivals(cb) for cb in learn.cbs):
            raise ValueError(f"Two SaveModel callbacks write to {self.fname!r}: give each its own fname.")

    def _rivals(self, cb: Callback) -> bool:
        """Whether another callback writes to the same files."""
        if cb is self or not isinstance(cb, SaveModel):
            return False
        return cb.fname == self.fname and (cb.every_epoch > 0) == (self.every_epoch > 0)

    def after_epoch(self, learn: Any) -> None:
        if self.every_epoch:
            self._save_every(learn, learn.recorder.rows[-1]["epoch"])
        elif self.monitor.update(learn):
            learn.save(self.fname, self.with_opt)
            self.saved = True

    def _save_every(self, learn: Any, epoch: int) -> None:
        if (epoch + 1) % self.every_epoch == 0:
            name = self.fname.removesuffix(".pt")
            learn.save(f"{name}_{epoch}{self.fname[len(name) :]}", self.with_opt)

    def after_fit(self, learn: Any) -> None:
        if self.at_end:
            learn.save(self.fname, self.with_opt)
        elif self.saved:
            self._load_best(learn)
        self.saved = False

    def _load_best(self, learn: Any) -> None:
        """Load it, but for hyper-parameters, which a schedule may have had half-way, and the number of epochs begun."""
        hypers = [{k: v for k, v in group.items() if k != "params"} for group in learn.opt.param_groups]
        epochs_begun = learn.epochs_begun
        learn.load(self.fname, self.with_opt)
        learn.epochs_begun = epochs_begun  # so that a further fit shuffles anew
        for group, values in zip(learn.opt.param_groups, hypers, strict=True):
            group.update(values)


class ReduceLROnPlateau(_Following):
    """Divide the learning rates by `factor` whenever `monitor` has not improved for `patience` epochs.

    They go no lower than `min_lr`, and stay reduced for the rest of the fit. For `learn.fit`: a schedule sets the
    learning rate by itself, so with one there is a warning. `comp` and `min_delta` as in `Monitor`.
    """

    order = 60

    def __init__(self, monitor: str = "valid_loss", comp: Comparison | None = None, min_delta: float = 0.0,
                 patience: int = 1, factor: float = 10.0, min_lr: float = 0.0):  # fmt: skip
        if factor <= 1:
            raise ValueError(f"factor={factor}: what the learning rate is divided by, more than 1.")
        self.monitor, self.patience = Monitor(monitor, comp, min_delta), _checked_patience(patience)
        self.factor, self.min_lr = factor, min_lr

    def before_fit(self, learn: Any) -> None:
        self.monitor.start(learn)
        if others := [cb for cb in learn.cbs if _sets_lr(cb)]:
            warnings.warn(
                f"{others[0]} sets the learning rate in this fit, so what ReduceLROnPlateau does to it will be undone: "
                "use learn.fit, without a schedule.",
                stacklevel=2,
            )

    def after_epoch(self, learn: Any) -> None:
        self.monitor.update(learn)
        if self.monitor.n_worse >= self.patience:
            self._reduce(learn)
            self.monitor.n_worse = 0

    def _reduce(self, learn: Any) -> None:
        groups = learn.opt.param_groups
        before = [group["lr"] for group in groups]
        for group, lr in zip(groups, before, strict=True):
            group["lr"] = max(lr / self.factor, min(lr, self.min_lr))
        if groups[-1]["lr"] < before[-1]:
            _say(learn, f"{_no_improvement(self.monitor)}: the learning rate is now {groups[-1]['lr']:.3g}.")


class TerminateOnNaN(Callback):
    """End the fit at a training loss that is NaN or infinite, before the weights are updated with it, and warn.

    On an accelerator the loss is looked at when the backward pass is under way, so that the device has work while we
    wait. With `GradientAccumulation` the batches before it, since the last step, are lost too.
    """

    order = 60
    real_runs_only = True

    def __init__(self):
        self.is_finite: Any = True
        self.arrival: Any = None  # of `is_finite` on the CPU, where that takes time

    def after_loss(self, learn: Any) -> None:
        if learn.training:
            loss = learn.loss.detach()
            self.is_finite, self.arrival = loss.isfinite().all().to("cpu", non_blocking=True), _event(loss.device)

    def after_backward(self, learn: Any) -> None:
        if self.arrival is not None:
            self.arrival.synchronize()
        if not self.is_finite:
            own = learn.loss if learn.own_loss is None else learn.own_loss
            ranks = learn.ranks.where(not own.isfinite().all())
            where = f" on rank {', '.join(map(str, ranks))}" if learn.ranks.n > 1 else ""
            warnings.warn(
                f"The loss is not finite in batch {learn.iter} of epoch {learn.epoch}{where}, at a learning rate of "
                f"{learn.opt.param_groups[-1]['lr']:.3g}: the fit ends, with the weights from before this batch. "
                "DetectAnomaly() names the layer or the item that it comes from.",
                stacklevel=2,
            )
            raise CancelFit


def _event(device: torch.device) -> Any:
    """What can be waited for until the device has done all that it has been asked to by now; None for the CPU."""
    if device.type == "cpu":
        return None
    event = getattr(torch, device.type).Event()
    event.record()
    return event


def _checked_patience(patience: int) -> int:
    if patience < 1:
        raise ValueError(f"patience={patience}: the number of epochs to wait for an improvement, at least 1.")
    return patience


def _sets_lr(cb: Callback) -> bool:
    return isinstance(cb, TorchScheduler) or (isinstance(cb, ParamScheduler) and "lr" in cb.scheds)


def _no_improvement(monitor: Monitor) -> str:
    n = monitor.n_worse
    best = "" if monitor.best is None else f" on {monitor.best:.6g}"
    return f"{monitor.name} has not improved{best} for {n} epoch{'s' if n > 1 else ''}"


def _say(learn: Any, sentence: str) -> None:
    """Print a line below the progress table, once for all processes; nothing where that is switched off."""
    if learn.progress.table and learn.ranks.rank == 0:
        if learn.progress.display:
            learn.progress.display.close()  # the moving line of a terminal, which is drawn again
        print(sentence, flush=True)
