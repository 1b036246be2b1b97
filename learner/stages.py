"""Callbacks of a learner, and the stages of training that are announced to them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TypeVar

from ..callbacks import core
from ..callbacks.core import Callback, Handler
from .ranks import Ranks

__all__ = ["Callbacks", "Stages", "as_list", "changed", "failed_handler"]

S = TypeVar("S", bound="Stages")
Callbacks = Callback | Iterable[Callback] | None
CANCEL = {
    "fit": core.CancelFit,
    "epoch": core.CancelEpoch,
    "train": core.CancelTrain,
    "validate": core.CancelValidate,
    "batch": core.CancelBatch,
    "backward": core.CancelBackward,
    "step": core.CancelStep,
}


class Stages:
    """Holds callbacks and runs stages: event, work, event, with a way out for whoever cancels."""

    def __init__(self):
        self.ranks = Ranks()  # the processes that train together
        self.cbs: list[Callback] = []
        self._resolve_handlers()

    def add_cb(self: S, cb: Callback) -> S:
        """Add one callback; returns the learner. Raises TypeError for a class or another object."""
        if not isinstance(cb, Callback):
            hint = f"pass an instance, {cb.__name__}()" if isinstance(cb, type) else "derive your class from Callback"
            raise TypeError(f"{cb!r} is not a callback: {hint}.")
        self.cbs.append(cb)
        for handler in core.handlers([cb])["after_create"]:
            handler(self)
        return self

    def add_cbs(self: S, cbs: Callbacks) -> S:
        """Add one callback or several."""
        for cb in as_list(cbs):
            self.add_cb(cb)
        return self

    def remove_cb(self: S, cb: Callback | type[Callback]) -> S:
        """Remove a callback, or all of a class. Raises ValueError where there is none."""
        kept = [other for other in self.cbs if not (isinstance(other, cb) if isinstance(cb, type) else other is cb)]
        if len(kept) == len(self.cbs):
            raise ValueError(f"this learner has no callback {cb!r}: it has {self.cbs}.")
        self.cbs = kept
        return self

    @contextmanager
    def added_cbs(self: S, cbs: Callbacks) -> Iterator[S]:
        """Inside, the learner has these callbacks too."""
        added = as_list(cbs)
        try:
            yield self.add_cbs(added)
        finally:
            self.cbs = [cb for cb in self.cbs if not any(cb is other for other in added)]

    @contextmanager
    def without_cbs(self: S, *cbs: Callback) -> Iterator[S]:
        """Inside, the learner lacks these callbacks."""
        before, self.cbs = self.cbs, [cb for cb in self.cbs if not any(cb is other for other in cbs)]
        try:
            yield self
        finally:
            self.cbs = before

    def _resolve_handlers(self) -> None:
        """Find out once who hears what, so that an event that nobody hears costs nothing."""
        heard = core.handlers(cb for cb in self.cbs if self.ranks.rank == 0 or not cb.rank0_only)
        if self.ranks.n > 1:
            heard = {event: tuple(map(_on_rank0, handlers)) for event, handlers in heard.items()}
        self._heard = heard
        self._stages = {
            stage: (heard[f"before_{stage}"], heard[f"after_{stage}"], heard[f"after_cancel_{stage}"], cancel)
            for stage, cancel in CANCEL.items()
        }

    def _run(self, stage: str, work: Callable[[], None]) -> bool:
        """Event, work, event; a stage that ends early – cancelled, interrupted, failed – says so first.

        Returns whether the work was done to its end. A step that was not taken has no `after_step`.
        """
        before, after, after_cancel, cancel = self._stages[stage]
        complete = False
        try:
            for handler in before:
                handler(self)
            work()
            complete = True
        except BaseException as error:
            self._tell_all(after_cancel)
            if not isinstance(error, cancel):
                raise
        if stage == "fit":
            self._tell_all(after)
        elif complete or stage != "step":
            for handler in after:
                handler(self)
        return complete

    def _tell_all(self, handlers: Iterable[Handler]) -> None:
        """Tell each of them, also when one before it fails: they put things back."""
        with ExitStack() as stack:
            for handler in reversed(tuple(handlers)):
                stack.callback(handler, self)


def as_list(values: object) -> list:
    """`values` as a list: nothing for None, one for a single thing."""
    return [] if values is None else list(values) if isinstance(values, (list, tuple)) else [values]


def _on_rank0(handler: Handler) -> Handler:
    """A handler that, if it is for rank 0 alone, finds itself alone: nobody answers what it would ask the others."""
    if not handler.__self__.rank0_only:  # type: ignore[attr-defined]  # handlers are methods
        return handler

    def alone(learn: Stages) -> None:
        with changed(learn, "ranks", Ranks()):
            handler(learn)

    return alone


@contextmanager
def changed(obj: object, name: str, value: object) -> Iterator[None]:
    """Inside, an attribute of `obj` has another value."""
    before = getattr(obj, name)
    setattr(obj, name, value)
    try:
        yield
    finally:
        setattr(obj, name, before)


def failed_handler(traceback: TracebackType | None) -> str | None:
    """Which callback in which event an error came from, if from one: `EarlyStopping.after_epoch`."""
    while traceback is not None:
        frame = traceback.tb_frame
        owner, event = frame.f_locals.get("self"), frame.f_code.co_name
        if isinstance(owner, Callback) and event in core.EVENTS:
            return f"{type(owner).__name__}.{event}"
        traceback = traceback.tb_next
    return None
