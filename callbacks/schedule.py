"""Schedules: functions from progress (0 to 1) to a hyper-parameter's value, and the callback that applies them.

    cycle = combined_cos(0.25, 1e-4, 1e-3, 1e-8)
    learn.fit(5, cbs=ParamScheduler({"lr": cycle}))

A schedule is any such function; those made here print themselves and can be pickled.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from torch.optim import Optimizer, RMSprop

from .core import Callback

__all__ = ["ParamScheduler", "Schedule", "combine_scheds", "combined_cos", "has_momentum", "sched_cos", "sched_exp",
           "sched_lin", "sched_no", "sched_poly", "set_hyper"]  # fmt: skip

Schedule = Callable[[float], float]
ALIASES = {"mom": "momentum", "wd": "weight_decay"}


class _Anneal(partial):
    """A shape with its ends, to be called with the progress between them."""

    def __repr__(self) -> str:
        return f"sched{self.func.__name__}({', '.join(map(repr, self.args))})"


def _no(start: float, end: float, pct: float) -> float:
    return start


def _lin(start: float, end: float, pct: float) -> float:
    return start + pct * (end - start)


def _cos(start: float, end: float, pct: float) -> float:
    return start + (1 - math.cos(math.pi * pct)) * (end - start) / 2


def _exp(start: float, end: float, pct: float) -> float:
    return start * (end / start) ** pct


def _poly(start: float, end: float, power: float, pct: float) -> float:
    return start + (end - start) * pct**power


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
        raise ValueError(f"sched_exp({start}, {end}): it needs two values of the same sign, neither of them 0.")
    return _Anneal(_exp, start, end)


def sched_poly(start: float, end: float, power: float) -> Schedule:
    """`start + (end - start) · pct ** power`."""
    return _Anneal(_poly, start, end, power)


@dataclass(frozen=True)
class _Combined:
    """Each of `scheds` from its start on, for its share of the whole."""

    starts: list[float]
    shares: list[float]
    scheds: list[Schedule]

    def __call__(self, pct: float) -> float:
        pct = 0.0 if pct < 0 else 1.0 if pct > 1 else pct
        part = bisect_right(self.starts, pct) - 1
        return self.scheds[part]((pct - self.starts[part]) / self.shares[part])


def combine_scheds(pcts: Sequence[float], scheds: Sequence[Schedule]) -> Schedule:
    """`scheds` one after the other, each for its share of `pcts` and seeing its own progress from 0 to 1.

    Raises ValueError unless there is a share for each, none is negative, and they sum to 1.
    """
    if len(pcts) != len(scheds) or min(pcts, default=-1) < 0 or not math.isclose(sum(pcts), 1, abs_tol=1e-6):
        raise ValueError(
            f"combine_scheds needs a share for each of {len(scheds)} schedules, none negative, 1 in all: {list(pcts)}."
        )
    parts = [part for part in zip(accumulate(pcts, initial=0.0), pcts, scheds, strict=False) if part[1] > 0]
    return _Combined(*map(list, zip(*parts, strict=True)))


def combined_cos(pct: float, start: float, middle: float, end: float) -> Schedule:
    """Cosine from `start` to `middle` over the first `pct`, then cosine to `end`: the one-cycle shape."""
    if not 0 <= pct <= 1:
        raise ValueError(f"pct={pct}: the share of the first part is between 0 and 1.")
    return combine_scheds([pct, 1 - pct], [sched_cos(start, middle), sched_cos(middle, end)])


def set_hyper(opt: Optimizer, name: str, values: Sequence[float]) -> None:
    """Set a hyper-parameter of `opt`, one value for each layer group (a single one serves all).

    `name` is 'lr', 'mom' (momentum, or betas[0]), 'beta2', 'wd' (weight decay; groups without decay stay so), or any
    key of the optimizer's parameter groups. Raises KeyError for a name that the optimizer does not have.
    """
    _key(opt, name)
    for group in opt.param_groups:
        _set(group, name, values[group.get("layer_group", 0)] if len(values) > 1 else values[0])


def _set(group: dict[str, Any], name: str, value: float) -> None:
    """Set a hyper-parameter of one parameter group."""
    if name == "lr":
        group["lr"] = value
    elif name == "mom" and "betas" in group:
        group["betas"] = (value, group["betas"][1])
    elif name == "beta2":
        group["betas"] = (group["betas"][0], value)
    elif name != "wd" or group.get("decay", True):
        group[ALIASES.get(name, name)] = value


def _key(opt: Optimizer, name: str) -> str:
    """The key of the parameter groups that holds `name`. Raises KeyError where there is none."""
    group = opt.param_groups[0]
    key = "betas" if name in ("mom", "beta2") and "betas" in group else ALIASES.get(name, name)
    if key not in group:
        known = [k for k in group if k not in ("params", "layer_group", "decay")]
        raise KeyError(f"{type(opt).__name__} has no {name!r}: its hyper-parameters are {', '.join(known)}")
    return key


def has_momentum(opt: Optimizer) -> bool:
    """Whether 'mom' can be scheduled. RMSprop cannot start with a momentum once it has stepped without."""
    group = opt.param_groups[0]
    return "betas" in group or (group.get("momentum", 0) > 0 if isinstance(opt, RMSprop) else "momentum" in group)


def _as_list(scheds: Schedule | Sequence[Schedule]) -> list[Schedule]:
    return [scheds] if callable(scheds) else list(scheds)


class ParamScheduler(Callback):
    """Set hyper-parameters before each batch from the share of the fit that is done; but for 'lr', put them back after.

    `scheds` maps a hyper-parameter's name (see `set_hyper`) to a schedule, or to a list with one for each layer group.
    """

    order = -20

    def __init__(self, scheds: Mapping[str, Schedule | Sequence[Schedule]]):
        self.scheds: dict[str, list[Schedule]] = {name: _as_list(value) for name, value in scheds.items()}
        self.of_groups: dict[str, list[Schedule]] = {}  # the same, one for each layer group
        self.before: list[dict[str, Any]] = []  # what to put back: the keys that change, of each parameter group

    def before_fit(self, learn: Any) -> None:
        groups = learn.opt.param_groups
        n_groups = 1 + max(group.get("layer_group", 0) for group in groups)
        for name, scheds in self.scheds.items():
            if len(scheds) not in (1, n_groups):
                raise ValueError(f"{len(scheds)} schedules of {name!r} for {n_groups} layer groups: give one for each.")
        self.of_groups = {name: scheds * (n_groups // len(scheds)) for name, scheds in self.scheds.items()}
        keys = [_key(learn.opt, name) for name in self.scheds if name != "lr"]
        self.before = [{key: group[key] for key in keys} for group in groups]

    def before_batch(self, learn: Any) -> None:
        if learn.training:
            for group in learn.opt.param_groups:
                for name, scheds in self.of_groups.items():
                    _set(group, name, scheds[group.get("layer_group", 0)](learn.pct_train))

    def after_fit(self, learn: Any) -> None:
        for group, values in zip(learn.opt.param_groups, self.before, strict=False):
            group.update(values)
        self.before = []

    after_cancel_fit = after_fit
