"""Predictions: for a whole set, for one item, and beside their targets as pictures."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..callbacks.core import Callback
from ..callbacks.nested import map_tensors
from ..data.blocks import CategoryBlock
from ..data.items import take
from ..data.loaders import DeviceLoader
from ..data.show import show_samples
from .loop import as_loader
from .losses import loss_activation, loss_decodes
from .saved_preds import SavePreds
from .stages import changed

__all__ = ["GatherPreds", "Prediction", "batch_predict", "get_preds", "loss_not_reduced", "predict", "show_results",
           "tta"]  # fmt: skip


class Prediction(NamedTuple):
    """What a model says of one item; lists in each field where there are several targets.

    `decoded`: the label, list of labels or number(s); `index`: its class index, mask or value; `probs`: the activated
    outputs.
    """

    decoded: Any
    index: Any
    probs: Any


def get_preds(learn: Any, split: str = "valid", dl: Any = None, with_input: bool = False, with_loss: bool = False,
              with_decoded: bool = False, act: Callable | None = None, reorder: bool = True,
              save_preds: str | Path | None = None) -> tuple:  # fmt: skip
    """See `Learner.get_preds`."""
    if save_preds and (with_decoded or not reorder):
        raise ValueError("save_preds writes predictions in the order of the dataset: decode them from the file.")
    dl = _split_loader(learn, split) if dl is None else as_loader(dl, learn.data.device)
    act = act or partial(map_tensors, loss_activation(learn.loss_func))
    gather = GatherPreds(with_input, with_loss, with_preds=not save_preds)
    saver = SavePreds(Path(save_preds), act) if save_preds else None
    reduction = loss_not_reduced(learn) if with_loss else nullcontext()
    _move_model(learn)
    as_model = changed(learn, "system", None)
    with learn.without_cbs(learn.evaluate), learn.added_cbs([gather, saver] if saver else gather), reduction, as_model:
        learn.run_validation(dl)
    gather.collect(learn.ranks)
    saved = saver.finish(learn.ranks) if saver and gather.targs else None
    if not gather.targs:
        raise ValueError("There is nothing to predict: the loader gave no batch.")
    if with_loss and not gather.losses:
        raise ValueError(
            "These items have no labels to compute losses with: pass dl=data.test_dl(items, with_labels=True)."
        )
    raw = None if saver else _join(gather.preds)
    columns = [_join(gather.inputs)] if with_input else []
    columns += [None if saver else act(raw), _join(gather.targs)]
    columns += [map_tensors(_decodes(learn), raw)] if with_decoded else []
    columns += [_join(gather.losses)] if with_loss else []
    if reorder and (items := [item for batch in gather.items for item in batch]):
        order = torch.tensor(items).argsort()
        columns = [_reordered(column, order) for column in columns]
    if saver:
        columns[int(with_input)] = saved
    return tuple(columns)


def tta(learn: Any, dl: Any, n: int, beta: float, act: Callable | None) -> tuple:
    """See `Learner.tta`."""
    if n < 1 or not 0 <= beta <= 1:
        raise ValueError(f"tta(n={n}, beta={beta}): n is 1 or more, and beta a share from 0 to 1.")
    dl = _split_loader(learn, "valid") if dl is None else as_loader(dl, learn.data.device)
    augmented = learn.data.augmented_dl(dl)
    plain, targs = get_preds(learn, dl=dl, act=act)
    mean: Any = None
    for epoch in range(n):
        augmented.set_epoch(epoch)
        preds, _ = get_preds(learn, dl=augmented, act=act)
        mean = preds if mean is None else _pairwise(torch.add, mean, preds)
    return _pairwise(lambda m, p: torch.lerp(m / n, p, beta), mean, plain), targs


def _pairwise(function: Callable[[Tensor, Tensor], Tensor], a: Any, b: Any) -> Any:
    """`function` of two tensors, or of each pair in two tuples of them."""
    return function(a, b) if isinstance(a, Tensor) else tuple(function(x, y) for x, y in zip(a, b, strict=True))


def _split_loader(learn: Any, split: str) -> DeviceLoader:
    if split not in ("train", "valid"):
        raise ValueError(f"split={split!r}: 'train' or 'valid'; for other items pass dl=data.test_dl(items).")
    dl = learn.data.valid_dl if split == "valid" else learn.data.train_eval_dl()
    if dl is None:
        raise ValueError("There is no validation set: pass split='train', or dl=data.test_dl(items).")
    return dl


class GatherPreds(Callback):
    """Collects inputs, outputs, targets and losses of a validation, on the CPU."""

    order = 40

    def __init__(self, with_input: bool, with_loss: bool, with_preds: bool = True):
        self.with_input, self.with_loss, self.with_preds = with_input, with_loss, with_preds

    def before_validate(self, learn: Any) -> None:
        self.inputs, self.preds, self.targs, self.losses, self.items = [], [], [], [], []  # by batch

    def collect(self, ranks: Any) -> None:
        """Add what other processes have."""
        for name in ("inputs", "preds", "targs", "losses", "items"):
            setattr(self, name, ranks.in_turn(getattr(self, name)))

    def after_batch(self, learn: Any) -> None:
        if self.with_preds:
            self.preds.append(_to_cpu(learn.pred))
        self.targs.append(_to_cpu(_single(learn.yb)))
        self.items.append(getattr(learn.dl, "items", None) or [])
        if self.with_input:
            self.inputs.append(_to_cpu(_single(learn.xb)))
        if self.with_loss and learn.yb:
            self.losses.append(_per_item(learn.loss, learn.bs).cpu())


def _per_item(loss: Tensor, bs: int) -> Tensor:
    """Losses per target averaged to one per item, `(bs,)`."""
    if not loss.ndim or len(loss) != bs:
        raise ValueError(
            f"The loss gave a tensor of shape {tuple(loss.shape)} for {bs} items, although its reduction was 'none': "
            "losses per item need a loss that heeds `reduction`."
        )
    return loss.detach().reshape(bs, -1).mean(1)


@contextmanager
def loss_not_reduced(learn: Any) -> Iterator[None]:
    """Inside, the loss function gives a loss per target. Raises TypeError for a loss that has no `reduction`."""
    loss = learn.loss_func
    if hasattr(loss, "reduction"):
        obj, name, value = loss, "reduction", "none"
    elif _takes_reduction(loss):
        obj, name, value = learn, "loss_func", partial(loss, reduction="none")
    else:
        raise TypeError(
            f"{loss!r} has no reduction to switch off: losses per item need an attribute or argument `reduction`."
        )
    with changed(obj, name, value):
        yield


def _takes_reduction(loss: Callable) -> bool:
    try:
        return "reduction" in inspect.signature(loss).parameters
    except (TypeError, ValueError):  # a builtin tells no signature
        return False


def predict(learn: Any, item: Any) -> Prediction:
    """See `Learner.predict`."""
    _move_model(learn)
    batch = learn.data.input_batch(item)
    raw = learn.run_batch(batch)
    return _predictions(learn, _to_cpu(raw), batch)[0]


def _move_model(learn: Any) -> None:
    """Put the model on the data's device, unless it is there: `to` would take 1 ms for 200 layers to find that out."""
    parameter = next(learn.model.parameters(), None)
    if parameter is None or parameter.device != learn.data.device:
        learn.model.to(learn.data.device)


