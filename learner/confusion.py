"""Which classes are taken for which: counts, drawn as a table, and read as a list.

>>> counts = confusion_of(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)     # actual, predicted
>>> most_confused(counts, ["ant", "bee"])
[('ant', 'bee', 1)]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["confusion_of", "draw_confusion", "most_confused"]


def confusion_of(targ: Tensor, answer: Tensor, c: int, ignore_index: int | None = None) -> Tensor:
    """`(c, c)` int64 counts on the device of `targ`: rows are actual classes, columns the predicted ones.

    Targets outside of 0 … c − 1, as those that losses ignore may be, and `ignore_index` are not counted.
    """
    targ, answer = targ.flatten().long(), answer.flatten().long()
    counted = (targ >= 0) & (targ < c)
    if ignore_index is not None:
        counted &= targ != ignore_index
    cells = torch.where(counted, targ * c + answer, 0)
    counts = torch.zeros(c * c, dtype=torch.long, device=targ.device)  # bincount would wait for the device
    return counts.index_add_(0, cells, counted.long()).view(c, c)


def most_confused(counts: np.ndarray, vocab: Sequence[Any], min_val: int = 1) -> list[tuple[Any, Any, int]]:
    """`(actual, predicted, count)` of each pair of classes confused at least `min_val` times, most often first."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    pairs = zip(*np.nonzero(wrong >= max(1, min_val)), strict=True)
    return sorted(((vocab[i], vocab[j], int(wrong[i, j])) for i, j in pairs), key=lambda pair: -pair[2])


def draw_confusion(counts: np.ndarray, vocab: Sequence[Any], normalize: bool = False,
                   figsize: tuple[float, float] | None = None) -> None:  # fmt: skip
    """Draw counts as a coloured table; with `normalize` as shares of each actual class."""
    from matplotlib import pyplot as plt

    values = counts / counts.sum(1, keepdims=True).clip(1) if normalize else counts
    names = [str(name) for name in vocab]
    size = min(14.0, max(3.5, 0.45 * len(names) + 2))
    _, ax = plt.subplots(figsize=figsize or (size, size), layout="constrained")
    ax.imshow(values, cmap="Blues")
    ax.set(xlabel="predicted", ylabel="actual", title="Confusion matrix")
    ax.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    ax.set_yticks(range(len(names)), names)
    if len(names) <= 30:  # more numbers could not be read
        _write_values(ax, values, "{:.2f}" if normalize else "{}")


def _write_values(ax: Any, values: np.ndarray, template: str) -> None:
    for (row, col), value in np.ndenumerate(values):
        color = "white" if value > values.max() / 2 else "black"
        ax.text(col, row, template.format(value), ha="center", va="center", fontsize=9, color=color)
