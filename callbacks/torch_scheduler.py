"""PyTorch's own learning rate schedulers."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .core import Callback
from .plain import plain
from .schedule import ParamScheduler

__all__ = ["TorchScheduler"]


class TorchScheduler(Callback):
    """Let a scheduler of `torch.optim.lr_scheduler` set the hyper-parameters.

    `scheduler` makes one for an optimizer, `partial(StepLR, step_size=1)`, anew for each fit and from that fit's
    learning rate; what it does to momentum is undone after the fit. Or it is one, made for `learn.opt`, which goes on
    from fit to fit. It is stepped `per` "batch" – after each step of the optimizer, so neither accumulated batches nor
    steps skipped in half precision count – or per "epoch", or each time that `every` of them have passed. One that
    steps by a result, torch's `ReduceLROnPlateau`, gets the epoch's `monitor`.

    For `learn.fit`: with another schedule of the learning rate, as `fit_one_cycle` has one, the fit raises ValueError.
    """

    order = -5  # after the recorder has the epoch's results
    real_runs_only = True
    state_names = ("count", "before")

    def __init__(self, scheduler: Callable[[Optimizer], LRScheduler] | LRScheduler,
                 per: Literal["batch", "epoch"] = "batch", monitor: str = "valid_loss", every: int = 1):  # fmt: skip
        if not callable(scheduler) and not isinstance(scheduler, LRScheduler):
            raise TypeError(f"{scheduler!r} is no scheduler of torch, nor a function that makes one for an optimizer.")
        if per not in ("batch", "epoch"):
            raise ValueError(f"per={per!r}: a scheduler steps per 'batch' or per 'epoch'.")
        if every < 1:
            raise ValueError(f"every={every}: a scheduler steps each time that so many have passed, at least 1.")
        self.scheduler, self.per, self.monitor, self.every, self.count = scheduler, per, monitor, every, 0
        self.current: Any = None  # the scheduler of this fit
        self.before: list[dict[str, Any]] = []  # of each parameter group, all hyper-parameters but the learning rate

    def before_fit(self, learn: Any) -> None:
        self.current = self._made(learn.opt) if callable(self.scheduler) else self._resumed(learn.opt)
        if isinstance(self.current, ReduceLROnPlateau) and self.per == "batch":
            raise ValueError("ReduceLROnPlateau goes by the results of an epoch: TorchScheduler(…, per='epoch').")
        for cb in learn.cbs:
            self._check_alone(cb, learn)

    def _check_alone(self, cb: Callback, learn: Any) -> None:
        """Raise ValueError where another callback schedules the learning rate of the same optimizer."""
        if isinstance(cb, ParamScheduler) and "lr" in cb.scheds:
            raise ValueError(
                "This fit has another schedule of the learning rate, which would undo what TorchScheduler does before "
                "each batch: use learn.fit, without a ParamScheduler of 'lr', or leave TorchScheduler out."
            )
        if not isinstance(cb, TorchScheduler) or cb is self or cb.current is None:
            return
        own = learn.system.schedulers if learn.system else []  # a system may mean its to go together
        if cb.current.optimizer is self.current.optimizer and not (cb in own and self in own):
            raise ValueError(
                f"Two TorchSchedulers, of {type(cb.current).__name__} and {type(self.current).__name__}, would both "
                "set the learning rate of one optimizer: pass one. Torch's SequentialLR and ChainedScheduler put "
                "several together."
            )

    def _made(self, opt: Any) -> LRScheduler:
        """A scheduler for this fit, which starts from the optimizer's learning rates."""
        for group in opt.param_groups:
            group.pop("initial_lr", None)  # of an earlier scheduler
        self.before = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in opt.param_groups]
        self.count, scheduler = 0, self.scheduler(opt)  # type: ignore[operator]
        if not isinstance(scheduler, LRScheduler):
            raise TypeError(f"scheduler(opt) returned {type(scheduler).__name__}, not an LRScheduler of torch.")
        return scheduler

    def _resumed(self, opt: Any) -> Any:
        """The scheduler that was given, its learning rates as it left them."""
        scheduler: Any = self.scheduler
        if not any(scheduler.optimizer is own for own in getattr(opt, "optimizers", [opt])):
            raise ValueError(
                "This scheduler was made for another optimizer than learn.opt. Pass what makes it, and it is made "
                "for each fit: TorchScheduler(partial(StepLR, step_size=1))."
            )
        for group, lr in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = lr
        return scheduler

    def state_dict(self) -> dict[str, Any]:
        """Raises TypeError for a scheduler that goes by something that cannot be saved."""
        own = self._own()
        scheduler = None if own is None else _state(own.state_dict(), type(own).__name__)
        return {**super().state_dict(), "scheduler": scheduler}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if (own := self._own()) is not None:  # one that is made for each fit is there from before_fit on
            own.load_state_dict(plain(state["scheduler"], "scheduler"))  # a copy, as some take it apart

    def _own(self) -> Any:
        return self.current if callable(self.scheduler) else self.scheduler

    def after_step(self, learn: Any) -> None:
        if self.per == "batch":
            self._step(learn)

    def after_epoch(self, learn: Any) -> None:
        if self.per == "epoch":
            self._step(learn)

    def _step(self, learn: Any) -> None:
        self.count += 1
        if self.count % self.every:
            return
        if isinstance(self.current, ReduceLROnPlateau):
            self.current.step(learn.recorder.monitored(self.monitor))
        else:
            self.current.step()

    def after_fit(self, learn: Any) -> None:
        for group, values in zip(learn.opt.param_groups, self.before, strict=False):
            for key in set(group) - set(values) - {"params", "lr"}:  # what the scheduler noted there
                del group[key]
            group.update(values)
        self.before = []

    after_cancel_fit = after_fit

    def values(self, n: int, lr: float = 1e-3) -> list[float]:
        """The learning rates of `n` steps that start from `lr`. ValueError where the scheduler goes by results."""
        if not callable(self.scheduler):
            raise ValueError("A scheduler that exists can only be run once: pass what makes it to look at it first.")
        opt = SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
        scheduler = self.scheduler(opt)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError("What ReduceLROnPlateau does depends on the results: there is nothing to show in advance.")
        lrs = []
        for _ in range(n):
            lrs.append(opt.param_groups[0]["lr"])
            opt.step()
            scheduler.step()
        return lrs


def _state(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A scheduler's state without what does not change: functions and MultiStepLR's milestones, which are not plain."""
    kept = {key: value for key, value in state.items() if not inspect.isroutine(value) and key != "milestones"}
    inner = [_state(part, f"{name}._schedulers[{i}]") for i, part in enumerate(kept.pop("_schedulers", []))]
    return plain(kept, name) | ({"_schedulers": inner} if inner else {})
