"""What masks, points and boxes need beside their image: that they fit on it, and -1…1 for the model.

The blocks bring these transforms along: `PlaceOnImage` is the first of the item transforms, `SetCanvas` the first and
`ToRelative` the last of the batch transforms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, KeyPoints

from ..data.randomness import Randomness
from ..data.transforms import Transform
from .positions import (
    Canvas,
    Position,
    as_boxes,
    as_points,
    clipped,
    first_image,
    is_empty,
    on_canvas,
    to_pixels,
    to_relative,
)
from .samples import map_type

__all__ = ["LEAST", "PlaceOnImage", "SetCanvas", "ToRelative", "labels_of_boxes"]

LEAST = 1.0  # pixels: a box that is narrower or lower cannot be seen any more


@dataclass
class PlaceOnImage(Transform):
    """Check that raw masks, points and boxes fit on the first image of their sample, and tell them its size.

    Raises ValueError for a mask of another size, points outside of the image, boxes of which no part is inside, or as
    many labels as there are no boxes; what of a box is outside is cut off.
    """

    order: ClassVar[int] = -100
    is_fixed: ClassVar[bool] = True

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        canvas = _canvas(sample)
        for value in sample:
            if isinstance(value, tv_tensors.Mask):
                _check_mask(value, canvas)
            elif isinstance(value, KeyPoints):
                _check_points(value, canvas)
        for boxes, labels in labels_of_boxes(sample):
            _check_labels(sample[boxes], sample[labels])
        sample = map_type(BoundingBoxes, lambda boxes: _checked_boxes(boxes, canvas), sample)
        return map_type(KeyPoints, lambda points: on_canvas(points, canvas), sample)


@dataclass
class SetCanvas(Transform):
    """Tell points and boxes of a batch the size of their images, which transforms of torchvision ask them for."""

    order: ClassVar[int] = -100

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        canvas = _canvas(sample)
        return _map_positions(lambda value: on_canvas(value, canvas), sample)


@dataclass
class ToRelative(Transform):
    """Pixels as -1…1 of the image, for a batch; boxes that are hardly left after augmentation become zeros."""

    order: ClassVar[int] = 200

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        canvas = _canvas(sample)
        sample = map_type(KeyPoints, lambda points: as_points(to_relative(points, canvas), canvas), sample)
        return map_type(BoundingBoxes, lambda boxes: as_boxes(_relative_boxes(boxes, canvas), canvas), sample)

    def decode(self, sample: tuple) -> tuple:
        """Points and boxes in pixels of the image as the model sees it."""
        canvas = _canvas(sample)
        return _map_positions(lambda value: _in_pixels(value, canvas), sample)


def _map_positions(function: Callable[[Position], Tensor], sample: tuple) -> tuple:
    return map_type(KeyPoints, function, map_type(BoundingBoxes, function, sample))


def _in_pixels(value: Position, canvas: Canvas) -> Position:
    places = to_pixels(value, canvas)
    return as_points(places, canvas) if isinstance(value, KeyPoints) else as_boxes(places, canvas)


def _relative_boxes(boxes: BoundingBoxes, canvas: Canvas) -> Tensor:
    inside = clipped(boxes.as_subclass(Tensor), canvas)
    return to_relative(inside, canvas).masked_fill(is_empty(inside, LEAST)[..., None], 0)


def labels_of_boxes(sample: Sequence) -> list[tuple[int, int]]:
    """Where boxes stand in the sample and, right after each, their labels: integers with one axis less."""
    pairs = [(i, i + 1) for i, value in enumerate(sample[:-1]) if isinstance(value, BoundingBoxes)]
    return [(boxes, labels) for boxes, labels in pairs if _are_labels(sample[labels], sample[boxes].ndim - 1)]


def _are_labels(value: object, ndim: int) -> bool:
    is_plain = isinstance(value, Tensor) and not isinstance(value, tv_tensors.TVTensor)
    return is_plain and value.ndim == ndim and not value.is_floating_point()  # type: ignore[union-attr]


def _canvas(sample: Sequence) -> Canvas:
    """The size of the sample's image. Raises ValueError where there is none."""
    image = first_image(sample)
    if image is None:
        raise ValueError(
            "there is no image in which the mask, points or boxes lie: let an ImageBlock come before their block, as "
            "in blocks=(ImageBlock, MaskBlock)."
        )
    height, width = F.get_size(image)
    return height, width


def _check_mask(mask: tv_tensors.Mask, canvas: Canvas) -> None:
    if tuple(mask.shape[-2:]) != canvas:
        raise ValueError(
            f"the mask is {_size(mask.shape[-2:])} pixels and its image {_size(canvas)} (height × width). They must "
            "show the same: pass the mask of this image, or resize one of them beforehand, masks by the nearest pixel."
        )


def _check_points(points: KeyPoints, canvas: Canvas) -> None:
    height, width = canvas
    x, y = points.as_subclass(Tensor).unbind(-1)
    outside = (x < 0) | (x > width) | (y < 0) | (y > height)
    if outside.any():
        which = int(outside.flatten().nonzero()[0])
        raise ValueError(
            f"point {which} lies outside of its image, at x = {x.flatten()[which]:g}, y = {y.flatten()[which]:g} of an "
            f"image that is {width} wide and {height} high. Points are x, y in pixels of the image as its file has it: "
            "have get_y return them in this order and scale."
        )


def _check_labels(boxes: BoundingBoxes, labels: Tensor) -> None:
    if len(boxes) != len(labels):
        raise ValueError(f"there are {len(boxes)} boxes and {len(labels)} labels: let get_y return a label for each.")


def _checked_boxes(boxes: BoundingBoxes, canvas: Canvas) -> BoundingBoxes:
    """What of the boxes lies on their image. Raises ValueError for one that does not."""
    places = boxes.as_subclass(Tensor)
    inside = clipped(places, canvas)
    if (outside := is_empty(inside)).any():
        which = int(outside.nonzero()[0])
        numbers = ", ".join(f"{number:g}" for number in places[which].tolist())
        raise ValueError(
            f"box {which} ({numbers}) lies outside of its image, which is {canvas[1]} wide and {canvas[0]} high. "
            "Boxes are x1, y1, x2, y2 in pixels of the image as its file has it: have get_y return them in this order "
            "and scale."
        )
    return as_boxes(inside, canvas)


def _size(size: Sequence[int]) -> str:
    return f"{size[0]} × {size[1]}"
