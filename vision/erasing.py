"""Erasing rectangles of a batch of images, so that a network learns to look at more than one part.

    batch_tfms=[*aug_transforms(size=224), RandomErasing()]

Each image draws its own rectangles from (seed, epoch, item), so they do not depend on the batch that it is in.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors

from ..data.randomness import Randomness
from ..data.transforms import Transform
from .checks import check_float, check_range
from .samples import map_type, rewrap

__all__ = ["RandomErasing"]


@dataclass
class RandomErasing(Transform):
    """Erase rectangles of a batch of float images in training (Zhong et al. 2017, arXiv:1708.04896); for `batch_tfms`.

    - `p`: the probability that an image loses anything.
    - `min_area`, `max_area`: the range of the share that it loses, evenly drawn.
    - `min_aspect`: of height to width in pixels, evenly drawn on a logarithmic scale from that to its inverse, as far
      as such a rectangle fits into the image.
    - `max_count`: up to so many rectangles, evenly drawn, which share the area and may overlap.
    - `value`: what is put there. By default it is noise, as in the paper, but with mean and standard deviation of each
      channel of the image, so that it suits images of any normalisation.

    It comes after `Normalize`, so `value=0` is the mean colour. Only the first value of a sample is erased, if it is an
    image: targets stay whole. Raises ValueError for a number out of range, TypeError for integer images.
    """

    p: float = 0.5
    min_area: float = 0.02
    max_area: float = 1 / 3
    min_aspect: float = 0.3
    max_count: int = 1
    value: float | None = None

    order: ClassVar[int] = 100

    def __post_init__(self):
        check_range("p", self.p, 0 <= self.p <= 1, "a probability, 0 to 1")
        check_range("min_area", self.min_area, 0 <= self.min_area <= self.max_area, "a share, 0 to max_area")
        check_range("max_area", self.max_area, self.max_area <= 1, "a share of the image's area, up to 1")
        check_range("min_aspect", self.min_aspect, 0 < self.min_aspect <= 1, "height / width, above 0 and up to 1")
        check_range("max_count", self.max_count, self.max_count >= 1, "the largest number of rectangles, 1 or more")

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        if rand is None or self.p == 0:
            return sample
        images = map_type(tv_tensors.Image, lambda images: rewrap(self._erase(images, rand), images), sample[:1])
        return images + tuple(sample[1:])

    def rectangles(self, rand: Randomness, height: int, width: int) -> Tensor:
        """What images of that size lose: top, left, bottom, right in pixels, `(bs, max_count, 4)` int64 on the CPU.

        Where there is nothing to erase, a rectangle is empty.
        """
        numbers = rand.uniform(5 + 3 * self.max_count).double()
        _, _, erases, count, share, *others = numbers.unbind(1)  # the first two are the noise's
        aspect, y, x = torch.stack(others, 1).unflatten(1, (3, -1)).unbind(1)  # (bs, max_count) each
        count = (1 + count * self.max_count).floor()
        area = height * width * (self.min_area + (self.max_area - self.min_area) * share) / count
        sizes = self._sizes(area[:, None], aspect, height, width)
        sizes *= ((erases < self.p)[:, None] & (torch.arange(self.max_count) < count[:, None]))[..., None]
        corners = (torch.stack([y, x], -1) * (torch.tensor([height, width]) - sizes + 1)).floor()
        return torch.cat([corners, corners + sizes], -1).long()

    def _sizes(self, area: Tensor, aspect: Tensor, height: int, width: int) -> Tensor:
        """Height and width of rectangles of `area`, `(bs, max_count, 2)`; `aspect` in [0, 1) says how they stand."""
        lowest, highest = area / width**2, height**2 / area  # that fit
        low = torch.full_like(area, self.min_aspect).clamp(lowest, highest).log()
        high = torch.full_like(area, 1 / self.min_aspect).clamp(lowest, highest).log()
        ratio = (low + (high - low) * aspect).exp()
        return torch.stack([area * ratio, area / ratio], -1).sqrt().round()

    def _erase(self, images: Tensor, rand: Randomness) -> Tensor:
        check_float(images, "RandomErasing")
        pixels = images.as_subclass(Tensor)
        rectangles = self.rectangles(rand, *pixels.shape[-2:]).to(pixels.device, non_blocking=True)
        erased = _inside(rectangles, *pixels.shape[-2:])
        if self.value is not None:
            return pixels.masked_fill(erased, self.value)
        std, mean = torch.std_mean(pixels, (-2, -1), correction=0, keepdim=True)
        return torch.where(erased, mean + std * _noise(pixels, *rand.uniform(2).double().unbind(1)), pixels)


def _inside(rectangles: Tensor, height: int, width: int) -> Tensor:
    """Which pixels of an image lie in any of its `rectangles` `(bs, n, 4)`: `(bs, 1, height, width)` bool."""
    top, left, bottom, right = rectangles[..., None].unbind(2)  # (bs, n, 1) each
    y, x = (torch.arange(length, device=rectangles.device) for length in (height, width))
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return (rows[..., None] & columns[:, :, None]).any(1, keepdim=True)


def _noise(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Normal noise in the shape of `images` `(bs, c, h, w)`: for each one picture, shifted by its own shares of a side.

    So an image has the same noise in any batch, and no batch has to wait until its noise is drawn.
    """
    channels, height, width = images.shape[-3:]
    rows, columns = _shifted(height, down, images.device), _shifted(width, right, images.device)
    picture = _picture(channels, height, width, images.dtype, images.device)
    return picture[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)


def _shifted(length: int, shares: Tensor, device: torch.device) -> Tensor:
    """The numbers below `length`, for each of `shares` begun elsewhere and gone round: `(bs, length)` int64."""
    starts = (shares * length).long().to(device, non_blocking=True)
    return (torch.arange(length, device=device) + starts[:, None]) % length


@functools.lru_cache(maxsize=8)
def _picture(channels: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Normal noise, the same every time."""
    with torch.inference_mode(False):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(channels, height, width, generator=generator).to(device, dtype)
