"""Where the first NaN or infinity comes from.

    learn.fit_one_cycle(1, cbs=DetectAnomaly())

    AnomalyError: The output of 2 (Log) is not finite: 8 NaN, 0 infinite among 64 values (float32). Its input was
    finite, -0.91 to 2.2. Epoch 0, training batch 3, learning rate 0.001, items 17 (cats/017.jpg), 40 (dogs/203.jpg). …

torch.autograd.set_detect_anomaly finds the operation of a NaN in the backward pass; this looks everywhere.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .hooks import HookCallback
from .nested import tensors_in

__all__ = ["AnomalyError", "DetectAnomaly"]

FIXES = {
    "value": "Look at these items and at what the transforms make of them: a missing value, a division by 0?",
    "output": "A division by 0, log or sqrt of what is not positive, or numbers that have grown too large: lower the "
    "learning rate; fp16 ends at 65504, bf16 does not.",
    "loss": "The model's output is finite, so look at the loss: log or sqrt of what is not positive, a mean over no "
    "value? If the loss had been growing, lower the learning rate.",
    "gradient": "An operation near there has no finite derivative: sqrt or norm at 0, a division by almost 0, 0 · inf "
    "in torch.where; torch.autograd.set_detect_anomaly(True) shows its line. If the loss had been growing, lower the "
    "learning rate or clip gradients, GradientClip().",
    "weight": "The gradient was finite, so the step was too large: lower the learning rate, and keep weights in fp32.",
}


class AnomalyError(FloatingPointError):
    """A value that is not finite: the message names the place, the batch, and a likely fix."""


class DetectAnomaly(HookCallback):
    """Raises AnomalyError at the first NaN or infinity in a fit, before it gets into the weights.

    Looked at are, in this order: inputs and targets of each batch, training or validation; the output of every module;
    the loss; the gradients before the optimizer's step, after mixed precision has unscaled them; the weights after it.
    The message names layer or parameter, epoch, batch, items, the range of the inputs, and a likely fix. Each look
    waits for the device, so training is slower: a tool for finding a fault, not for every run. With
    `GradientAccumulation` the batch named is the last of those that the gradient comes from.
    """

    order = -5  # after unscaling, before clipping
    real_runs_only = True  # the learning rate finder diverges on purpose

    def __init__(self):
        super().__init__(_all_but_containers)
        self.learn: Any = None  # while it fits, for the hooks
        self.arrived: dict[str, None] = {}  # parameters in the order in which the backward pass got to them
        self.handles: list[RemovableHandle] = []

    def before_fit(self, learn: Any) -> None:
        super().before_fit(learn)
        self.learn = learn
        trainable = [(name, p) for name, p in learn.model.named_parameters() if p.requires_grad]
        self.handles = [p.register_post_accumulate_grad_hook(self._arrival(name)) for name, p in trainable]

    def _arrival(self, name: str) -> Any:
        return lambda _: self.arrived.update({name: None})

    def before_batch(self, learn: Any) -> None:
        self.listen(True)
        inputs = learn.xb.items() if isinstance(learn.xb, Mapping) else enumerate(learn.xb)
        for kind, named in (("Input", inputs), ("Target", enumerate(learn.yb))):
            for name, value in named:
                _check(learn, "value", f"{kind} {name}", value)

    def hook(self, module: nn.Module, input: Any, output: Any) -> None:
        if not all(map(_is_finite, tensors_in(output))):
            name, kind = self.names[module], type(module).__name__
            where = name if name == kind else f"{name} ({kind})"
            _check(self.learn, "output", f"The output of {where}", output, _its_input(module, input))

    def after_loss(self, learn: Any) -> None:
        _check(learn, "loss", "The loss", learn.loss)

    def before_backward(self, learn: Any) -> None:
        self.arrived.clear()

    def before_step(self, learn: Any) -> None:
        grads = {name: p.grad for name, p in learn.model.named_parameters()}
        finite: list[str] = []
        for name in [*self.arrived, *(name for name in grads if name not in self.arrived)]:
            nearer = (
                f"Those nearer to the loss are, up to {finite[-1]}." if finite else "It is the nearest to the loss."
            )
            _check(learn, "gradient", f"The gradient of {name}", grads.get(name), nearer)
            finite.append(name)

    def after_step(self, learn: Any) -> None:
        for name, p in learn.model.named_parameters():
            _check(learn, "weight", f"After the step {name}", p.detach())

    def after_fit(self, learn: Any) -> None:
        super().after_fit(learn)
        for handle in self.handles:
            handle.remove()
        self.learn = None

    after_cancel_fit = after_fit


def _all_but_containers(model: nn.Module) -> list[nn.Module]:
    """Every module but those that only hold others, since these put out what their last child does."""
    return [m for m in model.modules() if not isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict))]


def _is_finite(tensor: Tensor) -> bool:
    return bool(_values(tensor).isfinite().all())


def _values(tensor: Tensor) -> Tensor:
    return tensor.detach().coalesce().values() if tensor.is_sparse else tensor.detach()


def _check(learn: Any, kind: str, what: str, value: Any, detail: str = "") -> None:
    """Raise AnomalyError where a tensor in `value` is not finite."""
    for tensor in tensors_in(value):
        if not _is_finite(tensor):
            sentences = (f"{what} is not finite: {_counted(_values(tensor))}.", detail, _place(learn, tensor))
            raise AnomalyError("\n".join(filter(None, (*sentences, _inputs(learn), FIXES[kind]))))


def _counted(values: Tensor) -> str:
    n_nan, n_inf = int(values.isnan().sum()), int(values.isinf().sum())
    return f"{n_nan} NaN, {n_inf} infinite among {values.numel()} values ({values.dtype})".replace("torch.", "")


def _its_input(module: nn.Module, input: Any) -> str:
    """What a module had to work with."""
    for name, p in module.named_parameters(recurse=False):
        if not _is_finite(p):
            return f"Its {name} was not finite before this step: look at what has been loaded or set."
    if not (tensors := list(tensors_in(input))):
        return ""
    if all(map(_is_finite, tensors)):
        return f"Its input was finite, {_range(tensors)}."
    return "Its input was not finite either, and no module put that out: look at the forward() of a module around it."


def _range(tensors: Iterable[Tensor]) -> str:
    """The smallest and the largest finite number."""
    finite = [values[values.isfinite()] for values in map(_values, tensors) if values.is_floating_point()]
    finite = [values for values in finite if values.numel()]
    if not finite:
        return "without any finite number"
    return f"{min(float(v.min()) for v in finite):.3g} to {max(float(v.max()) for v in finite):.3g}"


def _inputs(learn: Any) -> str:
    tensors = [t for t in tensors_in(learn.xb) if t.is_floating_point()]
    return f"Inputs of the batch: {_range(tensors)}." if tensors else ""


def _place(learn: Any, bad: Tensor) -> str:
    """Epoch, batch, learning rate, and which of the batch's samples are concerned."""
    epoch = f"Epoch {learn.epoch}, " if learn.fitting else ""
    batch = f"{'training' if learn.training else 'validation'} batch {learn.iter}"
    lr = f", learning rate {learn.opt.param_groups[-1]['lr']:.3g}" if learn.training else ""
    return f"{epoch}{batch}{lr}, {_samples(learn, _bad_rows(bad, learn.bs))}."


