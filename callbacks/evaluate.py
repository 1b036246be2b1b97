"""Loss and metrics of a validation."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .core import Callback
from .nested import map_tensors

__all__ = ["Evaluate", "asking"]


class Evaluate(Callback):
    """Average the loss and update the metrics over a validation; `learn.results` holds what came out, by name.

    Losses are averaged by sample, or where the loss counts its targets (`n_targets`) by these: the tokens of texts, the
    pixels of masks. Everything accumulates on the device and is read once, at the end. A metric that computes a dict
    gives a result for each of its names. Batches without targets count for nothing.

    Of several processes each has its share of the batches, and all end with the results over all of them: a metric of
    this library and one of torchmetrics add up what each has seen, and any other is given all predictions and targets
    in their order, for which they are kept on the CPU.
    """

    order = -15

    def __init__(self, metrics: Mapping[str, Any]):
        self.metrics = metrics
        self.total, self.n = 0.0, 0
        self.kept: list[tuple] = []  # predictions and targets, for metrics that know nothing of other processes

    def before_validate(self, learn: Any) -> None:
        self.total, self.n, self.kept = 0.0, 0, []
        for metric in self.metrics.values():
            metric.reset()
            if isinstance(metric, nn.Module):  # torchmetrics count on a device of their own
                metric.to(learn.data.device)

    def after_loss(self, learn: Any) -> None:
        if learn.training:
            return
        loss = learn.loss.detach().mean()  # one number already, unless the loss is not reduced
        loss = loss.float() if loss.device.type == "mps" else loss.double()  # a sum that does not depend on the order
        count = getattr(learn.loss_func, "n_targets", None)
        n = count(*learn.yb) if count else learn.bs
        if isinstance(n, Tensor):
            loss = torch.where(n > 0, loss, 0.0)  # the mean of no targets is NaN
        self.total, self.n = self.total + loss * n, self.n + n
        for metric in self.metrics.values():
            metric.update(learn.pred, *learn.yb)
        if learn.ranks.n > 1 and not all(map(_knows_ranks, self.metrics.values())):
            self.kept.append(map_tensors(Tensor.cpu, (learn.pred, *learn.yb)))

    def after_validate(self, learn: Any) -> None:
        shares = learn.ranks.gather((float(self.total), int(self.n)))
        if n := sum(n for _, n in shares):
            learn.results = {"valid_loss": sum(total for total, _ in shares) / n}
            kept = learn.ranks.in_turn(self.kept)
            for name, metric in self.metrics.items():
                if learn.ranks.n > 1:
                    _take_in(metric, learn.ranks, kept)
                with asking(learn.ranks, metric):
                    learn.results |= _numbers(name, metric.compute())
        self.n, self.kept = 0, []  # a validation that never starts, because it is cancelled first, has no results


def _knows_ranks(metric: Any) -> bool:
    """Whether a metric can take in what other processes have seen."""
    return hasattr(metric, "sync_from") or bool(_parts_of_torchmetrics(metric))


def _take_in(metric: Any, ranks: Any, batches: list[tuple]) -> None:
    """Let a metric know what all processes have seen."""
    if hasattr(metric, "sync_from"):
        metric.sync_from(ranks.gather)
    elif not _knows_ranks(metric):  # torchmetrics ask when they compute
        metric.reset()
        for batch in batches:
            metric.update(*batch)


def _parts_of_torchmetrics(metric: Any) -> list[Any]:
    """The metrics of torchmetrics that one is, or consists of."""
    return [part for part in metric.modules() if hasattr(part, "dist_sync_fn")] if isinstance(metric, nn.Module) else []


@contextmanager
def asking(ranks: Any, metric: Any) -> Iterator[None]:
    """Inside, a metric of torchmetrics asks all ranks when it computes, by our means: theirs fail without a batch."""

    def gather(state: Tensor, group: Any) -> list[Tensor]:
        states = [other.to(state.device) for other in ranks.gather(state)]
        return [other for other in states if other.numel()] or states  # a rank without a batch has an empty one

    parts = _parts_of_torchmetrics(metric) if ranks.n > 1 else []
    before = [(part.dist_sync_fn, part.distributed_available_fn) for part in parts]
    for part in parts:
        part.dist_sync_fn, part.distributed_available_fn = gather, lambda: True
    try:
        yield
    finally:
        for part, functions in zip(parts, before, strict=True):
            part.dist_sync_fn, part.distributed_available_fn = functions


def _numbers(name: str, value: Any) -> dict[str, float]:
    """What a metric computed, by name. Raises ValueError unless it is a number, or a dict of numbers."""
    if isinstance(value, Mapping):
        return {key: number for part in value for key, number in _numbers(part, value[part]).items()}
    try:
        return {name: float(value)}
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"metric {name!r} computed {value!r}, not one number: average it.") from error
