"""Following one result of each epoch: its name, which way it gets better, and the best so far."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["Comparison", "Monitor", "result_names"]

Comparison = Callable[[Any, Any], Any]  # (new, best): whether new is better
ROUNDING = 1e-6  # by what share of itself a result may differ in float32, when its batches come otherwise
ERRORS = {"bpb", "bpc", "brier", "cer", "distance", "divergence", "err", "fid", "mae", "mape", "mse", "msle", "nll",
          "perplexity", "ppl", "rmse", "rmsle", "rmspe", "smape", "wer"}  # fmt: skip


@dataclass
class Monitor:
    """Follows the epochs' result `name`, such as "valid_loss" or a metric's name, and knows when it has improved.

    `comp(new, best)` says whether a value is better than another: `operator.gt`, `np.less`, `torch.gt` or a function of
    yours. By default smaller is better where the name says loss or error (also "rmse", "perplexity" …), and greater
    elsewhere. Better by no more than `min_delta`, or than a millionth, which float32 may have rounded away, is not
    better; what is not finite never is. An epoch without a validation counts for nothing.
    """

    name: str
    comp: Comparison | None = None
    min_delta: float = 0.0
    best: float | None = field(default=None, init=False)
    n_worse: int = field(default=0, init=False)  # epochs since then

    def __post_init__(self):
        if self.min_delta < 0:
            raise ValueError(f"min_delta={self.min_delta}: by how much a value must be better, 0 or more.")
        default = operator.lt if _is_error(self.name) else operator.gt
        self._is_better = _on_numbers(default if self.comp is None else self.comp)
        self._direction = _direction(self._is_better, self.comp)
        self._known: list[str] | None = None

    def start(self, learn: Any) -> None:
        """Begin a fit. Raises ValueError for a name that no epoch will give, where that can be known by now."""
        self.best, self.n_worse = None, 0
        self._known = result_names(learn)
        if self._known is not None and self.name not in self._known:
            raise ValueError(f"There is no {self.name!r} to monitor: this fit gives {', '.join(self._known)}.")

    def state_dict(self) -> dict[str, Any]:
        """What a fit that resumes needs to know."""
        return {"best": self.best, "n_worse": self.n_worse}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.best, self.n_worse = state["best"], state["n_worse"]

    def update(self, learn: Any) -> bool:
        """Take in the epoch's value; whether it is the best. Raises ValueError where there never is such a value."""
        expected = self.name in (self._known or []) or self.best is not None
        if expected and self.name not in learn.recorder.rows[-1]:
            return False
        value = float(learn.recorder.monitored(self.name))
        better = math.isfinite(value) and (self.best is None or self._improves(value, self.best))
        self.best, self.n_worse = (value, 0) if better else (self.best, self.n_worse + 1)
        return better

    def _improves(self, value: float, best: float) -> bool:
        margin = max(self.min_delta, ROUNDING * abs(best))
        return self._is_better(value - self._direction * margin, best)


def _is_error(name: str) -> bool:
    return "loss" in name.lower() or "error" in name.lower() or not ERRORS.isdisjoint(name.lower().split("_"))


def _on_numbers(comp: Comparison) -> Callable[[float, float], bool]:
    """`comp` for two numbers: torch's own comparisons take tensors."""
    if not callable(comp):
        raise TypeError(f"comp={comp!r}: pass a function (new, best) -> bool, such as operator.gt or np.less.")
    of_torch = getattr(torch, getattr(comp, "__name__", ""), None) is comp
    as_argument = (lambda x: torch.tensor(x, dtype=torch.float64)) if of_torch else float
    return lambda new, best: bool(comp(as_argument(new), as_argument(best)))


def _direction(is_better: Callable[[float, float], bool], comp: Comparison | None) -> int:
    """1 where greater is better, -1 where smaller is."""
    greater, smaller = is_better(1.0, 0.0), is_better(0.0, 1.0)
    if greater == smaller:
        raise ValueError(f"comp={comp!r} answers {greater} for (1, 0) and for (0, 1): which of the two is better?")
    return 1 if greater else -1


def result_names(learn: Any) -> list[str] | None:
    """The results that every epoch of this fit will give; None where only the first epoch will tell.

    That is so for a system, which logs what it wants, and where a metric may compute several numbers.
    """
    metrics = learn.evaluate.metrics if learn.data.valid_dl is not None else {}
    if learn.system is not None or not all(map(_gives_one_number, metrics.values())):
        return None
    return ["train_loss", *([] if learn.data.valid_dl is None else ["valid_loss"]), *metrics]


def _gives_one_number(metric: Any) -> bool:
    return type(metric).compute.__annotations__.get("return") in (Tensor, "Tensor", float, "float")
