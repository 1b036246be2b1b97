"""Schedules: functions from progress (0 to 1) to a hyper-parameter's value, and the callback that applies them.

    cycle = combined_cos(0.25, 1e-4, 1e-3, 1e-8)
    learn.fit(5, cbs=ParamScheduler({"lr": cycle}))
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from .core import Callback

__all__ = ["ParamScheduler", "Schedule", "combine_scheds", "combined_cos", "get_hyper", "sched_cos", "sched_exp", "sched_lin",
           "sched_no", "sched_poly", "set_hyper"]  # fmt: skip

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class _Anneal:
    """From `start` at progress 0 to `end` at progress 1; `shape(start, end, pct)` gives the values between."""

    shape: Callable[[float, float, float], float]
    start: float
    end: float

    def __call__(self, pct: float) -> float:
        return self.shape(self.start, self.end, pct)


def _no(start: float, end: float, pct: float) -> float:
    return start


def _lin(start: float, end: float, pct: float) -> float:
    return start + pct * (end - start)


def _cos(start: float, end: float, pct: float) -> float:
    return start + (1 - math.cos(math.pi * pct)) * (end - start) / 2


def _exp(start: float, end: float, pct: float) -> float:
    return start * (end / start) ** pct


def sched_no(start: float, end: float) -> Schedule:
    """Constant at `start`."""
    return _Anneal(_no, start, end)


def sched_lin(start: float, end: float) -> Schedule:
    """A straight line from `start` to `end`."""
    return _Anneal(_lin, start, end)


def sched_cos(start: float, end: float) -> Schedule:
    """Half a cosine wave from `start` to `end`: slow, fast, slow (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    return _Anneal(_cos, start, end)


def sched_exp(start: float, end: float) -> Schedule:
    """Geometric from `start` to `end`, both of the same sign and not 0. Raises ValueError otherwise."""
    if start * end <= 0:
        raise ValueError(f"sched_exp({start}, {end}): a geometric schedule needs two values of the same sign, neither of them 0.")
    return _Anneal(_exp, start, end)


def sched_poly(start: float, end: float, power: float) -> Schedule:
    """`start + (end - start) · pct ** power`."""
    return _Anneal(lambda a, b, pct: a + (b - a) * pct**power, start, end)


def combine_scheds(pcts: Sequence[float], scheds: Sequence[Schedule]) -> Schedule:
    """`scheds` one after the other, each for its share of `pcts` (which sum to 1) and seeing its own progress from 0 to 1."""
    if len(pcts) != len(scheds) or min(pcts, default=-1) < 0 or not math.isclose(sum(pcts), 1, abs_tol=1e-6):
        raise ValueError(f"combine_scheds needs a share for each schedule, none negative, 1 in all; got {list(pcts)} for {len(scheds)}.")
    starts = [sum(pcts[:i]) for i in range(len(pcts))]

    def combined(pct: float) -> float:
        part = max(i for i, start in enumerate(starts) if (pct >= start and pcts[i] > 0) or i == 0)
        inside = (pct - starts[part]) / pcts[part] if pcts[part] else 1.0
        return scheds[part](min(max(inside, 0.0), 1.0))

    return combined


def combined_cos(pct: float, start: float, middle: float, end: float) -> Schedule:
    """Cosine from `start` to `middle` over the first `pct`, then cosine to `end`: the one-cycle shape."""
    return combine_scheds([pct, 1 - pct], [sched_cos(start, middle), sched_cos(middle, end)])


def set_hyper(opt: Optimizer, name: str, values: Sequence[float]) -> None:
    """Set a hyper-parameter of `opt`, one value for each layer group (a single one serves all).

    `name` is 'lr', 'mom' (momentum, or betas[0]), 'wd' (weight decay; groups without decay stay so), 'beta2', or any key of
    the optimizer's parameter groups. Raises KeyError for a name that the optimizer does not have.
    """
    for group in opt.param_groups:
        value = values[group.get("layer_group", 0)] if len(values) > 1 else values[0]
        key = _key(name, group)
        if key == "betas":
            first, second = group["betas"]
            group["betas"] = (value, second) if name == "mom" else (first, value)
        elif name != "wd" or group.get("decay", True):
            group[key] = value


def get_hyper(opt: Optimizer, name: str) -> float:
    """A hyper-parameter of the last parameter group; names as in `set_hyper`."""
    group = opt.param_groups[-1]
    key = _key(name, group)
    return group["betas"][0 if name == "mom" else 1] if key == "betas" else group[key]


def _key(name: str, group: dict[str, Any]) -> str:
    if name == "lr":
        return name
    if name in ("mom", "beta2") and "betas" in group:
        return "betas"
    key = {"mom": "momentum", "wd": "weight_decay"}.get(name, name)
    if key not in group:
        known = [k for k in group if k not in ("params", "layer_group", "decay")]
        raise KeyError(f"this optimizer has no {name!r}: its hyper-parameters are {known}")
    return key


class ParamScheduler(Callback):
    """Set hyper-parameters before each batch from the share of the fit that is done; but for 'lr', put them back after it.

    `scheds` maps a hyper-parameter's name (see `set_hyper`) to a schedule, or to a list with one for each layer group.
    """

    order = -20

    def __init__(self, scheds: dict[str, Schedule | Sequence[Schedule]]):
        self.scheds = {name: list(s) if isinstance(s, (list, tuple)) else [s] for name, s in scheds.items()}

    def before_fit(self, learn: Any) -> None:
        self.before = {name: get_hyper(learn.opt, name) for name in self.scheds if name != "lr"}

    def before_batch(self, learn: Any) -> None:
        if learn.training:
            for name, scheds in self.scheds.items():
                set_hyper(learn.opt, name, [sched(learn.pct_train) for sched in scheds])

    def after_fit(self, learn: Any) -> None:
        for name, value in self.before.items():
            set_hyper(learn.opt, name, [value])

    after_cancel_fit = after_fit
