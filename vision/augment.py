"""Augmentation of a whole batch on its device: `batch_tfms=aug_transforms(size=224)`.

All changes of geometry of an image are composed into one 3×3 matrix and made by one interpolation, which keeps images
sharp; brightness and contrast are one multiplication and one addition. Each image draws its own numbers, from
(seed, epoch, item), so that they do not depend on the batch that it is in. Nothing waits for the device.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import get_size
from torchvision.tv_tensors import TVTensor

from ..data.randomness import Randomness
from ..data.transforms import Transform
from .checks import check_float, check_option, check_probabilities, check_range
from .colour import Colour
from .homography import dihedral, perspective, rotation, warp, zoom
from .lighting import Lighting
from .positions import POSITIONS, mapped, through
from .resizing import PAD_MODES, Size, flip, height_width, resize
from .samples import draw, map_type, rewrap
from .transforms import to_float

__all__ = ["Colour", "Geometry", "Lighting", "aug_transforms"]


def aug_transforms(
    mult: float = 1.0,
    do_flip: bool = True,
    flip_vert: bool = False,
    max_rotate: float = 10.0,
    min_zoom: float = 1.0,
    max_zoom: float = 1.1,
    max_lighting: float = 0.2,
    max_warp: float = 0.2,
    p_affine: float = 0.75,
    p_lighting: float = 0.75,
    size: Size | None = None,
    mode: str = "bilinear",
    pad_mode: str = "reflection",
    batch: bool = False,
    min_scale: float = 1.0,
    max_saturation: float = 0.0,
    max_hue: float = 0.0,
    p_flip: float = 0.5,
    p_rotate: float | None = None,
    p_zoom: float | None = None,
    p_warp: float | None = None,
    p_brightness: float | None = None,
    p_contrast: float | None = None,
    p_saturation: float | None = None,
    p_hue: float | None = None,
) -> list[Transform]:
    """The usual augmentation of photos, as a list of batch transforms: see `Geometry`, `Lighting`, `Colour`.

    `mult` makes every change stronger or weaker: it multiplies `max_rotate`, `max_warp`, `max_lighting`,
    `max_saturation`, `max_hue` and (unlike fast.ai's) how far the zooms are from 1. Each change has the probability
    `p_affine` or `p_lighting`, or its own where that is given. A step that asks for nothing is left out:
    `aug_transforms(mult=0, do_flip=False)` is an empty list. Raises ValueError for an unknown `mode` or `pad_mode`, or
    a number out of range.
    """
    geometry = Geometry(
        size=size,
        do_flip=do_flip,
        flip_vert=flip_vert,
        max_rotate=max_rotate * mult,
        min_zoom=1 + (min_zoom - 1) * mult,
        max_zoom=1 + (max_zoom - 1) * mult,
        max_warp=max_warp * mult,
        p_affine=p_affine,
        min_scale=min_scale,
        mode=mode,
        pad_mode=pad_mode,
        batch=batch,
        p_flip=p_flip,
        p_rotate=p_rotate,
        p_zoom=p_zoom,
        p_warp=p_warp,
    )
    lighting = Lighting(max_lighting * mult, p_lighting, batch, p_brightness, p_contrast)
    p_saturation, p_hue = (p_lighting if p is None else p for p in (p_saturation, p_hue))
    colour = Colour(max_saturation * mult, max_hue * mult, p_saturation, p_hue, batch)
    return [tfm for tfm in (geometry, lighting, colour) if tfm.acts]


@dataclass
class Geometry(Transform):
    """Flip, turn, zoom, tilt and resize a batch of images `(bs, c, h, w)`, in one interpolation.

    Images are float, or bytes, which become float32 in [0, 1] unless they are only mirrored: `ToFloat` comes after this
    step, so that the batch need not be kept as floats before it as well. Masks move along by the nearest pixel, points
    to where their pixels go, also outside; boxes become those around their corners, as far as they are in the image.

    - `size`: of the result, an int or (height, width). It shows the whole image: other proportions are squished.
    - `do_flip`: mirror images, with probability `p_flip`; with `flip_vert`, lay them in one of the eight ways instead.
    - `p_affine`: the probability of each of the next three, where `p_rotate`, `p_zoom`, `p_warp` do not give its own.
    - `max_rotate`: degrees to either side.
    - `min_zoom`, `max_zoom`: the range of factors, around a random place.
    - `max_warp`: the largest tilt, as the share by which an edge grows or shrinks; below 0.5.
    - `min_scale`: show a random window with `min_scale` to 1 of the area, in the image's proportions.
    - `mode`: of interpolation, "bilinear", "nearest" or "bicubic"; masks take the nearest pixel.
    - `pad_mode`: what lies outside of an image, "reflection", "border" or "zeros".
    - `batch`: the same change for all images of a batch: that of its first.

    Without randomness (validation) images are only resized to `size`, with antialiasing. In training the interpolation
    does not antialias, which shows where a side becomes much shorter; so a side of more than 1.5 times the length it
    needs is brought to 1.25 times first (photos warped from 256 to 128 pixels are then 44 instead of 32 dB from their
    supersampled truth). Raises TypeError for images of other integers than bytes.
    """

    size: Size | None = None
    do_flip: bool = True
    flip_vert: bool = False
    max_rotate: float = 10.0
    min_zoom: float = 1.0
    max_zoom: float = 1.1
    max_warp: float = 0.2
    p_affine: float = 0.75
    min_scale: float = 1.0
    mode: str = "bilinear"
    pad_mode: str = "reflection"
    batch: bool = False
    p_flip: float = 0.5
    p_rotate: float | None = None
    p_zoom: float | None = None
    p_warp: float | None = None

    order: ClassVar[int] = -20

    def __post_init__(self):
        if self.size is not None:
            height_width(self.size)
        check_option("mode", self.mode, ("bilinear", "nearest", "bicubic"))
        check_option("pad_mode", self.pad_mode, PAD_MODES)
        check_probabilities(self, "p_affine", "p_flip", "p_rotate", "p_zoom", "p_warp")
        check_range("max_rotate", self.max_rotate, self.max_rotate >= 0, "in degrees, 0 or more")
        check_range("min_zoom", self.min_zoom, 0 < self.min_zoom <= self.max_zoom, "above 0 and up to max_zoom")
        check_range("max_warp", self.max_warp, 0 <= self.max_warp < 0.5, "a share of a side, 0 or more and below 0.5")
        check_range("min_scale", self.min_scale, 0 < self.min_scale <= 1, "a share of the area, above 0 and up to 1")

    @property
    def by_item(self) -> bool:  # type: ignore[override]
        return not self.batch

    @property
    def acts(self) -> bool:
        """Does it do anything, at least in training?"""
        return self.size is not None or self._is_random

    @property
    def _only_mirrors(self) -> bool:
        return self.size is None and not (self._interpolates or self.flip_vert)

    @property
    def _is_random(self) -> bool:
        return (self.do_flip and self.p_flip > 0) or self._interpolates

    @property
    def _interpolates(self) -> bool:
        """Does it do more, in training, than to lay images in one of the eight ways?"""
        zooms = self.min_zoom != 1 or self.max_zoom != 1
        strengths = zip(self._probabilities, (self.max_rotate > 0, zooms, self.max_warp > 0), strict=True)
        return self.min_scale < 1 or any(acts and probability > 0 for probability, acts in strengths)

    @property
    def _probabilities(self) -> tuple[float, ...]:
        """Of turning, zooming and tilting."""
        return tuple(self.p_affine if p is None else p for p in (self.p_rotate, self.p_zoom, self.p_warp))

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        images = next((value for value in sample if isinstance(value, TVTensor)), None)
        if images is None:
            return sample
        if isinstance(images, tv_tensors.Image) and images.ndim != 4:
            raise ValueError(f"it changes batches (bs, c, h, w), not {tuple(images.shape)}: put aug_transforms() into "
                             "batch_tfms.")  # fmt: skip
        if rand is None or not self._is_random:
            return sample if self.size is None else map_type(TVTensor, self._resize, sample)
        if self._only_mirrors:
            which = torch.from_numpy(self._way(*draw(rand, 2, self.batch)).nonzero()[0])
            return map_type(TVTensor, lambda value: _mirror(value, which), sample)
        height, width = get_size(images)
        matrix = self.homography(rand, width / height)
        back = matrix.double().inverse().float() if any(isinstance(value, POSITIONS) for value in sample) else matrix
        matrix, back = (m.to(images.device, non_blocking=True) for m in (matrix, back))
        return map_type(TVTensor, lambda value: self._warp(value, matrix, back), sample)

    def homography(self, rand: Randomness, aspect: float) -> Tensor:
        """The changes drawn for images of that width / height, to `warp` them: `(bs, 3, 3)` float32 on the CPU."""
        flips, way, rotates, angle, zooms, factor, x, y, *others = draw(rand, 14, self.batch)
        warps, warp_x, warp_y, area, left, top = others

        p_rotate, p_zoom, p_warp = self._probabilities

        def if_(happens: np.ndarray, number: np.ndarray, low: float, high: float, otherwise: float) -> np.ndarray:
            return np.where(happens, low + (high - low) * number, otherwise)

        tilts = [if_(warps < p_warp, number, -self.max_warp, self.max_warp, 0) for number in (warp_x, warp_y)]
        degrees = if_(rotates < p_rotate, angle, -self.max_rotate, self.max_rotate, 0)
        factor = if_(zooms < p_zoom, factor, self.min_zoom, self.max_zoom, 1)
        window = (self.min_scale + (1 - self.min_scale) * area) ** -0.5
        geometry = perspective(*tilts) @ dihedral(self._way(flips, way), aspect) @ rotation(degrees, aspect)
        matrix = geometry @ zoom(factor, 2 * x - 1, 2 * y - 1) @ zoom(window, 2 * left - 1, 2 * top - 1)
        return torch.from_numpy(matrix).float()

    def _way(self, flips: np.ndarray, way: np.ndarray) -> np.ndarray:
        """The number, for `dihedral`, of how each image is laid."""
        happens = (flips < self.p_flip) & self.do_flip
        return np.where(happens, (way * 8).astype(int) if self.flip_vert else 1, 0)

    def _warp(self, value: TVTensor, matrix: Tensor, back: Tensor) -> Tensor:
        size = self._size(value)
        if isinstance(value, POSITIONS):
            return mapped(value, through(back, get_size(value), size), size)
        pixels = _pixels(value)
        if isinstance(value, tv_tensors.Mask):
            return _wrap(warp(pixels, matrix, size, "nearest", self.pad_mode), value)
        if (smaller := self._shrunk(pixels, size)) != pixels.shape[-2:]:
            pixels = _interpolate(to_float(pixels), smaller, self.mode)
        is_bytes = not pixels.is_floating_point()
        return _wrap(warp(pixels, matrix, size, self.mode, self.pad_mode, to_float=is_bytes), value)

    def _resize(self, value: TVTensor) -> Tensor:
        if isinstance(value, POSITIONS):
            return resize(value, self._size(value))
        pixels, size = _pixels(value), self._size(value)
        if isinstance(value, tv_tensors.Mask):
            return _wrap(_interpolate(pixels, size, "nearest"), value)
        return _wrap(_interpolate(to_float(pixels), size, self.mode), value)

    def _size(self, value: TVTensor) -> tuple[int, int]:
        height, width = get_size(value) if self.size is None else height_width(self.size)
        return height, width

    def _shrunk(self, pixels: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """A size, each side 1.25 times what the average window needs if that of `pixels` is beyond 1.5 times that."""
        window = (1 + math.sqrt(self.min_scale)) / 2

        def shrunk(old: int, new: int) -> int:
            return round(1.25 * new / window) if old * window > 1.5 * new else old

        return shrunk(pixels.shape[-2], size[0]), shrunk(pixels.shape[-1], size[1])


def _mirror(value: TVTensor, which: Tensor) -> TVTensor:
    """A batch of which those images are mirrored, or what lies in them; one by one on the CPU, where that is faster."""
    plain = value.as_subclass(Tensor)
    if plain.device.type == "cpu":
        result = plain.clone()
        for i in which.tolist():
            result[i] = flip(rewrap(plain[i], value)).as_subclass(Tensor)
        return rewrap(result, value)
    which = which.to(plain.device, non_blocking=True)
    mirrored = flip(rewrap(plain[which], value))
    return rewrap(plain.index_copy(0, which, mirrored.as_subclass(Tensor)), value)


def _pixels(value: TVTensor) -> Tensor:
    """A batch of images or masks as `(n, c, h, w)`. Raises TypeError for images of other integers than bytes."""
    if isinstance(value, tv_tensors.Image) and value.dtype != torch.uint8:
        check_float(value, "Geometry")
    pixels = value.as_subclass(Tensor)
    return pixels[:, None] if pixels.ndim == 3 else pixels


def _wrap(pixels: Tensor, like: TVTensor) -> TVTensor:
    return rewrap(pixels.reshape(*like.shape[:-2], *pixels.shape[-2:]), like)


def _interpolate(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """`pixels` resized, antialiased unless `mode` is "nearest", computed in float32; itself where it has that size."""
    if pixels.shape[-2:] == size:
        return pixels
    if mode == "nearest":
        return F.interpolate(pixels.float(), size, mode="nearest-exact").to(pixels.dtype)
    return F.interpolate(pixels.float(), size, mode=mode, antialias=True, align_corners=False).to(pixels.dtype)
