"""Loss and metrics of a validation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .core import Callback

__all__ = ["Evaluate"]


class Evaluate(Callback):
    """Average the loss and update the metrics over a validation; `learn.results` holds what came out, by name.

    Losses are averaged by sample. Everything accumulates on the device and is read once, at the end. A metric that
    computes a dict gives a result for each of its names. Batches without targets count for nothing.
    """

    order = -15

    def __init__(self, metrics: Mapping[str, Any]):
        self.metrics = metrics
        self.total, self.n = 0.0, 0

    def before_validate(self, learn: Any) -> None:
        self.total, self.n = 0.0, 0
        for metric in self.metrics.values():
            metric.reset()
            if isinstance(metric, nn.Module):  # torchmetrics count on a device of their own
                metric.to(learn.data.device)

    def after_loss(self, learn: Any) -> None:
        if learn.training:
            return
        loss = learn.loss.detach().mean()  # one number already, unless the loss is not reduced
        loss = loss if loss.dtype == torch.float64 else loss.float()  # in half precision the sum would overflow
        self.total, self.n = self.total + loss * learn.bs, self.n + learn.bs
        for metric in self.metrics.values():
            metric.update(learn.pred, *learn.yb)

    def after_validate(self, learn: Any) -> None:
        if self.n:
            learn.results = {"valid_loss": float(self.total) / self.n}
            for name, metric in self.metrics.items():
                learn.results |= _numbers(name, metric.compute())
        self.n = 0  # a validation that never starts, because it is cancelled first, has no results


def _numbers(name: str, value: Any) -> dict[str, float]:
    """What a metric computed, by name. Raises ValueError unless it is a number, or a dict of numbers."""
    if isinstance(value, Mapping):
        return {key: number for part in value for key, number in _numbers(part, value[part]).items()}
    try:
        return {name: float(value)}
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"metric {name!r} computed {value!r}, not one number: average it.") from error
