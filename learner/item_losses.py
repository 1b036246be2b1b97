"""The loss of each item of a set, and what a model answers where that is small.

losses, outputs, targs = losses_and_vectors(learn, dl)         # (n,), (n, …), (n, …)
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..callbacks.nested import map_tensors, tensors_in
from ..data.loaders import DeviceLoader
from .gathering import GatherPreds, join_batches
from .stages import changed

__all__ = ["loss_not_reduced", "losses_and_vectors"]


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


def losses_and_vectors(learn: Any, dl: DeviceLoader) -> tuple[Tensor, Any, Any]:
    """The loss of each item `(n,)`, and where a model answers with vectors its raw outputs and targets, else None.

    All on the CPU, in the order of the dataset. Raises ValueError where there are no labels, or no loss.
    """
    if learn.loss_func is None:
        raise ValueError("This learner has no loss_func, which says how wrong an item is: assign learn.loss_func.")
    by_item = hasattr(learn.loss_func, "reduction") or _takes_reduction(learn.loss_func)
    gather = _GatherVectors(one_by_one=not by_item)
    learn.model.to(learn.data.device)
    reduction, as_model = loss_not_reduced(learn) if by_item else nullcontext(), changed(learn, "system", None)
    with learn.without_cbs(learn.evaluate), learn.added_cbs(gather), reduction, as_model:
        learn.run_validation(dl)
    return gather.finish(learn.ranks)


class _GatherVectors(GatherPreds):
    """Collects the loss of each item and, as long as the model answers with vectors, outputs and targets, too.

    With `one_by_one` the loss function is asked about each item on its own.
    """

    def __init__(self, one_by_one: bool = False):
        super().__init__(with_loss=True)
        self.one_by_one = one_by_one

    def after_batch(self, learn: Any) -> None:
        self.with_preds = self.with_targs = all(tensor.ndim <= 2 for tensor in tensors_in(learn.pred))
        super().after_batch(learn)

    def losses_of(self, learn: Any) -> Tensor:
        return self._one_by_one(learn) if self.one_by_one else super().losses_of(learn)

    @staticmethod
    def _one_by_one(learn: Any) -> Tensor:
        with learn.precision():
            items = [map_tensors(lambda t, i=i: t[i : i + 1], (learn.pred, *learn.yb)) for i in range(learn.bs)]
            return torch.stack([learn.loss_func(*item).detach().mean() for item in items])

    def finish(self, ranks: Any) -> tuple[Tensor, Any, Any]:
        """Losses, outputs and targets of all items; the latter two None for maps, and vectors of several lengths."""
        self.collect(ranks)
        if not self.losses:
            raise ValueError(
                "These items have no labels to compute losses with: pass dl=data.test_dl(items, with_labels=True)."
            )
        losses = self.in_order(join_batches(self.losses))
        if len(self.preds) < len(self.losses):
            return losses, None, None
        outputs, targs = (self.in_order(join_batches(batches)) for batches in (self.preds, self.targs))
        is_whole = all(len(tensor) == len(losses) for tensor in tensors_in((outputs, targs)))
        return (losses, outputs, targs) if is_whole else (losses, None, None)
