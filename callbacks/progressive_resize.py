"""Training on small images first."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from .core import Callback

__all__ = ["ProgressiveResize"]


class ProgressiveResize(Callback):
    """Scale training images down, from `start` of their size at first to the whole for the last `full` of the fit.

    Small images train faster, and teach most of what there is to learn; after fast.ai's entry to DAWNBench (Howard
    2018), with a size that grows linearly and not in steps. Sizes are rounded to multiples of `multiple` pixels.
    Validation is at full size. It is for networks that take any size and targets that have no place in the image.
    """

    order = 5  # before images are blended

    def __init__(self, start: float = 0.5, full: float = 0.25, multiple: int = 16):
        if not 0 < start <= 1 or not 0 <= full <= 1 or multiple < 1:
            raise ValueError(
                f"start={start}, full={full}: shares above 0 and at most 1; multiple={multiple}: from 1 on."
            )
        self.start, self.full, self.multiple = start, full, multiple

    def before_batch(self, learn: Any) -> None:
        if learn.training and (scale := self.scale(learn.pct_train)) < 1:
            if not isinstance(learn.xb, tuple) or not all(isinstance(x, Tensor) and x.ndim == 4 for x in learn.xb):
                raise TypeError("ProgressiveResize scales images: the inputs are to be tensors (bs, c, h, w).")
            learn.xb = tuple(self._scaled(x, scale) for x in learn.xb)

    def scale(self, pct: float) -> float:
        """The share of their size that images have when `pct` of the fit is done."""
        grown = min(1.0, pct / (1 - self.full)) if self.full < 1 else 1.0
        return self.start + (1 - self.start) * grown

    def _scaled(self, x: Tensor, scale: float) -> Tensor:
        sizes = [max(self.multiple, round(length * scale / self.multiple) * self.multiple) for length in x.shape[-2:]]
        size = [min(new, length) for new, length in zip(sizes, x.shape[-2:], strict=True)]
        return F.interpolate(x, size, mode="bilinear", antialias=True)
