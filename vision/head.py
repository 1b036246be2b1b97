"""The head of a vision model: from the body's features to the predictions.

>>> create_head(512, 10)(torch.zeros(4, 512, 7, 7)).shape
torch.Size([4, 10])
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["AdaptiveConcatPool2d", "create_head", "to_range"]


class AdaptiveConcatPool2d(nn.Module):
    """Maximum and average over the map, one after the other: (bs, c, h, w) to (bs, 2c, size, size), as in fast.ai."""

    def __init__(self, size: int = 1):
        super().__init__()
        self.max = nn.AdaptiveMaxPool2d(size)
        self.average = nn.AdaptiveAvgPool2d(size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.max(x), self.average(x)], dim=1)


def create_head(
    nf: int,
    n_out: int,
    lin_ftrs: Sequence[int] | None = None,
    ps: float | Sequence[float] = 0.5,
    concat_pool: bool = True,
    *,
    pool: bool = True,
    y_range: Sequence[float] | None = None,
) -> nn.Sequential:
    """fast.ai's head: pooling, then batch norm, dropout and a linear layer for each size, with ReLU in between.

    Takes a map (bs, `nf`, h, w), or with `pool=False` features (bs, `nf`), and returns (bs, `n_out`). `lin_ftrs` are
    the sizes of the hidden layers, 512 by default; an empty list gives a single linear layer. `ps` is the dropout
    before the last layer, half of it before the others, or a list with one for each. With `y_range=(low, high)` a
    sigmoid brings the outputs between these two. Weights start as in He et al. (2015, arXiv:1502.01852), biases at
    zero.

    Raises ValueError for sizes below 1, dropout outside 0–1, lists of different lengths and a `y_range` that is none.
    """
    hidden = [512] if lin_ftrs is None else list(lin_ftrs)
    n_pooled = 2 * nf if pool and concat_pool else nf
    sizes = [n_pooled, *hidden, n_out]
    if min(sizes) < 1:
        raise ValueError(f"Sizes of layers are at least 1; got nf={nf}, lin_ftrs={lin_ftrs}, n_out={n_out}.")
    layers = _pooling(concat_pool) if pool else []
    for i, p in enumerate(_dropouts(ps, len(hidden))):
        linear = nn.Linear(sizes[i], sizes[i + 1])
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        relu = [nn.ReLU(inplace=True)] if i < len(hidden) else []
        layers += [nn.BatchNorm1d(sizes[i]), nn.Dropout(p), linear, *relu]
    return nn.Sequential(*layers, *to_range(y_range))


def to_range(y_range: Sequence[float] | None) -> list[nn.Module]:
    """The layers that bring numbers between the two of `y_range`: none for None. Raises ValueError for no range."""
    if y_range is None:
        return []
    if len(y_range) != 2 or not y_range[0] < y_range[1]:
        raise ValueError(f"y_range is the lowest and the highest output, such as (0, 1), not {y_range!r}.")
    return [SigmoidRange(*y_range)]


class SigmoidRange(nn.Module):
    """Numbers between `low` and `high`."""

    def __init__(self, low: float, high: float):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid() * (self.high - self.low) + self.low


def _pooling(concat_pool: bool) -> list[nn.Module]:
    return [AdaptiveConcatPool2d() if concat_pool else nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def _dropouts(ps: float | Sequence[float], n_hidden: int) -> list[float]:
    dropouts = list(ps) if isinstance(ps, Sequence) else [ps / 2] * n_hidden + [ps]
    if len(dropouts) != n_hidden + 1 or not all(0 <= p <= 1 for p in dropouts):
        raise ValueError(
            f"ps is one dropout, or a list of {n_hidden + 1} for {n_hidden} hidden layers and the last, "
            f"each from 0 to 1; got {ps}."
        )
    return dropouts
