"""Which part of a picture goes where when it changes its size: windows, resizing and padding of one `tv_tensor`.

For images `(c, h, w)`, masks `(h, w)` or `(c, h, w)`, boxes and points; sizes and places are (vertical, horizontal).
Boxes are cut off at the edge, points stay where they are, also outside: torchvision does otherwise in places.
"""

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from .positions import POSITIONS, Position, mapped
from .samples import rewrap

__all__ = ["PAD_MODES", "Box", "Size", "around", "crop", "flip", "height_width", "inside", "pad", "resize",
           "resized_crop", "window"]  # fmt: skip

Size = int | tuple[int, int]  # a square's side, or (height, width), in pixels
Box = tuple[int, int, int, int]  # top, left, height, width, in pixels

PAD_MODES = ("reflection", "border", "zeros")
MIDDLE = (0.5, 0.5)


def height_width(size: Size) -> tuple[int, int]:
    """`size` as (height, width). Raises ValueError unless it is one or two positive integers."""
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
        raise ValueError(f"size is an int or (height, width), in pixels above 0, not {size!r}.")
    return int(sides[0]), int(sides[1])


def window(old: Sequence[int], shape: Sequence[float], place: Sequence[float] = MIDDLE, share: float = 1.0) -> Box:
    """The largest window in the proportions of `shape` in a picture of size `old`, its sides times `share`.

    It lies at `place`: 0 is top or left, 1 is bottom or right.
    """
    scale = share * min(old[0] / shape[0], old[1] / shape[1])
    height, width = (min(max(round(scale * s), 1), o) for s, o in zip(shape, old, strict=True))
    return round(place[0] * (old[0] - height)), round(place[1] * (old[1] - width)), height, width


def inside(old: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """The largest size in the proportions of `old` that fits into `size`."""
    scale = max(old[0] / size[0], old[1] / size[1])
    return max(round(old[0] / scale), 1), max(round(old[1] / scale), 1)


def around(old: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """The smallest size in the proportions of `old` into which `size` fits."""
    scale = min(old[0] / size[0], old[1] / size[1])
    return max(round(old[0] / scale), 1), max(round(old[1] / scale), 1)


def resize(value: Tensor, size: tuple[int, int]) -> Tensor:
    """`value` brought to `size`: images bilinearly with antialiasing, masks by the nearest pixel."""
    if isinstance(value, POSITIONS):
        height, width = F.get_size(value)
        return _moved(value, (size[1] / width, size[0] / height), (0, 0), size)
    if not isinstance(value, tv_tensors.Mask):
        return F.resize(value, list(size), antialias=True)
    # torchvision resizes masks by "nearest", which lies up to half a pixel beside the pixels of their image
    planes = F.resize(value.as_subclass(Tensor)[None], list(size), InterpolationMode.NEAREST_EXACT)
    return rewrap(planes[0], value)


def crop(value: Tensor, box: Box) -> Tensor:
    """What `value` shows inside `box`, which lies inside of it."""
    if isinstance(value, POSITIONS):
        top, left, height, width = box
        return _moved(value, (1, 1), (-left, -top), (height, width))
    return F.crop(value, *box)


def resized_crop(value: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """What `value` shows inside `box`, brought to `size`."""
    cut = crop(value, box)
    if isinstance(cut, tv_tensors.Image) and cut.ndim == 3 and cut.stride(0) == 1:
        # a decoded photo has its channels innermost: when rows follow each other, too, a resized one keeps that order,
        # and does not have to be sorted by channels, which takes as long as the interpolation
        cut = rewrap(cut.as_subclass(Tensor).permute(1, 2, 0).contiguous().permute(2, 0, 1), cut)
    return resize(cut, size)


def flip(value: Tensor) -> Tensor:
    """`value` mirrored, left to right."""
    if isinstance(value, POSITIONS):
        height, width = F.get_size(value)
        return _moved(value, (-1, 1), (width, 0), (height, width))
    return F.horizontal_flip(value)


def _moved(value: Position, scale: tuple[float, float], shift: tuple[float, float], size: tuple[int, int]) -> Position:
    """Points or boxes multiplied and then shifted, both by (x, y), in a picture that is now of that size."""

    def function(places: Tensor) -> Tensor:
        x, y = places.unbind(-1)
        return torch.stack([x * scale[0] + shift[0], y * scale[1] + shift[1]], -1)

    return mapped(value, function, size)


def pad(value: Tensor, size: tuple[int, int], place: Sequence[float] = MIDDLE, pad_mode: str = "zeros") -> Tensor:
    """`value`, no larger than `size`, filled up to `size`; `place` is where it lies, 0 at the top or left, 1 opposite.

    Around it is its mirror image, as often as needed ("reflection"), its edge ("border"), or black, class 0 ("zeros").
    """
    height, width = F.get_size(value)
    top, left = round(place[0] * (size[0] - height)), round(place[1] * (size[1] - width))
    if isinstance(value, POSITIONS):
        return _moved(value, (1, 1), (left, top), size)
    if pad_mode == "zeros" or not isinstance(value, (tv_tensors.Image, tv_tensors.Mask)):
        return F.pad(value, [left, top, size[1] - left - width, size[0] - top - height])
    rows, columns = _shown(size[0], top, height, pad_mode), _shown(size[1], left, width, pad_mode)
    return rewrap(value.as_subclass(Tensor).index_select(-2, rows).index_select(-1, columns), value)


def _shown(n: int, start: int, length: int, pad_mode: str) -> Tensor:
    """The index of the pixel that each of `n` positions shows, when `length` pixels begin at `start`: `(n,)` int64."""
    index = torch.arange(n) - start
    if pad_mode == "border" or length == 1:
        return index.clamp(0, length - 1)
    there_and_back = 2 * (length - 1)
    index = index.remainder(there_and_back)
    return torch.minimum(index, there_and_back - index)
