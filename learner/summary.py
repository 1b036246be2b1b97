"""The table of a model's layers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..callbacks.evaluating import evaluating
from ..callbacks.parted import own_class
from ..callbacks.report import Report
from ..data.batch import split_batch
from .files import one_line
from .stages import changed

__all__ = ["summarize"]

HEADER = ["layer", "output", "parameters", "trains"]


def summarize(learn: Any) -> Report:
    """See `Learner.summary`: runs one batch through the model without training it.

    A forward pass that fails is remarked on: a system may train and be of use without one for the batch alone.
    """
    xb, _ = split_batch(learn.data.one_batch(), learn.data.n_inp)
    model = learn.model.to(learn.data.device)
    shapes, failure = _output_shapes(model, xb)
    missing = "unknown" if failure else "not used"
    rows = [_row(name, module, shapes.get(name, missing)) for name, module in _layers(model)]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    total, trainable = _count(model.parameters()), _count(p for p in model.parameters() if p.requires_grad)
    lines = [
        f"{own_class(model).__name__} ({_shape(xb)})",
        *(_line(row, widths) for row in (HEADER, ["-" * width for width in widths], *rows)),
        *([f"Outputs are left out where the forward pass failed, with {failure}"] if failure else []),
        "",
        f"Parameters: {total:,}, trainable {trainable:,}, frozen {total - trainable:,}",
        f"Layer groups: {len(learn.groups)}",
        f"Loss: {learn.loss_func}",
        f"Optimizer: {_optimizer(learn)}",
        f"Callbacks: {', '.join(map(repr, learn.cbs))}",
    ]
    return Report("\n".join(lines))


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules without children, by name."""
    return ((name, module) for name, module in model.named_modules() if not list(module.children()))


def _output_shapes(model: nn.Module, xb: tuple | dict) -> tuple[dict[str, str], str]:
    """The shape of what each layer returns, the first time that it is called; and what the forward pass failed with."""
    shapes: dict[str, str] = {}
    failure = ""

    def note(name: str):
        return lambda module, inputs, output: shapes.setdefault(name, _shape(output)) and None

    hooks = [module.register_forward_hook(note(name)) for name, module in _layers(model)]
    try:
        with evaluating(model), torch.no_grad():
            model(**xb) if isinstance(xb, dict) else model(*xb)
    except Exception as error:  # a model of one's own can fail in any way
        failure = f"{type(error).__name__}: {one_line(error)}"
    finally:
        for hook in hooks:
            hook.remove()
    return shapes, failure


def _optimizer(learn: Any) -> str:
    """Its name; those that a system makes itself, which is asked for them as a fit would."""
    opt = learn.opt
    if opt is None and learn.system:
        with changed(learn, "n_epoch", max(1, learn.n_epoch)):
            opt = learn.system.configure()
    if learn.system and opt is not None:
        return ", ".join(type(each).__name__ for each in getattr(opt, "optimizers", [opt]))
    return getattr(learn.opt_func, "__name__", str(learn.opt_func))


def _row(name: str, layer: nn.Module, shape: str) -> list[str]:
    kind = own_class(layer).__name__
    return [f"{name}: {kind}" if name else kind, shape, f"{_count(layer.parameters()):,}", _trains(layer)]


def _trains(layer: nn.Module) -> str:
    """Which of its parameters train, in a word; nothing where it has none."""
    trains = {p.requires_grad for p in layer.parameters()}
    return "in part" if len(trains) == 2 else "yes" if True in trains else "no" if trains else ""


def _count(params: Any) -> int:
    return sum(p.numel() for p in params)


def _line(row: list[str], widths: list[int]) -> str:
    return f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()


def _shape(value: Any) -> str:
    """`64 × 3 × 224 × 224` of a tensor; of several values one after the other."""
    if isinstance(value, Tensor):
        return " × ".join(map(str, value.shape))
    if isinstance(value, dict):
        value = list(value.values())
    return ", ".join(_shape(v) for v in value) if isinstance(value, (list, tuple)) else type(value).__name__
