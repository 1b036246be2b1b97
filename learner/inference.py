"""Predictions: for a whole set, for one item, and beside their targets as pictures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..callbacks.core import Callback
from ..data.dataset import take
from ..data.loaders import DeviceLoader
from ..data.show import show_samples
from .loop import as_loader
from .losses import loss_activation, loss_decodes

__all__ = ["GatherPreds", "Prediction", "batch_predict", "get_preds", "loss_not_reduced", "predict", "show_results"]


class Prediction(NamedTuple):
    """`decoded`: the label, list of labels or number(s); `index`: its class index, mask or value; `probs`: the activated outputs."""

    decoded: Any
    index: Any
    probs: Any


class GatherPreds(Callback):
    """Collects inputs, outputs, targets and losses of a validation, on the CPU."""

    order = 40

    def __init__(self, with_input: bool, with_loss: bool):
        self.with_input, self.with_loss = with_input, with_loss

    def before_validate(self, learn: Any) -> None:
        self.inputs, self.preds, self.targs, self.losses, self.items = [], [], [], [], []

    def after_batch(self, learn: Any) -> None:
        self.preds.append(_map(lambda t: t.detach().cpu(), learn.pred))
        self.targs.append(_map(lambda t: t.cpu(), _single(learn.yb)))
        self.items += getattr(learn.dl, "items", None) or []
        if self.with_input:
            self.inputs.append(_map(lambda t: t.cpu(), _single(learn.xb)))
        if self.with_loss and learn.yb:
            self.losses.append(learn.loss.detach().reshape(learn.bs, -1).mean(1).cpu())


def _single(values: Any) -> Any:
    return values[0] if isinstance(values, tuple) and len(values) == 1 else values


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _map(function, v) for key, v in value.items()}
    return type(value)(_map(function, v) for v in value) if isinstance(value, (list, tuple)) else value


def _join(parts: Sequence[Any]) -> Any:
    """Batches' values as one, tensors concatenated."""
    first = parts[0] if parts else torch.empty(0)
    if isinstance(first, Tensor):
        return torch.cat([p if p.ndim else p[None] for p in parts]) if parts else first
    if isinstance(first, dict):
        return {key: _join([part[key] for part in parts]) for key in first}
    return type(first)(_join(column) for column in zip(*parts, strict=True)) if first else None


def get_preds(learn: Any, split: str, dl: Any, with_input: bool, with_loss: bool, with_decoded: bool, act: Callable | None,
              reorder: bool) -> tuple:  # fmt: skip
    """See `Learner.get_preds`."""
    dl = _split_loader(learn, split) if dl is None else as_loader(dl, learn.data.device)
    gather = GatherPreds(with_input, with_loss)
    reduction = loss_not_reduced(learn) if with_loss else nullcontext()
    learn.model.to(learn.data.device)
    with learn.without_cbs(learn.evaluate), learn.added_cbs(gather), reduction:
        learn.run_validation(dl)
    raw, targs = _join(gather.preds), _join(gather.targs)
    columns = [_join(gather.inputs)] if with_input else []
    columns += [_map(act or loss_activation(learn.loss_func), raw), targs]
    columns += [_map(loss_decodes(learn.loss_func), raw)] if with_decoded else []
    columns += [_join(gather.losses)] if with_loss else []
    if reorder and gather.items:
        order = torch.tensor(gather.items).argsort()
        columns = [_map(lambda t: t[order], column) for column in columns]
    return tuple(columns)


def _split_loader(learn: Any, split: str) -> DeviceLoader:
    if split not in ("train", "valid"):
        raise ValueError(f"split={split!r}: 'train' or 'valid'; for other items pass dl=data.test_dl(items).")
    dl = learn.data.valid_dl if split == "valid" else learn.data.train_eval_dl()
    if dl is None:
        raise ValueError("There is no validation set: pass split='train', or dl=data.test_dl(items).")
    return dl


@contextmanager
def loss_not_reduced(learn: Any) -> Iterator[None]:
    """Inside, the loss function gives a loss per target. Raises TypeError for a loss that has no `reduction`."""
    loss = learn.loss_func
    if hasattr(loss, "reduction"):
        before, loss.reduction = loss.reduction, "none"
    elif callable(loss) and "reduction" in getattr(getattr(loss, "__code__", None), "co_varnames", ()):
        before, learn.loss_func = None, partial(loss, reduction="none")
    else:
        raise TypeError(f"{loss!r} has no reduction to switch off: losses per item need an attribute or argument `reduction`.")
    try:
        yield
    finally:
        learn.loss_func = loss
        if before is not None:
            loss.reduction = before


def predict(learn: Any, item: Any) -> Prediction:
    """See `Learner.predict`."""
    learn.model.to(learn.data.device)
    raw = learn.run_batch(learn.data.input_batch(item))
    return _predictions(learn, _map(lambda t: t.detach().cpu(), raw))[0]


def batch_predict(learn: Any, items: Sequence) -> list[Prediction]:
    """See `Learner.batch_predict`."""
    raw, _ = get_preds(learn, "valid", learn.data.test_dl(items), False, False, False, lambda x: x, True)
    return _predictions(learn, raw)


def _predictions(learn: Any, raw: Any) -> list[Prediction]:
    """A Prediction per item of a batch of raw outputs; lists in its fields where there are several targets."""
    probs, decoded = _map(loss_activation(learn.loss_func), raw), _map(loss_decodes(learn.loss_func), raw)
    blocks = learn.data.targets
    if isinstance(decoded, Tensor):
        block = blocks[0] if len(blocks) == 1 else None
        return [Prediction(block.decode(d) if block else d, d, p) for d, p in zip(decoded, probs, strict=True)]
    items = zip(zip(*decoded, strict=True), zip(*probs, strict=True), strict=True)
    return [Prediction([b.decode(v) for b, v in zip(blocks, d, strict=False)], list(d), list(p)) for d, p in items]


def show_results(learn: Any, max_n: int) -> None:
    """See `Learner.show_results`."""
    data = learn.data
    if not data.blocks or data.valid_dl is None:
        raise ValueError("show_results needs a validation set from a DataBlock: other loaders do not say how a value looks.")
    n = min(max_n, len(data.valid_ds))
    dl = data.test_dl(take(data.valid_ds.items, [i * len(data.valid_ds) // n for i in range(n)]), with_labels=True)
    samples = [sample for batch in dl for sample in data.decode(batch)]
    raw, *_ = get_preds(learn, "valid", dl, False, False, False, lambda x: x, True)
    preds = [p.decoded if isinstance(p.decoded, list) and len(data.targets) > 1 else (p.decoded,) for p in _predictions(learn, raw)]
    show_samples(data.blocks, samples, data.n_inp, preds)
