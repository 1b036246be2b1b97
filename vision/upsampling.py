"""Making maps larger: sub-pixel convolution, started so that it leaves no checkerboard.

>>> pixel_shuffle_icnr(64, 32)(torch.zeros(2, 64, 10, 12)).shape
torch.Size([2, 32, 20, 24])
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["icnr_", "pixel_shuffle_icnr", "resized_to"]


def pixel_shuffle_icnr(n_in: int, n_out: int, scale: int = 2, blur: bool = False) -> nn.Sequential:
    """`(bs, n_in, h, w)` to `(bs, n_out, scale·h, scale·w)`: a 1×1 convolution, ReLU, and its channels as pixels.

    Shi et al. 2016, arXiv:1609.05158, with the start of Aitken et al. 2017 (`icnr_`). With `blur` each pixel becomes
    the mean of the 2×2 that it ends, which takes away the checkerboard that training may bring (Sugawara et al. 2018,
    arXiv:1806.02658). The convolution has a bias and no norm, which would scale neighbouring pixels differently.
    """
    conv = nn.Conv2d(n_in, n_out * scale**2, 1)
    icnr_(conv.weight, scale)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    smooth = [nn.ReplicationPad2d((1, 0, 1, 0)), nn.AvgPool2d(2, stride=1)] if blur else []
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.PixelShuffle(scale), *smooth)


def icnr_(weight: Tensor, scale: int = 2, init: Callable[[Tensor], Tensor] = nn.init.kaiming_normal_) -> Tensor:
    """Fill the `weight` of a convolution before `nn.PixelShuffle(scale)` so that all pixels of a square are the same.

    At the start the two together are nearest-neighbour upsampling after a convolution that starts by `init` (Aitken et
    al. 2017, arXiv:1707.02937). Raises ValueError where the first axis is no multiple of `scale²`.
    """
    if weight.shape[0] % scale**2:
        raise ValueError(f"{weight.shape[0]} channels do not make squares of {scale} × {scale} pixels.")
    one = init(weight.new_empty(weight.shape[0] // scale**2, *weight.shape[1:]))
    with torch.no_grad():
        return weight.copy_(one.repeat_interleave(scale**2, dim=0))


def resized_to(x: Tensor, like: Tensor) -> Tensor:
    """`x` in the height and width of `like`, bilinearly; itself where it has them."""
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
