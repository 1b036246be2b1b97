"""A U-Net that looks at a noisy image, at how noisy it is, and perhaps at what it shows.

    net = DenoisingUnet(n_channels=1, n_classes=10, widths=(32, 64))
    net(torch.zeros(8, 1, 28, 28), torch.full((8,), 0.5), torch.arange(8)).shape    # (8, 1, 28, 28)

That of Ho et al. 2020 (arXiv:2006.11239), made small: meant for images of up to some 64 pixels, on modest machines.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import SelfAttention

__all__ = ["DenoisingUnet"]

N_GROUPS = 8  # of GroupNorm, where the channels can be parted into so many


class DenoisingUnet(nn.Module):
    """Takes noisy images `(bs, n_channels, h, w)`, times `(bs,)` from 0 to 1, and labels; returns the images' shape.

    `widths` are the channels of its maps, each half as large as the one before. The finest has a place for each square
    of `patch` pixels (Hoogeboom et al. 2023, arXiv:2301.11093), which makes 2 nearly four times as fast as 1. Labels
    are int64 `(bs,)`, `n_classes` of them meaning "any"; None is that for all. The last layer starts with zeros.

    Raises ValueError for no widths, or a patch below 1.
    """

    def __init__(self, n_channels: int, n_classes: int = 0, widths: Sequence[int] = (64, 128), patch: int = 2):
        super().__init__()
        if not widths or patch < 1:
            raise ValueError(f"widths={widths}, patch={patch}: the U-Net has one map or more, of patches from 1 pixel.")
        self.patch, self.n_classes, n_time = patch, n_classes, 4 * widths[0]
        self.time = nn.Sequential(Waves(n_time // 2), nn.Linear(n_time, n_time), nn.SiLU(), nn.Linear(n_time, n_time))
        self.label = nn.Embedding(n_classes + 1, n_time)
        self.first = nn.Conv2d(n_channels * patch**2, widths[0], 3, padding=1)
        before = [widths[0], *widths[:-1]]
        self.down = nn.ModuleList(TimedBlock(n, width, n_time) for n, width in zip(before, widths, strict=True))
        self.halve = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for width in widths[:-1])
        deepest = widths[-1]
        self.middle = nn.ModuleList(
            [TimedBlock(deepest, deepest, n_time), SelfAttention(deepest), TimedBlock(deepest, deepest, n_time)]
        )
        self.up = nn.ModuleList(
            TimedBlock(2 * width, n, n_time) for n, width in reversed([*zip(before, widths, strict=True)])
        )
        self.last = nn.Sequential(_norm(widths[0]), nn.SiLU(), zeroed(nn.Conv2d(widths[0], n_channels * patch**2, 1)))
        self.to(memory_format=torch.channels_last)

    def forward(self, noisy: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        size = noisy.shape[-2:]
        any_label = torch.full((len(noisy),), self.n_classes, device=noisy.device)
        about = self.time(time) + self.label(any_label if labels is None else labels)
        x = self.first(F.pixel_unshuffle(self._padded(noisy), self.patch))
        maps = []
        for block, halve in zip(self.down, [*self.halve, nn.Identity()], strict=True):
            x = block(x, about)
            maps.append(x)
            x = halve(x)
        early, attention, late = self.middle
        x = late(attention(early(x, about)), about)
        for block in self.up:
            skip = maps.pop()
            x = block(torch.cat([F.interpolate(x, skip.shape[-2:]), skip], dim=1), about)
        return F.pixel_shuffle(self.last(x), self.patch)[..., : size[0], : size[1]]

    def _padded(self, images: Tensor) -> Tensor:
        """Images whose sides are multiples of a patch's."""
        down, right = (-side % self.patch for side in images.shape[-2:])
        return F.pad(images, (0, right, 0, down)) if down or right else images


class TimedBlock(nn.Module):
    """`x` plus two convolutions of it; in between it is scaled and shifted by what is known of it, `(bs, n_about)`."""

    def __init__(self, n_in: int, n_out: int, n_about: int):
        super().__init__()
        self.enter = nn.Sequential(_norm(n_in), nn.SiLU(), nn.Conv2d(n_in, n_out, 3, padding=1))
        self.about = nn.Sequential(nn.SiLU(), nn.Linear(n_about, 2 * n_out))
        self.norm = _norm(n_out)
        self.leave = nn.Sequential(nn.SiLU(), zeroed(nn.Conv2d(n_out, n_out, 3, padding=1)))
        self.direct = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor, about: Tensor) -> Tensor:
        scale, shift = self.about(about)[..., None, None].chunk(2, dim=1)
        inner = torch.addcmul(shift, self.norm(self.enter(x)), 1 + scale)
        return self.direct(x) + self.leave(inner)


class Waves(nn.Module):
    """Times `(bs,)` from 0 to 1 as `(bs, 2 · n)` sines and cosines of different lengths (Vaswani et al. 2017)."""

    frequencies: Tensor

    def __init__(self, n: int, longest: float = 10_000.0):
        super().__init__()
        lengths = torch.exp(-math.log(longest) * torch.arange(n) / n)
        self.register_buffer("frequencies", 1000 * lengths, persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        angles = time[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution whose output is zero until it has learned something."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _norm(n: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(N_GROUPS, n), n)
