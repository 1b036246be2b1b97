"""Changes of a batch of images' light: one multiplication and one addition for each image."""

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

__all__ = ["Lighting", "light"]


@dataclass
class Lighting(Transform):
    """Change the contrast and the brightness of a batch of float images in [0, 1], each with probability `p_lighting`.

    `p_brightness` and `p_contrast`, where they are given, are the probability of one of the two.
    Contrast multiplies how far a pixel is from the image's mean by up to 1 / (1 - max_lighting), or divides by it;
    brightness adds up to `max_lighting` / 2 to either side. At mid grey both are as strong as fast.ai's, which work on
    logits and so spare the dark and bright ends; here these are clipped to [0, 1] instead.
    """

    max_lighting: float = 0.2
    p_lighting: float = 0.75
    batch: bool = False
    p_brightness: float | None = None
    p_contrast: float | None = None

    order: ClassVar[int] = 40
    clips: ClassVar[bool] = True

    def __post_init__(self):
        check_range("max_lighting", self.max_lighting, 0 <= self.max_lighting < 1, "0 or more and below 1")
        check_probabilities(self, "p_lighting", "p_brightness", "p_contrast")

    @property
    def by_item(self) -> bool:  # type: ignore[override]
        return not self.batch

    @property
    def acts(self) -> bool:
        """Does it do anything, in training?"""
        return self.max_lighting > 0 and any(p > 0 for p in self._probabilities)

    @property
    def _probabilities(self) -> tuple[float, ...]:
        """Of changing contrast and brightness."""
        return tuple(self.p_lighting if p is None else p for p in (self.p_contrast, self.p_brightness))

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        if rand is None or not self.acts:
            return sample
        changes = self.changes(rand)
        return map_type(tv_tensors.Image, lambda image: rewrap(light(image, *changes), image), sample)

    def changes(self, rand: Randomness) -> tuple[Tensor, Tensor]:
        """The factors of contrast and the additions of brightness drawn, `(bs,)` float32 each, on the CPU."""
        contrasts, contrast, lightens, brightness = draw(rand, 4, self.batch)
        p_contrast, p_brightness = self._probabilities
        contrast = np.exp(math.log1p(-self.max_lighting) * (2 * contrast - 1))
        brightness = self.max_lighting * (brightness - 0.5)
        contrast = np.where(contrasts < p_contrast, contrast, 1)
        brightness = np.where(lightens < p_brightness, brightness, 0)
        return torch.from_numpy(contrast).float(), torch.from_numpy(brightness).float()


def light(images: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """`images` `(n, c, h, w)`, their distance to their mean times `contrast`, plus `brightness`, clipped to [0, 1].

    `contrast` and `brightness` are `(n,)`; `images` are float and stay as they are.
    """
    check_float(images, "Lighting")
    pixels = images.as_subclass(Tensor)
    gain, shift = torch.stack((contrast, brightness)).to(pixels, non_blocking=True)[..., None, None, None]
    shift = shift + (1 - gain) * pixels.mean((1, 2, 3), keepdim=True)
    return (pixels * gain).add_(shift).clamp_(0, 1)
