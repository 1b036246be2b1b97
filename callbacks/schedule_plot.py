"""What a schedule will do, seen before training."""

from collections.abc import Mapping, Sequence
from typing import Any

from .schedule import ParamScheduler, Schedule
from .torch_scheduler import TorchScheduler

__all__ = ["plot_schedule"]

LABELS = {"lr": "learning rate", "mom": "momentum", "wd": "weight decay"}


def plot_schedule(schedule: Schedule | Mapping[str, Any] | ParamScheduler | TorchScheduler, n: int = 300,
                  lr: float = 1e-3) -> None:  # fmt: skip
    """Draw a schedule over the whole of a fit, in one picture per hyper-parameter.

    `schedule` is a function of progress, a mapping from hyper-parameters to such functions or lists of them (one line
    for each layer group), or a scheduler callback. `n` is the number of points; for a `TorchScheduler` it is that of
    its steps, which start from `lr`.
    """
    from matplotlib import pyplot as plt

    xlabel = "step" if isinstance(schedule, TorchScheduler) else "share of the fit"
    curves = _curves(schedule, n, lr)
    _, axes = plt.subplots(1, len(curves), figsize=(5 * len(curves), 3.5), squeeze=False, layout="constrained")
    for ax, (name, lines) in zip(axes[0], curves.items(), strict=True):
        for number, (x, y) in enumerate(lines):
            ax.plot(x, y, label=f"layer group {number}")
        ax.set(xlabel=xlabel, ylabel=LABELS.get(name, name))
        if len(lines) > 1:
            ax.legend()


def _curves(schedule: Any, n: int, lr: float) -> dict[str, list[tuple[Sequence, Sequence]]]:
    if isinstance(schedule, TorchScheduler):
        return {"lr": [(range(n), schedule.values(n, lr))]}
    scheds = schedule.scheds if isinstance(schedule, ParamScheduler) else schedule
    scheds = scheds if isinstance(scheds, Mapping) else {"value": scheds}
    shares = [i / max(1, n - 1) for i in range(n)]
    lists = {name: [value] if callable(value) else value for name, value in scheds.items()}
    return {name: [(shares, [sched(pct) for pct in shares]) for sched in value] for name, value in lists.items()}
