"""Metrics, exact however the data is cut into batches.

A metric is a function `(pred, targ) -> scalar tensor`, whose results are averaged by sample, or any object with
`update(pred, targ)`, `compute()` and `reset()`; so every torchmetrics metric is one. `pred` is what the model returns,
before any softmax or sigmoid.

    learn = Learner(data, model, metrics=[accuracy, partial(top_k_accuracy, k=3), F1Score(average="macro")])

Updates stay on the device of the predictions and never wait for it; `compute` is read once an epoch.
"""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .loss_checks import check_same_count
from .tensors import as_values, double_precision

__all__ = ["AverageMetric", "Metric", "StatefulMetric", "accuracy", "accuracy_multi", "as_metric", "averaged_as",
           "error_rate", "metric_name", "top_k_accuracy"]  # fmt: skip

WHAT_A_METRIC_IS = "A metric is a function (pred, targ) -> scalar tensor, or an object with update, compute and reset"


def accuracy(pred: Tensor, targ: Tensor, axis: int = -1) -> Tensor:
    """Share of targets whose class has the largest output; `pred` has a class `axis`, integer `targ` has not."""
    pred, targ = predicted_classes(pred, targ, axis)
    return (pred == targ).float().mean()


def error_rate(pred: Tensor, targ: Tensor, axis: int = -1) -> Tensor:
    """1 − `accuracy`."""
    return 1 - accuracy(pred, targ, axis)


def top_k_accuracy(pred: Tensor, targ: Tensor, k: int = 5, axis: int = -1) -> Tensor:
    """Share of targets whose class is among the `k` largest outputs; shapes as in `accuracy`."""
    if pred.shape[axis] < k:
        raise ValueError(f"top_k_accuracy with k={k} needs {k} classes or more, found {pred.shape[axis]}: "
                         "pass partial(top_k_accuracy, k=...) with a smaller k.")  # fmt: skip
    top = pred.topk(k, dim=axis).indices
    check_same_count(top.select(axis, 0), targ, "One target for each set of outputs is needed.")
    return (top == targ.reshape(top.select(axis, 0).shape).unsqueeze(axis)).any(axis).float().mean()


def accuracy_multi(pred: Tensor, targ: Tensor, thresh: float = 0.5, sigmoid: bool = True) -> Tensor:
    """Share of right yes-or-no answers: `pred` above `thresh`, by default as a probability, where `targ` is 1.

    For models with several labels per item, or a single yes-or-no output; `pred` and `targ` have the same shape.
    """
    check_same_count(pred, targ, "accuracy_multi needs a target for each output; for one class per item use accuracy.")
    pred, targ = as_values(pred, targ)
    return ((pred.sigmoid() if sigmoid else pred) > thresh).eq(targ > 0.5).float().mean()


MetricFunction = TypeVar("MetricFunction", bound=Callable[..., Tensor])


def averaged_as(mean: Callable[..., Tensor], then: Callable[[Tensor], Tensor]):
    """Mark a metric that is `then` of a mean, as a root is: over batches, `mean` is averaged and `then` comes last.

    `mean` takes the metric's arguments and returns a tensor of one number or several, means over the batch's samples.
    """

    def mark(func: MetricFunction) -> MetricFunction:
        func.averaged_as, func.then = mean, then  # type: ignore[attr-defined]
        return func

    return mark