def batch_predict(learn: Any, items: Sequence) -> list[Prediction]:
    """See `Learner.batch_predict`."""
    if not len(items):
        return []
    in_pixels = any(block.is_spatial for block in learn.data.targets)  # which their inputs say the size of
    *inputs, raw, _ = get_preds(learn, dl=learn.data.test_dl(items), with_input=in_pixels, act=_unchanged)
    return _predictions(learn, raw, inputs[0] if inputs and isinstance(inputs[0], tuple) else tuple(inputs))


def _unchanged(raw: Any) -> Any:
    return raw


def _predictions(learn: Any, raw: Any, inputs: tuple) -> list[Prediction]:
    """A Prediction per item of a batch of raw outputs; lists in its fields where there are several targets.

    Targets with places in an image are decoded with their `inputs`, which tell how big that is.
    """
    probs, answers = map_tensors(loss_activation(learn.loss_func), raw), map_tensors(_decodes(learn), raw)
    blocks = learn.data.targets
    if isinstance(answers, Tensor):
        if len(blocks) != 1:
            return [Prediction(a, a, p) for a, p in zip(answers, probs, strict=True)]
        decoded = [row[0] for row in _decoded(learn.data, inputs, (answers,))]
        return [Prediction(d, a, p) for d, a, p in zip(decoded, answers, probs, strict=True)]
    rows = zip(_decoded(learn.data, inputs, tuple(answers)), zip(*answers, strict=True), zip(*probs, strict=True),
               strict=True)  # fmt: skip
    return [Prediction(list(d), list(a), list(p)) for d, a, p in rows]


