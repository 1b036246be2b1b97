"""Where the time of training goes.

    learn.fit(1, cbs=(profiler := Profiler()))
    profiler.report()            # a table, and what to do about it
    profiler.plot()

Which operations a stage spends it on is a question for torch.profiler.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import wraps
from typing import Any

import torch

from .core import EVENTS, Callback, Handler
from .plain import plain
from .timings import Timings

__all__ = ["Profiler"]

METHODS = {
    "forward": "forward",
    "compute_loss": "loss",
    "backward": "backward",
    "step": "step",
    "zero_grad": "zero_grad",
}
IN_A_BATCH = {e for e in EVENTS if e.endswith(("_batch", "_pred", "_loss", "_backward", "_step"))}


class Profiler(Timings, Callback):
    """Measures what training batches spend their time on, over all fits of the learner.

    `data` is the wait for the loader, `transfer` the move to the device and the batch transforms, `callbacks` all that
    is left: the callbacks and the loop's own lines. Hooks count for the stage that calls them. The first `warmup`
    batches of a fit are left out, and validation. It waits for the device around every stage, which takes time itself:
    read the shares rather than the seconds.
    """

    order = 1000  # the last to hear that a batch has ended
    real_runs_only = True

    def __init__(self, warmup: int = 3):
        super().__init__()
        self.warmup = warmup
        self._last = 0.0  # when the last lap ended
        self._replaced = ExitStack()

    def before_fit(self, learn: Any) -> None:
        self._last = _now(learn.data.device)
        for method, stage in METHODS.items():
            self._replace(learn, learn, method, stage, before="callbacks")
        self._replace(learn, learn.data.train_dl, "prepare", "transfer", before="data")
        self._watch_callbacks(learn)

    def before_train(self, learn: Any) -> None:
        self._last = _now(learn.data.device)

    def before_batch(self, learn: Any) -> None:
        self.n_batches += self._measures(learn)

    def after_batch(self, learn: Any) -> None:
        if learn.training:
            self._lap(learn, "callbacks")

    def after_fit(self, learn: Any) -> None:
        self._replaced.close()

    after_cancel_fit = after_fit

    def state_dict(self) -> dict[str, Any]:
        names = ("n_batches", "seconds", "calls", "callback_seconds")
        return {name: plain(getattr(self, name), name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.n_batches, self.seconds = state["n_batches"], dict(state["seconds"])
        self.calls, self.callback_seconds = Counter(state["calls"]), defaultdict(float, state["callback_seconds"])

    def _measures(self, learn: Any) -> bool:
        return learn.training and learn.train_iter >= self.warmup

    def _lap(self, learn: Any, stage: str) -> None:
        """Count the time since the last lap as that of `stage`."""
        now = _now(learn.data.device)
        if self._measures(learn):
            self.seconds[stage] += now - self._last
        self._last = now

    def _replace(self, learn: Any, owner: Any, method: str, stage: str, before: str) -> None:
        """Until the fit ends, count `owner.method` as `stage`, and the time since the last lap as `before`."""
        work = getattr(owner, method)

        @wraps(work)
        def timed(*args: Any) -> Any:
            if not learn.training:
                return work(*args)
            self._lap(learn, before)
            try:
                return work(*args)
            finally:
                self._lap(learn, stage)
                self.calls[stage] += self._measures(learn)

        self._replaced.callback(_put_back, owner, method, vars(owner).get(method), timed)
        setattr(owner, method, timed)

    def _watch_callbacks(self, learn: Any) -> None:
        """Have the learner look its handlers up anew, and find each with a watch around it."""
        cbs = learn.cbs
        learn.cbs = [cb if cb is self else _Watched(cb, self._watched) for cb in cbs]
        try:
            learn._resolve_handlers()
        finally:
            learn.cbs = cbs

    def _watched(self, name: str, handler: Handler) -> Handler:
        def watched(learn: Any) -> None:
            begin = time.perf_counter()
            try:
                handler(learn)
            finally:
                if self._measures(learn):
                    self.callback_seconds[name] += time.perf_counter() - begin

        watched.__self__ = handler.__self__  # type: ignore[attr-defined]  # the learner asks whose it is
        return watched


class _Watched:
    """Stands in for a callback while handlers are looked up, and puts a watch around those of a batch."""

    def __init__(self, cb: Callback, watch: Callable[[str, Handler], Handler]):
        self.cb, self.watch = cb, watch

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.cb, name)
        return self.watch(type(self.cb).__name__, value) if name in IN_A_BATCH and value is not None else value


def _now(device: torch.device) -> float:
    """The time in seconds, once the device has done all that it was asked to."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


def _put_back(owner: Any, name: str, before: Any, ours: Any) -> None:
    """Undo a replacement, unless somebody else has replaced it since."""
    if vars(owner).get(name) is not ours:
        return
    if before is None:
        delattr(owner, name)
    else:
        setattr(owner, name, before)
