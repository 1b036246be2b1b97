"""Where the time of training goes.

    learn.fit(1, cbs=(profiler := Profiler()))
    profiler.report()            # a table, and what to do about it
    profiler.plot()

Which operations a stage spends it on is a question for torch.profiler.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import wraps
from typing import Any

import pandas as pd
import torch

from .core import EVENTS, Callback, Handler
from .report import Report

__all__ = ["Profiler"]

METHODS = {
    "forward": "forward",
    "compute_loss": "loss",
    "backward": "backward",
    "step": "step",
    "zero_grad": "zero_grad",
}
STAGES = ["data", "transfer", *METHODS.values(), "callbacks"]
IN_A_BATCH = {e for e in EVENTS if e.endswith(("_batch", "_pred", "_loss", "_backward", "_step"))}
ADVICE = {  # stage → the share from which on there is something to say, and what
    "data": (0.3, "read it with more workers (num_workers=), keep it (cache='memory') or store smaller images."),
    "transfer": (0.2, "that includes the batch transforms: take fewer or cheaper ones, or smaller images."),
    "loss": (0.2, "look for what it computes item by item or on the CPU."),
    "step": (0.25, "take larger batches, GradientAccumulation, or an optimizer with fused=True."),
    "callbacks": (0.1, "most of that is"),
}


class Profiler(Callback):
    """Measures what training batches spend their time on, over all fits of the learner.

    `data` is the wait for the loader, `transfer` the move to the device and the batch transforms, `callbacks` all that
    is left: the callbacks and the loop's own lines. Hooks count for the stage that calls them. The first `warmup`
    batches of a fit are left out, and validation. It waits for the device around every stage, which takes time itself:
    read the shares rather than the seconds.
    """

    order = 1000  # the last to hear that a batch has ended
    real_runs_only = True

    def __init__(self, warmup: int = 3):
        self.warmup = warmup
        self.n_batches = 0  # that have been measured
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.calls: Counter[str] = Counter()  # of the stages that are a method
        self.callback_seconds: defaultdict[str, float] = defaultdict(float)  # by class, without waiting for the device
        self._last = 0.0  # when the last lap ended
        self._replaced = ExitStack()

    # ---- measuring

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

        return watched

    # ---- reading

    @property
    def table(self) -> pd.DataFrame:
        """A row per stage: `calls, seconds` in all, `ms` per batch, `share` (0 to 1).

        Raises ValueError before a batch was measured.
        """
        if not self.n_batches:
            raise ValueError(
                "No training batch has been measured: pass this callback to a fit, learn.fit(1, cbs=…), of more than "
                f"warmup={self.warmup} batches."
            )
        calls = [self.calls.get(stage, self.n_batches) for stage in STAGES]
        total = sum(self.seconds.values())
        rows = [(n, s, 1000 * s / self.n_batches, s / total) for n, s in zip(calls, self.seconds.values(), strict=True)]
        return pd.DataFrame(rows, STAGES, columns=["calls", "seconds", "ms", "share"]).rename_axis("stage")

    def report(self) -> Report:
        """The table, and what to change. Raises ValueError before a batch was measured."""
        table = self.table
        what = f"{self.n_batches} training batches, {table['ms'].sum():.2f} ms each"
        callback_ms = {name: 1000 * seconds / self.n_batches for name, seconds in self.callback_seconds.items()}
        return Report.of(what, "\n".join(_lines(table)), *_advice(table["share"].to_dict(), callback_ms))

    def plot(self) -> None:
        """Milliseconds per batch by stage, as bars with their share. Raises ValueError before a batch was measured."""
        from matplotlib import pyplot as plt

        table = self.table
        _, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
        bars = ax.barh(table.index, table["ms"])
        ax.bar_label(bars, [f"{share:.1%}" for share in table["share"]], padding=3)
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set(xlabel="ms per batch", title=f"{self.n_batches} training batches, {table['ms'].sum():.2f} ms each")


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


def _lines(table: pd.DataFrame) -> Iterator[str]:
    """The table in text, with a heading."""
    yield f"\n{'stage':<10}{'calls':>8}{'seconds':>10}{'ms/batch':>10}{'share':>8}"
    for stage, row in table.iterrows():
        yield f"{stage:<10}{row['calls']:>8.0f}{row['seconds']:>10.3f}{row['ms']:>10.3f}{row['share']:>8.1%}"
    yield ""


def _advice(share: Mapping[str, float], callback_ms: Mapping[str, float]) -> Iterator[str]:
    """What takes more than its due, and what to do about it."""
    dear = [stage for stage, (due, _) in ADVICE.items() if share[stage] > due]
    for stage in dear:
        names = f" {_dearest(callback_ms)}." if stage == "callbacks" else ""
        yield f"{share[stage]:.0%} of the time goes to {stage}: {ADVICE[stage][1]}{names}"
    if not dear:
        model = share["forward"] + share["backward"]
        yield f"{model:.0%} of the time goes to the model, forward and backward. Nothing else takes more than its due."


def _dearest(callback_ms: Mapping[str, float], n: int = 3) -> str:
    """The callbacks that take most, but for those that take next to nothing beside the first."""
    dearest = sorted(callback_ms.items(), key=lambda named: -named[1])[:n]
    return ", ".join(f"{name} ({ms:.2f} ms per batch)" for name, ms in dearest if ms > 0.1 * dearest[0][1])
