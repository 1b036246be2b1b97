"""Changes of a batch of images' colours: one 3×3 matrix for each image."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ..data.randomness import Randomness
from ..data.transforms import Transform
from .checks import check_float, check_probabilities, check_range
from .samples import draw, map_type, rewrap

__all__ = ["Colour", "colour_matrix", "recolour"]

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, by ITU-R BT.601
# Red, green and blue as luma and two axes of colour (YIQ, the colours of NTSC), in which a hue is an angle
_TO_YIQ = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], dtype=torch.float64)


@dataclass
class Colour(Transform):
    """Change the saturation and the hue of a batch of float RGB images in [0, 1]; for `batch_tfms`.

    With probability `p_saturation`, how far a pixel is from grey is multiplied by up to 1 / (1 - max_saturation), or
    divided by it; with `p_hue`, its hue is turned by up to `max_hue` of the circle to either side. The luma of a pixel
    stays, as far as its colour exists: unlike a turn in HSV, which fast.ai and torchvision make, blue does not get as
    bright as yellow. Images with another number of channels than 3 pass.
    """

    max_saturation: float = 0.2
    max_hue: float = 0.1
    p_saturation: float = 0.75
    p_hue: float = 0.75
    batch: bool = False

    order: ClassVar[int] = 41
    clips: ClassVar[bool] = True

    def __post_init__(self):
        check_range("max_saturation", self.max_saturation, 0 <= self.max_saturation < 1, "0 or more and below 1")
        check_range("max_hue", self.max_hue, 0 <= self.max_hue <= 0.5, "a share of the circle, 0 to 0.5")
        check_probabilities(self, "p_saturation", "p_hue")

    @property
    def by_item(self) -> bool:  # type: ignore[override]
        return not self.batch

    @property
    def acts(self) -> bool:
        """Does it do anything, in training?"""
        return (self.max_saturation > 0 and self.p_saturation > 0) or (self.max_hue > 0 and self.p_hue > 0)

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        if rand is None or not self.acts:
            return sample
        matrix = colour_matrix(*self.changes(rand))
        return map_type(tv_tensors.Image, lambda image: rewrap(recolour(image, matrix), image), sample)

    def changes(self, rand: Randomness) -> tuple[Tensor, Tensor]:
        """The factors of saturation and the turns of hue, as shares of the circle: `(bs,)` float64, on the CPU."""
        saturates, saturation, turns, hue = draw(rand, 4, self.batch)
        saturation = np.exp(math.log1p(-self.max_saturation) * (2 * saturation - 1))
        saturation = np.where(saturates < self.p_saturation, saturation, 1)
        hue = np.where(turns < self.p_hue, self.max_hue * (2 * hue - 1), 0)
        return torch.from_numpy(saturation), torch.from_numpy(hue)


def colour_matrix(saturation: Tensor, hue: Tensor) -> Tensor:
    """What multiplies the colours (red, green, blue) of each image: `(n, 3, 3)` from `(n,)` factors and turns."""
    angle, zero = hue.double() * (2 * math.pi), torch.zeros_like(hue, dtype=torch.float64)
    cos, sin = saturation * angle.cos(), saturation * angle.sin()
    turn = torch.stack([zero + 1, zero, zero, zero, cos, sin, zero, -sin, cos], -1).unflatten(-1, (3, 3))
    return _TO_YIQ.inverse() @ turn @ _TO_YIQ


def recolour(images: Tensor, matrix: Tensor) -> Tensor:
    """`images` `(n, 3, h, w)` with their colours multiplied by `matrix` `(n, 3, 3)`, clipped to [0, 1]."""
    check_float(images, "Colour")
    pixels = images.as_subclass(Tensor)
    if pixels.shape[-3] != 3:
        return pixels
    return torch.einsum("nij,njhw->nihw", matrix.to(pixels, non_blocking=True), pixels).clamp_(0, 1)