def _bad_rows(bad: Tensor, bs: int) -> list[int]:
    """The rows that are not finite; all of the batch's where `bad` has no row for each sample."""
    if bad.is_sparse or not bad.ndim or len(bad) != bs:
        return list(range(bs))
    return (~bad.isfinite()).reshape(bs, -1).any(1).nonzero().flatten().tolist()


def _samples(learn: Any, rows: list[int], n: int = 5) -> str:
    """The samples by what is known of them: number in the batch, position in the dataset, file."""
    items = getattr(learn.dl, "items", None) or []
    known = len(items) == learn.bs
    names = [_item_name(learn, items[row]) if known else str(row) for row in rows[:n]]
    more = f" and {len(rows) - n} more" if len(rows) > n else ""
    return f"{'items' if known else 'samples'} {', '.join(names)}{more}"


def _item_name(learn: Any, position: int) -> str:
    """A position in the dataset, with the end of the path that it stands for, or the first text of a table's row."""
    item = learn.dl.dataset.item(position) if learn.dl.blocks else None
    values = [item] if isinstance(item, (str, Path)) else list(item) if isinstance(item, (tuple, pd.Series)) else []
    name = next((value for value in values if isinstance(value, (str, Path))), None)
    return str(position) if name is None else f"{position} ({'/'.join(Path(name).parts[-2:])})"
