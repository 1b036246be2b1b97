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
        self.as_they_came = self.file.with_name(f".{self.file.name}.raw.part")
        self.items: list[int] = []

    def before_validate(self, learn: Any) -> None:
        self.n, self.items = 0, []
        self.shape: tuple[int, ...] | None = None  # of one item's prediction
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

    def finish(self) -> Tensor:
        """All predictions, read from the file where they are used."""
        raw = np.memmap(self.as_they_came, self.dtype, "r", shape=(self.n, *(self.shape or ())))
        order = np.argsort(self.items) if self.items else np.arange(self.n)
        unfinished = self.file.with_name(f".{self.file.name}.part")
        ordered = np.lib.format.open_memmap(unfinished, "w+", self.dtype, raw.shape)
        for start in range(0, self.n, self.CHUNK):
            ordered[start : start + self.CHUNK] = raw[order[start : start + self.CHUNK]]
        ordered.flush()
        unfinished.replace(self.file)
        self.as_they_came.unlink()
        return torch.from_numpy(np.load(self.file, mmap_mode="c"))
