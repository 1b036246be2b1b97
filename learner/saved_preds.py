"""Predictions that are written to a file as they come, for more of them than memory holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..callbacks.core import Callback

__all__ = ["SavePreds"]


class SavePreds(Callback):
    """Writes `act(pred)` of each batch of a validation to disk; `finish` makes a `.npy` file of them, in item order.

    Raises TypeError for a model that returns anything but a tensor for a batch, ValueError where the shapes of two
    batches' items differ.
    """

    order = 40
    CHUNK = 4096  # rows that are put in order at a time

    def __init__(self, file: Path, act: Callable[[Any], Any]):
        self.file, self.act = file.with_suffix(".npy"), act
        self.n, self.items = 0, []
        self.shape: tuple[int, ...] | None = None  # of one item's prediction
        self.dtype: Any = None

    def before_validate(self, learn: Any) -> None:
        self.as_they_came = self.file.with_name(f".{self.file.name}.raw.{learn.ranks.rank}.part")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.as_they_came.unlink(missing_ok=True)

    def after_batch(self, learn: Any) -> None:
        preds = self.act(learn.pred.detach().cpu() if isinstance(learn.pred, Tensor) else learn.pred)
        if not isinstance(preds, Tensor):
            raise TypeError(f"save_preds writes one tensor per batch, and the model returned {type(preds).__name__}.")
        values = preds.numpy()
        if self.shape not in (None, values.shape[1:]):
            raise ValueError(f"save_preds writes one array, and predictions are {self.shape} and {values.shape[1:]}.")
        self.shape, self.dtype, self.n = values.shape[1:], values.dtype, self.n + len(values)
        self.items += getattr(learn.dl, "items", None) or []
        with self.as_they_came.open("ab") as file:
            file.write(values.tobytes())

    def after_cancel_validate(self, learn: Any) -> None:
        self.as_they_came.unlink(missing_ok=True)

    def finish(self, ranks: Any) -> Tensor:
        """All predictions, read from the file where they are used; of several processes the first puts it together."""
        parts = [part for part in ranks.gather((self.as_they_came, self.n, self.items)) if part[1]]
        ranks.from_first(lambda: self._put_together(parts))
        return torch.from_numpy(np.load(self.file, mmap_mode="c"))

    def _put_together(self, parts: list[tuple[Path, int, list[int]]]) -> None:
        items = [item for _, _, items in parts for item in items]
        if len(parts) > 1 and not items:
            raise ValueError("save_preds needs to know the order of items: use a DataBlock, or DataBunch.from_dsets.")
        n = sum(n for _, n, _ in parts)
        places = np.argsort(np.argsort(items)) if items else np.arange(n)
        unfinished = self.file.with_name(f".{self.file.name}.part")
        ordered = np.lib.format.open_memmap(unfinished, "w+", self.dtype, (n, *(self.shape or ())))
        for file, n_part, _ in parts:
            raw = np.memmap(file, self.dtype, "r", shape=(n_part, *(self.shape or ())))
            for start in range(0, n_part, self.CHUNK):
                rows = slice(start, min(start + self.CHUNK, n_part))
                ordered[places[rows]] = raw[rows]
            places = places[n_part:]
        ordered.flush()
        unfinished.replace(self.file)
        for file, _, _ in parts:
            file.unlink()
