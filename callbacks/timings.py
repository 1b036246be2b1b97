"""What a `Profiler` has measured, to be read and drawn."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import pandas as pd

from .report import Report

__all__ = ["STAGES", "Timings"]

STAGES = ["data", "transfer", "forward", "loss", "backward", "step", "zero_grad", "callbacks"]
ADVICE = {  # stage → the share from which on there is something to say, and what
    "data": (0.3, "read it with more workers (num_workers=), or store smaller images."),
    "transfer": (0.2, "that includes the batch transforms: take fewer or cheaper ones, or smaller images."),
    "loss": (0.2, "look for what it computes item by item or on the CPU."),
    "step": (0.25, "take larger batches, GradientAccumulation, or an optimizer with fused=True."),
    "callbacks": (0.1, "most of that is"),
}


class Timings:
    """Seconds by stage of training batches, and what they mean."""

    warmup: int  # batches of a fit that are left out

    def __init__(self):
        self.n_batches = 0  # that have been measured
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.calls: Counter[str] = Counter()  # of the stages that are a method
        self.callback_seconds: defaultdict[str, float] = defaultdict(float)  # by class, without waiting for the device

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