def _decoded(data: Any, inputs: tuple, answers: tuple) -> list[tuple]:
    """The answers of each item as a person knows them."""
    if any(block.is_spatial for block in data.targets):
        return [sample[data.n_inp :] for sample in data.decode((*inputs, *answers))]
    rows = zip(*answers, strict=True)
    return [tuple(block.decode(a) for block, a in zip(data.targets, row, strict=False)) for row in rows]


def _decodes(learn: Any) -> Callable[[Tensor], Tensor]:
    """What turns outputs into answers: what the loss says, or for a loss that says nothing the likeliest label."""
    decodes, blocks = loss_decodes(learn.loss_func), learn.data.targets
    says_nothing = decodes is loss_decodes(None)
    return _likeliest if says_nothing and len(blocks) == 1 and isinstance(blocks[0], CategoryBlock) else decodes


def _likeliest(raw: Tensor) -> Tensor:
    return raw.argmax(-1)


def show_results(learn: Any, max_n: int) -> None:
    """See `Learner.show_results`."""
    data = learn.data
    if not data.blocks or data.valid_dl is None or not len(data.valid_ds):
        raise ValueError(
            "show_results needs a validation set from a DataBlock: other loaders do not say how a value looks."
        )
    n = min(max_n, len(data.valid_ds))
    picked = take(data.valid_ds.items, [i * len(data.valid_ds) // n for i in range(n)])
    samples = [sample for batch in data.test_dl(picked, with_labels=True) for sample in data.decode(batch)]
    several = len(data.targets) > 1
    preds = [p.decoded if several else (p.decoded,) for p in batch_predict(learn, picked)]
    if learn.ranks.rank == 0:
        show_samples(data.blocks, samples, data.n_inp, preds)


def _single(values: Any) -> Any:
    return values[0] if isinstance(values, tuple) and len(values) == 1 else values


def _to_cpu(value: Any) -> Any:
    return map_tensors(lambda t: t.detach().cpu(), value)


def _join(parts: Sequence[Any]) -> Any:
    """Batches' values as one: tensors concatenated, or – if their shapes differ – a list of items; None for nothing."""
    first = parts[0]
    if isinstance(first, Tensor):
        return _concatenated([part if part.ndim else part[None] for part in parts])
    if isinstance(first, dict):
        return {key: _join([part[key] for part in parts]) for key in first}
    if any(isinstance(value, (Tensor, dict, list, tuple)) for value in first):
        return tuple(_join(column) for column in zip(*parts, strict=True))
    return [value for part in parts for value in part] or None  # such as one text per item


def _concatenated(parts: list[Tensor]) -> Tensor | list[Tensor]:
    if len({part.shape[1:] for part in parts}) > 1:  # such as texts, padded by batch
        return [row for part in parts for row in part]
    return torch.cat(parts)


def _reordered(value: Any, order: Tensor) -> Any:
    """Joined values with their items in that order."""
    if isinstance(value, Tensor):
        return value[order]
    if isinstance(value, dict):
        return {key: _reordered(v, order) for key, v in value.items()}
    if isinstance(value, list):
        return [value[i] for i in order.tolist()]
    return tuple(_reordered(v, order) for v in value) if isinstance(value, tuple) else value
