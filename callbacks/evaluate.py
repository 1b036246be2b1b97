"""Loss and metrics of a validation."""

from collections.abc import Mapping
from typing import Any

from .core import Callback

__all__ = ["Evaluate"]


class Evaluate(Callback):
    """Average the loss and update the metrics over a validation; `learn.results` holds what came out, by name.

    Losses are averaged by sample. Everything accumulates on the device and is read once, at the end.
    """

    order = -15

    def __init__(self, metrics: Mapping[str, Any]):
        self.metrics = metrics

    def before_validate(self, learn: Any) -> None:
        self.total, self.n = 0.0, 0
        for metric in self.metrics.values():
            metric.reset()

    def after_loss(self, learn: Any) -> None:
        if learn.training:
            return
        self.total, self.n = self.total + learn.loss.detach() * learn.bs, self.n + learn.bs
        for metric in self.metrics.values():
            metric.update(learn.pred, *learn.yb)

    def after_validate(self, learn: Any) -> None:
        values = {name: metric.compute() for name, metric in self.metrics.items()} if self.n else {}
        learn.results = {"valid_loss": float(self.total) / self.n} if self.n else {}
        learn.results |= {name: float(value) for name, value in values.items()}
