"""Weights by word, from one vocabulary to another."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["match_rows"]


def match_rows(rows: Tensor, old: Sequence[str], new: Sequence[str]) -> Tensor:
    """`(len(new), …)`: for each word of `new` its row of `rows`, `(len(old), …)`; for words not in `old` their mean.

    Howard & Ruder 2018, arXiv:1801.06146.
    """
    number = {word: i for i, word in enumerate(old)}
    found = torch.tensor([number.get(word, -1) for word in new])
    is_known = (found >= 0).view(-1, *[1] * (rows.ndim - 1))
    return torch.where(is_known, rows[found.clamp(min=0)], rows.mean(0))
