"""Bring images to one size (in the loader, one by one) and to the numbers a model expects (on the device, by batch).

    item_tfms=Resize(460)                                            # uint8 images, now 460 x 460
    batch_tfms=[ToFloat(), Normalize.from_stats(*imagenet_stats)]    # float in [0, 1], then of mean 0 and std 1

Everything spatial in a sample (images, masks, boxes, points: the `torchvision.tv_tensors`) moves together; every other
value passes untouched. Training draws its numbers from `rand`; without `rand` (validation, test) all is deterministic.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import TVTensor

from ..data.randomness import Randomness
from ..data.transforms import Transform
from .checks import check_float, check_option, check_range
from .resizing import MIDDLE, PAD_MODES, Box, Size, around, height_width, inside, pad, resize, resized_crop, window
from .samples import map_type, rewrap

__all__ = ["Normalize", "RandomResizedCrop", "Resize", "ToFloat", "imagenet_stats", "to_float"]

imagenet_stats = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std of red, green and blue in [0, 1]


@dataclass
class Resize(Transform):
    """Bring images to `size`, an int for a square or (height, width) in pixels; for `item_tfms`.

    `method` says what becomes of an image in other proportions: "crop" scales it until it covers `size` and cuts off
    the rest; "pad" scales it until it fits in and fills up, by `pad_mode`: with its mirror image ("reflection"), its
    edge ("border") or black ("zeros"); "squish" changes its proportions. What is cut off or filled up is random in
    training, the same on both sides otherwise. Images are antialiased, masks take the nearest pixel.

    Raises ValueError for another method or pad_mode, and for a size that is not positive.
    """

    size: Size
    method: str = "crop"
    pad_mode: str = "reflection"

    def __post_init__(self):
        height_width(self.size)
        check_option("method", self.method, ("crop", "pad", "squish"))
        check_option("pad_mode", self.pad_mode, PAD_MODES)

    @property
    def min_side(self) -> int:
        """The length of the shorter side, in pixels, from which on no pixel of the result has to be invented.

        A file may be decoded at a reduced scale as long as its shorter side stays this long. "pad" has to fill only one
        side of `size`, and does so without enlarging when both sides are as long as the smaller one of `size`.
        """
        return (min if self.method == "pad" else max)(height_width(self.size))

    def presize(self, sample: tuple) -> tuple:
        """All but cutting off and filling up; an image that has to grow to cover `size` stays as it is."""
        return map_type(TVTensor, lambda value: resize(value, self._scaled(F.get_size(value))), sample)

    def _scaled(self, old: Sequence[int]) -> tuple[int, int]:
        """The size to which an image is scaled before anything is cut off or filled up."""
        size = height_width(self.size)
        if self.method != "crop":
            return inside(old, size) if self.method == "pad" else size
        height, width = around(old, size)
        return (height, width) if height * width < old[0] * old[1] else (old[0], old[1])

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        place = MIDDLE if rand is None else rand.uniform(2)[0].tolist()
        return map_type(TVTensor, lambda value: self._cut_or_fill(value, place), self.presize(sample))

    def _cut_or_fill(self, value: TVTensor, place: Sequence[float]) -> Tensor:
        size = height_width(self.size)
        if self.method == "crop":
            return resized_crop(value, window(F.get_size(value), size, place), size)
        return pad(value, size, place, self.pad_mode) if self.method == "pad" else value


@dataclass
class RandomResizedCrop(Transform):
    """Cut a random window out of each image and bring it to `size` (int or (height, width)); for `item_tfms`.

    In training the window has `min_scale` to 1 of the image's area and `ratio` width to height (as torchvision's
    `RandomResizedCrop`; Szegedy et al. 2014, arXiv:1409.4842, section 6). Otherwise it is the middle of the image: the
    largest window in the proportions of `size`, less an eighth of each side (224 of 256, the usual test on ImageNet).

    Raises ValueError unless 0 < min_scale <= 1 and 0 < ratio[0] <= ratio[1].
    """

    size: Size
    min_scale: float = 0.35
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    N_ATTEMPTS: ClassVar[int] = 10
    VALID_SHARE: ClassVar[float] = 0.875  # of each side, which is fast.ai's val_xtra of 0.14

    def __post_init__(self):
        height_width(self.size)
        check_range("min_scale", self.min_scale, 0 < self.min_scale <= 1, "a share of the area, above 0 and up to 1")
        check_range("ratio", self.ratio, 0 < self.ratio[0] <= self.ratio[1], "the smallest and largest width / height")

    @property
    def min_side(self) -> int:
        """The length of the shorter side, in pixels, from which on even the smallest window fills `size`."""
        return math.ceil(max(height_width(self.size)) / min(math.sqrt(self.min_scale), self.VALID_SHARE))

    def presize(self, sample: tuple) -> tuple:
        """Images scaled down to twice `min_side`, so that cutting and scaling a window still averages pixels."""
        return map_type(TVTensor, lambda value: resize(value, self._scaled(F.get_size(value))), sample)

    def _scaled(self, old: Sequence[int]) -> tuple[int, int]:
        side = 2 * self.min_side
        return around(old, (side, side)) if min(old) > side else (old[0], old[1])

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        return map_type(TVTensor, lambda value: self._resized_crop(value, rand), self.presize(sample))

    def _resized_crop(self, value: TVTensor, rand: Randomness | None) -> Tensor:
        size, old = height_width(self.size), F.get_size(value)
        box = window(old, size, share=self.VALID_SHARE) if rand is None else self.random_window(old, rand)
        return resized_crop(value, box, size)

    def random_window(self, old: Sequence[int], rand: Randomness) -> Box:
        """A window of an image of height and width `old`; the largest in the middle if ten attempts did not fit in."""
        for area, ratio, y, x in rand.uniform(4 * self.N_ATTEMPTS)[0].view(-1, 4).tolist():
            area = old[0] * old[1] * (self.min_scale + (1 - self.min_scale) * area)
            ratio = self.ratio[0] * (self.ratio[1] / self.ratio[0]) ** ratio
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= old[0] and 0 < width <= old[1]:
                return int(y * (old[0] - height + 1)), int(x * (old[1] - width + 1)), height, width
        return window(old, (1, min(max(old[1] / old[0], self.ratio[0]), self.ratio[1])))


@dataclass
class ToFloat(Transform):
    """uint8 images as contiguous float32 in [0, 1]; float images pass. Raises TypeError for other integers."""

    order: ClassVar[int] = -10
    by_item: ClassVar[bool] = True

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        return map_type(tv_tensors.Image, _to_float, sample)


@dataclass
class Normalize(Transform):
    """(image - mean) / std, channel by channel, of float images in [0, 1]; for `batch_tfms`.

    Only the first value of a sample is normalised, if it is an image: a target that is an image stays in [0, 1], unless
    `targets` is true. Raises ValueError if the image has another number of channels than `mean`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    targets: bool = False

    order: ClassVar[int] = 90
    by_item: ClassVar[bool] = True

    def __post_init__(self):
        self.mean, self.std = tuple(map(float, self.mean)), tuple(map(float, self.std))
        if len(self.mean) != len(self.std) or min(self.std, default=0) <= 0:
            raise ValueError(f"Normalize needs a mean and a std above 0 per channel, not {self.mean} and {self.std}.")

    @classmethod
    def from_stats(cls, mean: Sequence[float], std: Sequence[float], targets: bool = False) -> "Normalize":
        """As in `Normalize.from_stats(*imagenet_stats)`."""
        return cls(tuple(mean), tuple(std), targets)

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        return self._map(lambda image, mean, std: (image - mean).div_(std), sample)

    def decode(self, sample: tuple) -> tuple:
        """The images as they were, in [0, 1]."""
        return self._map(lambda image, mean, std: (image * std).add_(mean), sample)

    def _map(self, function: Callable[[Tensor, Tensor, Tensor], Tensor], sample: tuple) -> tuple:
        def apply(image: tv_tensors.Image) -> tv_tensors.Image:
            return rewrap(function(image.as_subclass(Tensor), *self._stats(image)), image)

        n_images = len(sample) if self.targets else 1
        return map_type(tv_tensors.Image, apply, sample[:n_images]) + tuple(sample[n_images:])

    def _stats(self, image: Tensor) -> tuple[Tensor, Tensor]:
        check_float(image, "Normalize")
        if image.shape[-3] != len(self.mean):
            raise ValueError(
                f"Normalize knows mean and std of {len(self.mean)} channels, but the images have {image.shape[-3]}: "
                f"their shape is {tuple(image.shape)}. Give as many numbers in mean and std as there are channels."
            )
        return _constant(self.mean, image.dtype, image.device), _constant(self.std, image.dtype, image.device)


def _to_float(image: tv_tensors.Image) -> tv_tensors.Image:
    return image if image.is_floating_point() else rewrap(to_float(image.as_subclass(Tensor)), image)


def to_float(pixels: Tensor) -> Tensor:
    """Bytes as contiguous float32 in [0, 1]; floats stay as they are. Raises TypeError for other integers."""
    if pixels.is_floating_point():
        return pixels
    if pixels.dtype != torch.uint8:
        raise TypeError(f"ToFloat knows the range of uint8 images, not of {pixels.dtype}: give float images in [0, 1].")
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


@functools.lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`values` as `(c, 1, 1)`, made once per device; outside inference mode, so that gradients may pass as well."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)[:, None, None]
