"""Points in an image (landmarks, the tip of a nose), learned as numbers from -1 to 1 and drawn as dots.

block = DataBlock((ImageBlock, PointBlock), get_items=get_image_files, get_y=nose_of,      # [[x, y]]
                  item_tfms=Resize(240, "squish"), batch_tfms=aug_transforms(size=128))
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ..data.blocks import Block
from ..data.transforms import Transform
from .drawing import PRED, TARGET, legend
from .positions import as_points
from .targets import PlaceOnImage, SetCanvas, ToRelative

__all__ = ["PointBlock"]


@dataclass
class PointBlock(Block):
    """`n` points x, y of the image before it, in pixels, encoded as `tv_tensors.KeyPoints` float32 `(n, 2)`.

    (0, 0) is the image's upper left corner and (w, h) its lower right one: the middle of the first pixel is (0.5, 0.5).
    A model sees them as -1…1 and answers with `2n` such numbers. All images have the same number of points, that of the
    first training item where `n` is not given. Points that augmentation moves out of the image stay outside.

    Raises ValueError for points outside of an image as it is read, and for another number of them.
    """

    n: int | None = None

    loss: ClassVar = "MSELoss"
    learns: ClassVar[bool] = True
    is_spatial: ClassVar[bool] = True
    item_tfms: ClassVar[Sequence[Transform]] = (PlaceOnImage(),)
    batch_tfms: ClassVar[Sequence[Transform]] = (SetCanvas(), ToRelative())

    @property
    def n_out(self) -> int | None:
        return None if self.n is None else 2 * self.n

    def setup(self, values: Sequence[Any]) -> "PointBlock":
        return self if self.n is not None or not len(values) else replace(self, n=len(self.encode(values[0])))

    def encode(self, value: Any) -> tv_tensors.KeyPoints:
        try:
            points = torch.as_tensor(np.asarray(value, np.float32))
        except (TypeError, ValueError):
            raise TypeError(f"PointBlock needs a list of points [[x, y], …], got {value!r}") from None
        points = points[None] if points.shape == (2,) else points
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"points are (n, 2), x and y of each; got {tuple(points.shape)}")
        if self.n is not None and len(points) != self.n:
            raise ValueError(
                f"PointBlock(n={self.n}) got {len(points)} points: each image needs as many. For any number of places, "
                "use boxes."
            )
        if not points.isfinite().all():
            raise ValueError(f"points are numbers, got {points.tolist()}: leave out the items that lack one")
        return as_points(points, (0, 0))

    def wrap(self, batch: Tensor) -> tv_tensors.KeyPoints:
        return as_points(batch.view(len(batch), -1, 2), (0, 0))

    def decode(self, encoded: Tensor) -> Tensor:
        """`(n, 2)`, in pixels of the image as the model sees it."""
        return encoded.reshape(-1, 2)

    def text(self, value: Tensor) -> str:
        return " ".join(f"({x:.4g}, {y:.4g})" for x, y in value.tolist())

    def draw(self, value: Tensor, ax: Any) -> None:
        """Draw points, in pixels of the image that `ax` has, as dots."""
        self._dots(value, ax, TARGET)

    def draw_result(self, target: Tensor, pred: Tensor, ax: Any) -> None:
        """Draw target and prediction as dots of two colours."""
        self._dots(target, ax, TARGET, "target")
        self._dots(pred, ax, PRED, "prediction")
        legend(ax)

    @staticmethod
    def _dots(points: Tensor, ax: Any, colour: str, label: str | None = None) -> None:
        x, y = (points - 0.5).unbind(-1)  # matplotlib has the middle of the first pixel at (0, 0)
        ax.scatter(x.numpy(), y.numpy(), 18, colour, edgecolors="black", linewidths=0.6, label=label)
