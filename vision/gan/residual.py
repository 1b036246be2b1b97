"""Residual generators and critics, as those of WGAN-GP and of spectral normalisation are."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from .nets import map_sizes, with_spectral_norm

__all__ = ["residual_critic", "residual_generator"]


def residual_generator(out_size: int, n_channels: int, in_sz: int = 100, n_features: int = 128) -> nn.Sequential:
    """Noise `(bs, in_sz)` to images `(bs, n_channels, out_size, out_size)` in −1…1.

    The one of Gulrajani et al. 2017 (arXiv:1704.00028) for small images: a linear layer, then a block for each
    doubling, all of `n_features` channels. Raises ValueError for an `out_size` that is not 4 to 7 times a power of two.
    """
    start, *sizes = map_sizes(out_size)
    blocks = [_Block(n_features, n_features, "up", with_norm=True) for _ in sizes]
    first = nn.Linear(in_sz, n_features * start**2), nn.Unflatten(1, (n_features, start, start))
    last = nn.BatchNorm2d(n_features), nn.ReLU(), nn.Conv2d(n_features, n_channels, 3, padding=1), nn.Tanh()
    return nn.Sequential(*first, *blocks, *last)


def residual_critic(in_size: int, n_channels: int, n_features: int = 128,
                    norm: Literal["spectral", "none"] = "none") -> nn.Module:  # fmt: skip
    """Images `(bs, n_channels, in_size, in_size)` to one score each, `(bs, 1)`; no BatchNorm.

    Two blocks that halve the map, two that do not, then the mean over places. "none" is for a `GradientPenalty`,
    "spectral" for the hinge loss (Miyato et al. 2018, arXiv:1802.05957). Raises ValueError for another norm, and for an
    `in_size` that is not 4 to 7 times a power of two.
    """
    if norm not in ("spectral", "none"):
        raise ValueError(f"norm={norm!r}: the norm of a residual critic is 'spectral' or 'none'.")
    map_sizes(in_size)
    blocks = [_Block(n_channels, n_features, "down", is_first=True), _Block(n_features, n_features, "down")]
    blocks += [_Block(n_features, n_features) for _ in range(2)]
    critic = nn.Sequential(*blocks, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_features, 1))
    return with_spectral_norm(critic) if norm == "spectral" else critic


class _Block(nn.Module):
    """Two convolutions beside a shortcut, both halving or doubling the map where `scale` says so."""

    def __init__(self, n_in: int, n_out: int, scale: Literal["up", "down"] | None = None, with_norm: bool = False,
                 is_first: bool = False):  # fmt: skip
        super().__init__()
        self.scale, self.is_first = scale, is_first
        self.norms = nn.ModuleList([nn.BatchNorm2d(n) if with_norm else nn.Identity() for n in (n_in, n_out)])
        self.convs = nn.ModuleList([nn.Conv2d(n, n_out, 3, padding=1) for n in (n_in, n_out)])
        self.shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = x if self.is_first else F.relu(self.norms[0](x))  # the first one gets pixels
        out = self.convs[0](_doubled(out) if self.scale == "up" else out)
        out = self.convs[1](F.relu(self.norms[1](out)))
        if self.scale == "down":
            return F.avg_pool2d(out + self.shortcut(x), 2)
        return out + self.shortcut(_doubled(x) if self.scale == "up" else x)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
