"""The table of a model's layers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import split_batch

__all__ = ["Summary", "summarize"]


class Summary(str):
    """A text that shows itself with its line breaks in a notebook."""

    def __repr__(self) -> str:
        return str(self)


def summarize(learn: Any) -> Summary:
    """See `Learner.summary`: runs one batch through the model without training it."""
    xb, _ = split_batch(learn.data.one_batch(), learn.data.n_inp)
    rows = list(_layers(learn.model.to(learn.data.device), xb))
    total = sum(p.numel() for p in learn.model.parameters())
    trainable = sum(p.numel() for p in learn.model.parameters() if p.requires_grad)
    widths = [max(len(row[k]) for row in [HEADER, *rows]) for k in range(len(HEADER))]
    lines = [_line(row, widths) for row in (HEADER, ["-" * w for w in widths], *rows)]
    return Summary(
        "\n".join(
            [
                f"{type(learn.model).__name__} ({_shapes(xb)})",
                *lines,
                "",
                f"Parameters: {total:,}, trainable {trainable:,}, frozen {total - trainable:,}, in {len(learn.groups)} layer group(s)",
                f"Loss:       {learn.loss_func}",
                f"Optimizer:  {getattr(learn.opt_func, '__name__', learn.opt_func)}",
                f"Callbacks:  {', '.join(map(repr, learn.cbs))}",
            ]
        )
    )


HEADER = ["layer", "output", "parameters", "trains"]


def _line(row: list[str], widths: list[int]) -> str:
    return f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()


def _layers(model: nn.Module, xb: tuple | dict) -> Iterator[list[str]]:
    """Name and type, output shape, parameters, and whether they train, of each module without children."""
    leaves = {name: m for name, m in model.named_modules() if not list(m.children())}
    shapes: dict[str, str] = {}
    hooks = [m.register_forward_hook(lambda _, __, out, name=name: shapes.setdefault(name, _shapes(out))) for name, m in leaves.items()]
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            model(**xb) if isinstance(xb, dict) else model(*xb)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    for name, m in leaves.items():
        params = list(m.parameters())
        trains = "" if not params else "yes" if all(p.requires_grad for p in params) else "no" if not any(p.requires_grad for p in params) else "in part"
        yield [f"{name}: {type(m).__name__}" if name else type(m).__name__, shapes.get(name, "not used"), f"{sum(p.numel() for p in params):,}", trains]


def _shapes(value: Any) -> str:
    if isinstance(value, Tensor):
        return " × ".join(map(str, value.shape))
    if isinstance(value, dict):
        value = list(value.values())
    return ", ".join(_shapes(v) for v in value) if isinstance(value, (list, tuple)) else type(value).__name__