def predicted_classes(pred: Tensor, targ: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The classes with the largest outputs, and the targets, both flat; ValueError if the shapes do not fit."""
    if pred.ndim < 2 or pred.shape[axis] == 1:
        raise ValueError(
            f"predictions of shape {tuple(pred.shape)} hold one output on axis {axis}, not one for each class. "
            "For yes-or-no outputs use accuracy_multi, or the metric's multi=True or thresh=0.5; for values, axis=None."
        )
    classes = pred.argmax(axis)
    of_labels = " Several labels per item? Use accuracy_multi, or the metric's multi=True." * (pred.shape == targ.shape)
    check_same_count(
        classes, targ, f"These are the predicted classes, the largest of the outputs on axis {axis}.{of_labels}"
    )
    return classes.flatten(), targ.flatten()


@runtime_checkable
class Metric(Protocol):
    """What collects over batches: `reset()`, `update(pred, targ)` for each, `compute()` for the value."""

    def update(self, pred: Any, targ: Any) -> Any: ...

    def compute(self) -> Any: ...

    def reset(self) -> Any: ...


@dataclass(eq=False)
class StatefulMetric(ABC):
    """A metric that adds up what it needs: a subclass says what a batch contributes and what the sum means.

    `measure(pred, targ)` returns anything that adds: a tensor of counts, a list, an object with `__add__`.
    `score(state)` turns the sum into a scalar tensor. `state` is the sum so far, None before the first batch; those of
    several processes may be added too. Without any batch the value is nan.
    """

    name: str | None = field(default=None, kw_only=True)
    state: Any = field(default=None, init=False, repr=False)

    def __post_init__(self):
        self.name = self.name or _snake_case(type(self).__name__)

    @abstractmethod
    def measure(self, pred: Tensor, targ: Tensor) -> Any:
        """What one batch contributes to the sum."""

    @abstractmethod
    def score(self, state: Any) -> Tensor:
        """The metric's value, given the sum over all batches."""

    @torch.no_grad()
    def update(self, pred: Tensor, targ: Tensor) -> None:
        """Take in a batch, without waiting for the device."""
        batch = self.measure(pred, targ)
        self.state = batch if self.state is None else self.state + batch

    def sync_from(self, gather: Callable[[Any], list]) -> None:
        """Add what other processes have seen: `gather(state)` gives the states of all."""
        states = [state for state in gather(self.state) if state is not None]
        self.state = states[0] if states else None
        for state in states[1:]:
            self.state = self.state + state

    def compute(self) -> Tensor:
        """The value over all batches since `reset`, a scalar tensor."""
        return torch.tensor(torch.nan) if self.state is None else self.score(self.state)

    def reset(self) -> None:
        """Forget all batches."""
        self.state = None


@dataclass(eq=False)
class AverageMetric(StatefulMetric):
    """The mean of `func(pred, targ)` over all targets: each batch counts by the size of its (first) target, or for a
    function that is `averaged_as` another by its length.

    `func` returns one number, the mean over a batch. Raises TypeError for a function that does not take two arguments,
    ValueError if it returns several numbers.
    """

    func: Callable[..., Any]

    def __post_init__(self):
        self.name = self.name or metric_name(self.func)
        _check_signature(self.func, self.name)

    def measure(self, pred: Any, targ: Any) -> Tensor:
        mean, (_, then) = self._mean(pred, targ), _mean_and_then(self.func)
        return torch.stack([mean, torch.ones_like(mean)]) * _size(targ, in_samples=then is not None)

    def score(self, state: Tensor) -> Tensor:
        _, then = _mean_and_then(self.func)
        mean = state[0] / state[1]
        return then(mean) if then else mean

    def _mean(self, pred: Any, targ: Any) -> Tensor:
        func, then = _mean_and_then(self.func)
        try:
            value = func(pred, targ)
        except TypeError as error:
            raise TypeError(_not_callable(self.name, error)) from error
        if then:
            return double_precision(value)
        if isinstance(value, (int, float, np.generic)):
            value = torch.tensor(value)
        if not isinstance(value, Tensor) or value.numel() != 1:
            what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"metric `{self.name}` returned {what}, not one number, the mean over the batch.")
        return double_precision(value.reshape(()))


def _size(targ: Any, in_samples: bool) -> int:
    """How many targets there are, or samples; of several tensors in the first."""
    while isinstance(targ, tuple):
        targ = targ[0]
    if isinstance(targ, Tensor) and (targ.ndim == 0 or not in_samples):
        return targ.numel()
    return len(targ)


def _mean_and_then(func: Callable) -> tuple[Callable, Callable[[Tensor], Tensor] | None]:
    """What to average over batches for `func`, and what to do with the average; see `averaged_as`."""
    if isinstance(func, partial):
        mean, then = _mean_and_then(func.func)
        return partial(mean, *func.args, **func.keywords), then
    return getattr(func, "averaged_as", func), getattr(func, "then", None)


def as_metric(metric: Any) -> Metric:
    """`metric` itself if it has `update`, `compute` and `reset`; a function as an `AverageMetric`.

    Raises TypeError for anything else, for a class given instead of an instance, and for a function that cannot be
    called with (pred, targ).
    """
    if isinstance(metric, type):
        raise TypeError(f"{metric.__name__} is a class: pass an instance, {metric.__name__}(...).")
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return AverageMetric(metric)
    raise TypeError(f"{WHAT_A_METRIC_IS}, not {metric!r}.")


def metric_name(metric: Any) -> str:
    """Its `name` if it has one, a function's own name (a partial's function's), else its class's name in snake case."""
    if isinstance(name := getattr(metric, "name", None), str):
        return name
    if isinstance(metric, partial):
        return metric_name(metric.func)
    return getattr(metric, "__name__", None) or _snake_case(type(metric).__name__)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check_signature(func: Callable, name: str) -> None:
    try:
        signature = inspect.signature(func)
    except ValueError:  # a builtin does not tell its arguments; the first batch will
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(_not_callable(name, error)) from error


def _not_callable(name: str | None, error: TypeError) -> str:
    return f"metric `{name}` could not be called with (pred, targ): {error}. {WHAT_A_METRIC_IS}."
