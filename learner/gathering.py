"""What a pass over data leaves behind: inputs, outputs, targets and losses of its batches, joined, in order of items.

gather = GatherPreds(with_loss=True)
with learn.added_cbs(gather), learn.loss_not_reduced():
    learn.run_validation(dl)
gather.collect(learn.ranks)
losses = gather.in_order(join_batches(gather.losses))            # (n,)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..callbacks.core import Callback
from ..callbacks.nested import map_tensors

__all__ = ["GatherPreds", "join_batches", "reordered", "single", "to_cpu"]


class GatherPreds(Callback):
    """Collects inputs, outputs, targets and losses of a validation, on the CPU."""

    order = 40

    def __init__(self, with_input: bool = False, with_loss: bool = False, with_preds: bool = True,
                 with_targs: bool = True):  # fmt: skip
        self.with_input, self.with_loss = with_input, with_loss
        self.with_preds, self.with_targs = with_preds, with_targs

    def before_validate(self, learn: Any) -> None:
        self.inputs, self.preds, self.targs, self.losses, self.items = [], [], [], [], []  # by batch

    def collect(self, ranks: Any) -> None:
        """Add what other processes have."""
        for name in ("inputs", "preds", "targs", "losses", "items"):
            setattr(self, name, ranks.in_turn(getattr(self, name)))

    def after_batch(self, learn: Any) -> None:
        self.items.append(getattr(learn.dl, "items", None) or [])
        if self.with_preds:
            self.preds.append(to_cpu(learn.pred))
        if self.with_targs:
            self.targs.append(to_cpu(single(learn.yb)))
        if self.with_input:
            self.inputs.append(to_cpu(single(learn.xb)))
        if self.with_loss and learn.yb:
            self.losses.append(self.losses_of(learn).cpu())

    def losses_of(self, learn: Any) -> Tensor:
        """The loss of each item in the batch, `(bs,)`, of a loss that is not reduced."""
        return _per_item(learn.loss, single(learn.yb), learn.bs, getattr(learn.loss_func, "ignore_index", None))

    def in_order(self, values: Any) -> Any:
        """Joined values in the order of the dataset, where that is known."""
        items = [item for batch in self.items for item in batch]
        return reordered(values, torch.tensor(items).argsort()) if items else values


def _per_item(loss: Tensor, targ: Any, bs: int, ignore_index: int | None) -> Tensor:
    """Losses per target averaged to one per item, `(bs,)`, over the targets that count."""
    if not loss.ndim or len(loss) != bs:
        raise ValueError(
            f"The loss gave a tensor of shape {tuple(loss.shape)} for {bs} items, although its reduction was 'none': "
            "losses per item need a loss that heeds `reduction`."
        )
    loss = loss.detach()
    if ignore_index is None or not isinstance(targ, Tensor) or targ.shape != loss.shape:
        return loss.reshape(bs, -1).mean(1)
    counts = (targ != ignore_index).reshape(bs, -1).sum(1)  # those that are ignored have a loss of 0
    return loss.reshape(bs, -1).sum(1) / counts.clamp(min=1)


def single(values: Any) -> Any:
    """The value of a tuple of one, and anything else as it is."""
    return values[0] if isinstance(values, tuple) and len(values) == 1 else values


def to_cpu(value: Any) -> Any:
    """`value` with the tensors in it on the CPU, without their graph."""
    return map_tensors(lambda t: t.detach().cpu(), value)


def join_batches(parts: Sequence[Any]) -> Any:
    """Batches' values as one: tensors concatenated, or – if their shapes differ – a list of items; None for nothing."""
    first = parts[0]
    if isinstance(first, Tensor):
        return _concatenated([part if part.ndim else part[None] for part in parts])
    if isinstance(first, dict):
        return {key: join_batches([part[key] for part in parts]) for key in first}
    if any(isinstance(value, (Tensor, dict, list, tuple)) for value in first):
        return tuple(join_batches(column) for column in zip(*parts, strict=True))
    return [value for part in parts for value in part] or None  # such as one text per item


def _concatenated(parts: list[Tensor]) -> Tensor | list[Tensor]:
    if len({part.shape[1:] for part in parts}) > 1:  # such as texts, padded by batch
        return [row for part in parts for row in part]
    return torch.cat(parts)


def reordered(value: Any, order: Tensor) -> Any:
    """Joined values with their items in that order."""
    if isinstance(value, Tensor):
        return value[order]
    if isinstance(value, dict):
        return {key: reordered(v, order) for key, v in value.items()}
    if isinstance(value, list):
        return [value[i] for i in order.tolist()]
    return tuple(reordered(v, order) for v in value) if isinstance(value, tuple) else value
