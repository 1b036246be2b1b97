"""Further item transforms: to one size without scaling, to a longest side, and mirrored.

They also show how to write your own: a dataclass whose `__call__` gets the sample and, in training, its random numbers.
What is drawn from `rand` follows from (seed, epoch, item), whatever process reads the item; `map_type` applies a
function to the values of one kind (`TVTensor`: all that has a place in the picture).

    @dataclass
    class Darken(Transform):
        most: float = 0.3

        def __call__(self, sample, rand):
            if rand is None:                                     # validation, prediction: nothing is random
                return sample
            factor = 1 - self.most * rand.uniform(1).item()      # `uniform(n)` gives (1, n) numbers in [0, 1)
            darker = lambda image: rewrap((image * factor).to(image.dtype), image)
            return map_type(tv_tensors.Image, darker, sample)

    DataBlock(..., item_tfms=[Resize(224), Darken(0.5)])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import TVTensor

from ..data.randomness import Randomness
from ..data.transforms import Transform
from .checks import check_option, check_probabilities, check_range
from .resizing import PAD_MODES, Size, crop, flip, height_width, pad, resize
from .samples import map_type

__all__ = ["CropPad", "FlipItem", "RatioResize"]


@dataclass
class CropPad(Transform):
    """The middle of each image in `size` (int or (height, width), in pixels), without scaling it; for `item_tfms`.

    Sides that are longer are cut off, and shorter ones filled up by `pad_mode`: "zeros", "border" or "reflection", as
    in `Resize`. Raises ValueError for another `pad_mode`, and a size that is not positive.
    """

    size: Size
    pad_mode: str = "zeros"

    is_fixed: ClassVar[bool] = True

    def __post_init__(self):
        height_width(self.size)
        check_option("pad_mode", self.pad_mode, PAD_MODES)

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        return map_type(TVTensor, self._crop_and_pad, sample)

    def _crop_and_pad(self, value: TVTensor) -> Tensor:
        size, old = height_width(self.size), F.get_size(value)
        height, width = (min(new, side) for new, side in zip(size, old, strict=True))
        middle = crop(value, ((old[0] - height) // 2, (old[1] - width) // 2, height, width))
        return pad(middle, size, pad_mode=self.pad_mode)


@dataclass
class RatioResize(Transform):
    """Scale each image until its longer side has `max_size` pixels, in its own proportions; for `item_tfms`.

    Images of a batch need one size: of several proportions they do with `bs=1`, or `CropPad(max_size)` after it. Raises
    ValueError for a size that is not positive.
    """

    max_size: int

    is_fixed: ClassVar[bool] = True

    def __post_init__(self):
        check_range("max_size", self.max_size, isinstance(self.max_size, int) and self.max_size > 0, "an int above 0")

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        return map_type(TVTensor, lambda value: resize(value, self._size(F.get_size(value))), sample)

    def _size(self, old: Sequence[int]) -> tuple[int, int]:
        scale = self.max_size / max(old)
        return max(round(old[0] * scale), 1), max(round(old[1] * scale), 1)


@dataclass
class FlipItem(Transform):
    """Mirror images, left to right, with probability `p` in training; for `item_tfms`.

    `aug_transforms` does it for a whole batch, and is faster.
    """

    p: float = 0.5

    def __post_init__(self):
        check_probabilities(self, "p")

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        if rand is None or rand.uniform(1).item() >= self.p:
            return sample
        return map_type(TVTensor, flip, sample)
