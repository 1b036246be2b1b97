"""Schedules: functions from progress (0 to 1) to a hyper-parameter's value, and the callback that applies them.

    cycle = combined_cos(0.25, 1e-4, 1e-3, 1e-8)
    learn.fit(5, cbs=ParamScheduler({"lr": cycle}))

A schedule is any such function; those made here print themselves and can be pickled.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from .core import Callback
from .hyper import group_key, hyper_key, set_group_hyper

__all__ = ["ParamScheduler", "Schedule", "combine_scheds", "combined_cos", "combined_lin", "flat_cos",
           "sched_cos", "sched_exp", "sched_lin", "sched_no", "sched_poly", "sgdr", "warmup_cos", "wsd"]  # fmt: skip

Schedule = Callable[[float], float]


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


@dataclass(frozen=True, repr=False)
class _Combined:
    """Schedules one after the other."""

    parts: list[tuple[float, float, Schedule]]  # start, share of the whole, schedule; the last one first

    def __call__(self, pct: float) -> float:
        pct = 0.0 if pct < 0 else 1.0 if pct > 1 else pct
        for start, share, sched in self.parts:
            if pct > start - 1e-9:  # sums of shares are not exact
                return sched(max(0.0, pct - start) / share)
        raise ValueError(f"pct={pct} is no share of the whole.")  # NaN

    def __repr__(self) -> str:
        _, shares, scheds = zip(*reversed(self.parts), strict=True)
        return f"combine_scheds({list(shares)}, {list(scheds)})"


def combine_scheds(pcts: Sequence[float], scheds: Sequence[Schedule]) -> Schedule:
    """`scheds` one after the other, each for its share of `pcts` and seeing its own progress from 0 to 1.

    Raises ValueError unless there is a share for each, none is negative, and they sum to 1.
    """
    if len(pcts) != len(scheds) or min(pcts, default=-1) < 0 or not math.isclose(sum(pcts), 1, abs_tol=1e-6):
        raise ValueError(
            f"combine_scheds needs a share for each of {len(scheds)} schedules, none negative, 1 in all: {list(pcts)}."
        )
    parts = [part for part in zip(accumulate(pcts, initial=0.0), pcts, scheds, strict=False) if part[1] > 0]
    return _Combined(parts[::-1])


def combined_cos(pct: float, start: float, middle: float, end: float) -> Schedule:
    """Cosine from `start` to `middle` over the first `pct`, then cosine to `end`: the one-cycle shape."""
    if not 0 <= pct <= 1:
        raise ValueError(f"pct={pct}: the share of the first part is between 0 and 1.")
    return combine_scheds([pct, 1 - pct], [sched_cos(start, middle), sched_cos(middle, end)])


def combined_lin(pct: float, start: float, middle: float, end: float) -> Schedule:
    """A line from `start` to `middle` over the first `pct`, then one to `end`: linear warm-up and decay."""
    return combine_scheds([pct, 1 - pct], [sched_lin(start, middle), sched_lin(middle, end)])


def warmup_cos(pct: float, start: float, middle: float, end: float) -> Schedule:
    """A line from `start` to `middle` over the first `pct`, then cosine to `end`: the way of most transformers."""
    return combine_scheds([pct, 1 - pct], [sched_lin(start, middle), sched_cos(middle, end)])


def flat_cos(pct: float, start: float, end: float) -> Schedule:
    """Constant over the first `pct`, then cosine to `end`."""
    return combine_scheds([pct, 1 - pct], [sched_no(start, start), sched_cos(start, end)])


def wsd(pct_warmup: float, pct_decay: float, start: float, middle: float, end: float) -> Schedule:
    """Warm-up, stable, decay: a line up, a plateau at `middle`, a line down (Hu et al. 2024, arXiv:2404.06395).

    The plateau can be as long as one likes, and training resumed from any point of it.
    """
    stable = max(0.0, 1 - pct_warmup - pct_decay)  # which may come out just below 0
    return combine_scheds(
        [pct_warmup, stable, pct_decay], [sched_lin(start, middle), sched_no(middle, middle), sched_lin(middle, end)]
    )


def sgdr(n_cycles: int, cycle_mult: float, start: float, end: float = 0.0) -> Schedule:
    """`n_cycles` of cosine from `start` to `end`, each `cycle_mult` times as long as the last (arXiv:1608.03983)."""
    lengths = [cycle_mult**i for i in range(n_cycles)]
    return combine_scheds([length / sum(lengths) for length in lengths], [sched_cos(start, end)] * n_cycles)


def _as_list(scheds: Schedule | Sequence[Schedule]) -> list[Schedule]:
    return [scheds] if callable(scheds) else list(scheds)


class ParamScheduler(Callback):
    """Set hyper-parameters before each batch from the share of the fit that is done; but for 'lr', put them back after.

    `scheds` maps a hyper-parameter's name (see `set_hyper`) to a schedule, or to a list with one for each layer group.
    """

    order = -20
    real_runs_only = True  # the learning rate finder has a schedule of its own
    state_names = ("before",)

    def __init__(self, scheds: Mapping[str, Schedule | Sequence[Schedule]]):
        self.scheds: dict[str, list[Schedule]] = {name: _as_list(value) for name, value in scheds.items()}
        self.of_groups: list[list[tuple[str, Schedule]]] = []  # the same, for each parameter group
        self.before: list[dict[str, Any]] = []  # what to put back: the keys that change, of each parameter group

    def before_fit(self, learn: Any) -> None:
        groups = learn.opt.param_groups
        n_groups = 1 + max(group.get("layer_group", 0) for group in groups)
        for name, scheds in self.scheds.items():
            if len(scheds) not in (1, n_groups):
                raise ValueError(f"{len(scheds)} schedules of {name!r} for {n_groups} layer groups: give one for each.")
        each = {name: scheds * (n_groups // len(scheds)) for name, scheds in self.scheds.items()}
        self.of_groups = [[(name, each[name][group.get("layer_group", 0)]) for name in each] for group in groups]
        names = [name for name in self.scheds if name != "lr"]
        for name in names:
            hyper_key(learn.opt, name)  # raises where there is none
        self.before = [{key: group[key] for key in (group_key(group, name) for name in names)} for group in groups]

    def before_batch(self, learn: Any) -> None:
        if learn.training:
            pct = learn.pct_train
            for group, scheds in zip(learn.opt.param_groups, self.of_groups, strict=True):
                for name, sched in scheds:
                    set_group_hyper(group, name, sched(pct))

    def after_fit(self, learn: Any) -> None:
        for group, values in zip(learn.opt.param_groups, self.before, strict=False):
            group.update(values)
        self.before = []

    after_cancel_fit = after_fit
