"""A U-Net around any body: a decoder that leads its small maps back to the size of the image.

    model = DynamicUnet(create_body(resnet34), n_out=12)
    model(torch.zeros(2, 3, 97, 123)).shape    # (2, 12, 97, 123)

Ronneberger et al. 2015 (arXiv:1505.04597) in the form of fast.ai: pixels are shuffled instead of transposed
convolutions, and the image itself is the last of the skip connections.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .attention import SelfAttention
from .head import to_range
from .skips import Skip, Skips, find_skips
from .upsampling import pixel_shuffle_icnr, resized_to

__all__ = ["DynamicUnet", "Norm"]

Norm = Literal["batch", "weight"] | None
WIDEST = 512  # channels that go up from the smallest map


class DynamicUnet(nn.Module):
    """`body`, and a `decoder` of its last map, of those before each halving of the size, and of the image.

    Takes `(bs, n_in, h, w)` of any size that the body takes, odd ones too, and returns `(bs, n_out, h, w)`.

    - `size`: of the image that is sent through the body once to see where it has its maps (see `find_skips`).
    - `blur`: smooth what is upsampled (see `pixel_shuffle_icnr`), the last time only with `blur_final`.
    - `self_attention`: let the map third from the finest look at itself (see `SelfAttention`).
    - `y_range`: bring outputs between two numbers, by a sigmoid.
    - `last_cross`: let the last layers see the image; `bottle` halves the channels inside of them.
    - `norm` of the decoder: "batch", "weight" (Salimans & Kingma 2016, arXiv:1602.07868; with batch norm of the body's
      maps alone) or None.

    The widths are fast.ai's, but that no more than 512 channels go up: so a ResNet-50 gets a decoder of 100 million
    weights instead of 316. Nothing of a batch is kept after it, and a copy works by itself. Raises ValueError where
    `body` returns no maps.
    """

    def __init__(self, body: nn.Module, n_out: int, size: int | None = None, blur: bool = False,
                 blur_final: bool = True, self_attention: bool = False, y_range: Sequence[float] | None = None,
                 last_cross: bool = True, bottle: bool = False, norm: Norm = "batch", n_in: int = 3):  # fmt: skip
        super().__init__()
        _check_options(n_out, norm)
        found = find_skips(body, n_in, size)
        self.skips, self.body = found.skips, body
        for skip in found.skips:
            place = body.get_submodule(skip.path)
            place.keeps_map, place.kept_map = False, None  # type: ignore[assignment]  # any module may have them
            place.register_forward_hook(_keep_map)
        self.decoder = Decoder(found, n_out, blur, blur_final, self_attention, y_range, n_in * last_cross, bottle, norm)

    def forward(self, x: Tensor) -> Tensor:
        places: list[Any] = [self.body.get_submodule(skip.path) for skip in self.skips]
        for place in places:
            place.keeps_map = True
        try:
            deepest = self.body(x)
            maps = [_channels_first(place.kept_map, skip) for place, skip in zip(places, self.skips, strict=True)]
        finally:
            for place in places:
                place.keeps_map, place.kept_map = False, None
        return self.decoder(x, deepest, maps)


def _keep_map(module: Any, args: Any, output: Tensor) -> None:
    """A forward hook. It refers to nothing but the module that it gets: so it serves a copy of that just as well."""
    if module.keeps_map:
        module.kept_map = output


class Decoder(nn.Module):
    """From the image `(bs, n_in, h, w)`, the body's last map and those before, fine to coarse: `(bs, n_out, h, w)`."""

    def __init__(self, found: Skips, n_out: int, blur: bool, blur_final: bool, self_attention: bool,
                 y_range: Sequence[float] | None, n_cross: int, bottle: bool, norm: Norm):  # fmt: skip
        super().__init__()
        n_deepest = found.output.n_channels
        n = min(n_deepest, WIDEST)
        self.middle = nn.Sequential(
            _norm(n_deepest, norm), nn.ReLU(), conv_layer(n_deepest, 2 * n, norm=norm), conv_layer(2 * n, n, norm=norm)
        )
        blocks, size = [], found.output.size
        for number, skip in reversed(list(enumerate(found.skips))):
            looks = self_attention and number == min(2, len(found.skips) - 1)
            smooth = blur and (number > 0 or blur_final)
            block = UnetBlock(n, skip, round(skip.size / size), number == 0, smooth, looks, norm)
            blocks.append(block)
            n, size = block.n_out, skip.size
        self.blocks = nn.ModuleList(blocks)
        scale = round(found.image_size / size)
        self.upsample = pixel_shuffle_icnr(n, n, scale) if scale > 1 else nn.Identity()
        self.n_cross = n_cross
        n += n_cross
        last = [ResidualConvs(n, n // 2 if bottle else n, norm), conv_layer(n, n_out, 1, act=False)]
        self.last = nn.Sequential(*last, *to_range(y_range))

    def forward(self, image: Tensor, deepest: Tensor, maps: list[Tensor]) -> Tensor:
        x = self.middle(deepest)
        for block, skip in zip(self.blocks, reversed(maps), strict=True):
            x = block(x, skip)
        x = resized_to(self.upsample(x), image)
        return self.last(torch.cat([x, image.to(x.dtype)], dim=1) if self.n_cross else x)


class UnetBlock(nn.Module):
    """A map made `scale` times larger, joined by the skip connection of that size, and two convolutions of both.

    They keep all channels, the last block but half of them.
    """

    def __init__(self, n_up: int, skip: Skip, scale: int, is_last: bool, blur: bool, self_attention: bool, norm: Norm):
        super().__init__()
        half = max(1, n_up // 2)
        n = half + skip.n_channels
        self.n_out = n // 2 if is_last else n
        self.upsample = pixel_shuffle_icnr(n_up, half, scale, blur)
        self.norm = _norm(skip.n_channels, norm)
        self.relu = nn.ReLU(inplace=True)
        attention = [SelfAttention(self.n_out)] if self_attention else []
        self.convs = nn.Sequential(
            conv_layer(n, self.n_out, norm=norm), conv_layer(self.n_out, self.n_out, norm=norm), *attention
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = resized_to(self.upsample(x), skip)
        return self.convs(self.relu(torch.cat([up, self.norm(skip)], dim=1)))


class ResidualConvs(nn.Module):
    """`x` plus two convolutions of it, `n_inner` channels wide in between."""

    def __init__(self, n: int, n_inner: int, norm: Norm):
        super().__init__()
        self.convs = nn.Sequential(conv_layer(n, n_inner, norm=norm), conv_layer(n_inner, n, norm=norm, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x)


def conv_layer(n_in: int, n_out: int, size: int = 3, norm: Norm = None, act: bool = True) -> nn.Sequential:
    """Convolution, started as in He et al. 2015, batch norm if that is the `norm`, and ReLU."""
    conv = nn.Conv2d(n_in, n_out, size, padding=size // 2, bias=norm != "batch")
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu" if act else "linear")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    layers = [weight_norm(conv) if norm == "weight" else conv]
    layers += [nn.BatchNorm2d(n_out)] if norm == "batch" else []
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


def _norm(n: int, norm: Norm) -> nn.Module:
    """What brings the body's maps, whose numbers may be of any size, to that of the decoder's."""
    return nn.Identity() if norm is None else nn.BatchNorm2d(n)


def _channels_first(value: Tensor, skip: Skip) -> Tensor:
    return value.permute(0, 3, 1, 2) if skip.channels_last else value


def _check_options(n_out: int, norm: Norm) -> None:
    if n_out < 1:
        raise ValueError(f"n_out={n_out}: a U-Net has at least one output for each pixel.")
    if norm not in ("batch", "weight", None):
        raise ValueError(f"norm is 'batch', 'weight' or None, not {norm!r}.")
