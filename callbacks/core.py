"""Callbacks: classes whose methods are named after the events of training, each taking the learner.

    class PrintLoss(Callback):
        def after_loss(self, learn): print(learn.iter, learn.loss.item())

    learn.fit(1, cbs=PrintLoss())

A callback may read and change `learn.model, data, dl, opt, xb, yb, pred, loss`, read `learn.epoch, n_epoch, iter,
n_iter, train_iter, n_steps, pct_train, training`, and end a stage by raising its `Cancel…` exception. The learner
resolves once, when a fit begins, which callbacks hear which event.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from .plain import plain

__all__ = ["EVENTS", "Callback", "CancelBackward", "CancelBatch", "CancelEpoch", "CancelFit", "CancelStep",
           "CancelTrain", "CancelValidate", "Handler", "handlers"]  # fmt: skip


class CancelBatch(Exception):
    """Leave out the rest of this batch."""


class CancelBackward(Exception):
    """Leave out the backward pass of this batch."""


class CancelStep(Exception):
    """Leave out the optimizer's step, and keep the gradients."""


class CancelTrain(Exception):
    """Leave out the rest of this epoch's training."""


class CancelValidate(Exception):
    """Leave out the rest of this epoch's validation."""


class CancelEpoch(Exception):
    """Leave out the rest of this epoch."""


class CancelFit(Exception):
    """End this fit."""


STAGES = ("fit", "epoch", "train", "validate", "batch", "backward", "step")
EVENTS = (
    "after_create",
    *(f"{when}_{stage}" for stage in STAGES for when in ("before", "after", "after_cancel")),
    "after_pred",
    "after_loss",
)
Handler = Callable[[Any], None]


class Callback:
    """Base of all callbacks: define methods named after `EVENTS`, each taking the learner.

    In each event callbacks run by `order`, smaller first; equal ones in the order they were added. A stage that is
    cancelled – by its exception, Ctrl-C or an error – runs `after_cancel_<stage>` so that things can be put back, and
    if it was its exception `after_<stage>` too, but for `after_step`: that means that the optimizer has stepped.
    `after_create` is told when a learner gets the callback.
    """

    order: int = 0
    orders: Mapping[str, int] = MappingProxyType({})  # in single events, where it is another
    real_runs_only: bool = False  # left out where nothing may be kept or decided: in lr_find and a dry run
    rank0_only: bool = False  # of several processes the first alone has it: for files and what is shown
    state_names: tuple[str, ...] = ()  # attributes that change in a fit, and that one which resumes goes on with

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name, method in vars(cls).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                _check_event(f"{cls.__name__}.{name}", name, method)

    def __repr__(self) -> str:
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """What a fit that resumes needs to know: plain values and tensors, by default the attributes `state_names`.

        It is asked for between two steps, in the middle of an epoch or after one. Raises TypeError for another value.
        """
        return {name: plain(getattr(self, name), f"{type(self).__name__}.{name}") for name in self.state_names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, whose tensors are on the learner's device.

        A fit that resumes calls this before anybody hears `before_fit`, again after that, and once more where it
        resumes within an epoch, after `before_train`: so what these events set is replaced.
        """
        for name in self.state_names:
            setattr(self, name, plain(state[name], name))  # lists of its own, which may grow before the next time


def _check_event(where: str, name: str, method: Callable) -> None:
    """Raise TypeError for a method that looks like an event but is none, or that does not take the learner."""
    if name in EVENTS:
        try:
            inspect.signature(method).bind("self", "learn")
        except TypeError as error:
            raise TypeError(f"{where} must take the learner, def {name}(self, learn): {error}.") from None
    elif close := difflib.get_close_matches(name, EVENTS, n=1, cutoff=0.85):
        raise TypeError(f"{where} is not an event: did you mean {close[0]}?")
    elif found := re.fullmatch(r"on_(?:train_|fit_)?(epoch|batch|train|fit|validation)_(begin|start|end)", name):
        stage = {"train": "fit", "validation": "validate"}.get(found[1], found[1])
        when = "after" if found[2] == "end" else "before"
        raise TypeError(f"{where} is not an event: it is called {when}_{stage} here, def {when}_{stage}(self, learn).")
    elif name.startswith(("before_", "after_")):
        raise TypeError(f"{where} is not an event: events are {', '.join(EVENTS)}.")


def handlers(cbs: Iterable[Callback]) -> dict[str, tuple[Handler, ...]]:
    """For each event the bound methods that hear it, in order. An event set to None is not heard."""
    cbs = tuple(cbs)
    usual = sorted(cbs, key=lambda cb: cb.order)
    special = {event for cb in cbs for event in cb.orders}

    def ordered(event: str) -> list[Callback]:
        return sorted(cbs, key=lambda cb: cb.orders.get(event, cb.order)) if event in special else usual

    return {event: tuple(filter(None, (getattr(cb, event, None) for cb in ordered(event)))) for event in EVENTS}
