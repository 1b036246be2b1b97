"""Callbacks: classes whose methods are named after the events of training, each taking the learner.

    class PrintLoss(Callback):
        def after_loss(self, learn): print(learn.iter, learn.loss.item())

    learn.fit(1, cbs=PrintLoss())

A callback may read and change `learn.model, data, dl, opt, xb, yb, pred, loss`, read `learn.epoch, n_epoch, iter, n_iter,
train_iter, pct_train, training`, and end a stage by raising its `Cancel…` exception. The learner resolves once, when a
fit begins, which callbacks hear which event.
"""

import difflib
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["EVENTS", "Callback", "CancelBackward", "CancelBatch", "CancelEpoch", "CancelFit", "CancelStep", "CancelTrain",
           "CancelValidate", "handlers"]  # fmt: skip


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


class Callback:
    """Base of all callbacks: define methods named after `EVENTS`, each taking the learner.

    In each event callbacks run by `order`, smaller first; equal ones in the order they were added. A stage that is
    cancelled – by its exception, Ctrl-C or an error – runs `after_cancel_<stage>` so that things can be put back.
    """

    order: int = 0

    def __init_subclass__(cls):
        for name in vars(cls):
            if name.startswith(("before_", "after_")) and name not in EVENTS:
                close = difflib.get_close_matches(name, EVENTS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"events are {', '.join(EVENTS)}."
                raise TypeError(f"{cls.__name__}.{name} is not an event: {hint}")

    def __repr__(self) -> str:
        return type(self).__name__


def handlers(cbs: Iterable[Callback]) -> dict[str, tuple[Callable[[Any], None], ...]]:
    """For each event the bound methods that hear it, in order."""
    ordered = sorted(cbs, key=lambda cb: cb.order)
    return {event: tuple(getattr(cb, event) for cb in ordered if hasattr(cb, event)) for event in EVENTS}
