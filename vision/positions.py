"""Points and boxes in a picture: made, moved with it, and brought to the -1…1 that a model sees.

Coordinates are continuous: (0, 0) is the upper left corner of the picture and (w, h) the lower right one. So the middle
of the first pixel is (0.5, 0.5), and a box (x1, y1, x2, y2) is x2 - x1 pixels wide. Points are `(…, n, 2)`, x before y,
boxes `(…, n, 4)`; a canvas is the size of their picture, (height, width).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, KeyPoints

__all__ = ["POSITIONS", "Canvas", "Position", "as_boxes", "as_points", "clipped", "first_image", "is_empty", "mapped",
           "on_canvas", "through", "to_pixels", "to_relative"]  # fmt: skip

Canvas = tuple[int, int]
Position = KeyPoints | BoundingBoxes
POSITIONS = (KeyPoints, BoundingBoxes)


def as_points(points: Tensor, canvas: Sequence[int]) -> KeyPoints:
    """`(…, 2)` as points of a picture of that size."""
    result = points.as_subclass(KeyPoints)
    result.canvas_size = (canvas[0], canvas[1])
    return result


def as_boxes(boxes: Tensor, canvas: Sequence[int]) -> BoundingBoxes:
    """`(…, 4)` x1, y1, x2, y2 as boxes of a picture of that size; also of a batch, which the constructor refuses."""
    result = boxes.as_subclass(BoundingBoxes)
    result.format, result.canvas_size, result.clamping_mode = BoundingBoxFormat.XYXY, (canvas[0], canvas[1]), "soft"
    return result


def on_canvas(value: Position, canvas: Sequence[int]) -> Position:
    """The same points or boxes, of a picture of that size."""
    places = value.as_subclass(Tensor)
    return as_points(places, canvas) if isinstance(value, KeyPoints) else as_boxes(places, canvas)


def first_image(sample: Sequence) -> tv_tensors.Image | None:
    """The picture in which a sample's targets lie: its first."""
    return next((value for value in sample if isinstance(value, tv_tensors.Image)), None)


def mapped(value: Position, function: Callable[[Tensor], Tensor], canvas: Sequence[int]) -> Position:
    """Points moved by `function`, or the boxes around the corners that it moved, as far as they are on the new canvas.

    `function` takes and gives places `(…, 2)`. Points stay where it moves them, also outside.
    """
    if isinstance(value, KeyPoints):
        return as_points(function(value.as_subclass(Tensor)), canvas)
    corners = function(_corners(_xyxy(value)))
    boxes = torch.cat([corners.amin(-2), corners.amax(-2)], -1)
    return as_boxes(clipped(boxes, canvas), canvas)


def _xyxy(boxes: BoundingBoxes) -> Tensor:
    """Boxes of any format that has no rotation as x1, y1, x2, y2."""
    places = boxes.as_subclass(Tensor)
    if boxes.format == BoundingBoxFormat.XYXY:
        return places
    return F.convert_bounding_box_format(places, boxes.format, BoundingBoxFormat.XYXY)


def _corners(boxes: Tensor) -> Tensor:
    """The four corners of each box: `(…, n, 4, 2)`."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1, y1, x2, y1, x1, y2, x2, y2], -1).unflatten(-1, (4, 2))


def clipped(boxes: Tensor, canvas: Sequence[int]) -> Tensor:
    """What of boxes `(…, 4)` lies on the canvas."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    (height, width), stack = canvas, torch.stack
    return stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], -1)


def is_empty(boxes: Tensor, least: float = 0.0) -> Tensor:
    """Which boxes `(…, n, 4)` are no wider or no higher than `least`: `(…, n)` bool."""
    x1, y1, x2, y2 = boxes.as_subclass(Tensor).unbind(-1)
    return (x2 - x1 <= least) | (y2 - y1 <= least)


def to_relative(places: Tensor, canvas: Sequence[int]) -> Tensor:
    """Pixels as -1…1: `(…, 2)` or `(…, 4)`, x from the left to the right edge, y from the top to the bottom."""
    return _by_axis(places, lambda x, length: x * (2 / length) - 1, canvas)


def to_pixels(places: Tensor, canvas: Sequence[int]) -> Tensor:
    """-1…1 as pixels, the inverse of `to_relative`."""
    return _by_axis(places, lambda x, length: (x + 1) * (length / 2), canvas)


def _by_axis(places: Tensor, function: Callable[[Tensor, int], Tensor], canvas: Sequence[int]) -> Tensor:
    """`function` of each coordinate and the length of its axis; numbers go to the device without a copy."""
    height, width = canvas
    axes = [function(x, (width, height)[i % 2]) for i, x in enumerate(places.as_subclass(Tensor).unbind(-1))]
    return torch.stack(axes, -1)


def through(matrix: Tensor, old: Sequence[int], new: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """The function, for `mapped`, of pictures of size `old` seen through `matrix` in size `new`, see `homography`.

    `matrix` `(bs, 3, 3)` goes from the source to the result: the inverse of the one that warps images.
    """
    rows = matrix[..., None].unbind(1)  # for each axis of the result (bs, 3, 1)

    def function(places: Tensor) -> Tensor:
        x, y = to_relative(places.flatten(1, -2), old).unbind(-1)
        across, down, depth = (row[:, 0] * x + row[:, 1] * y + row[:, 2] for row in rows)
        return to_pixels(torch.stack([across / depth, down / depth], -1), new).view_as(places)

    return function
