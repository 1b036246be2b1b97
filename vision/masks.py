"""Masks: a class for each pixel of an image, drawn over it.

mask = MaskBlock(codes, void="Void")
block = DataBlock((ImageBlock, mask), get_items=get_image_files, get_y=mask_of, batch_tfms=aug_transforms(size=240))
learn = Learner(data, model, metrics=DiceMulti(ignore_index=mask.ignore_index))
"""

import colorsys
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from ..data.blocks import Block
from ..data.transforms import Transform
from ..learner.losses import CrossEntropyLoss
from .drawing import legend
from .image import ORIENTATION, show_image
from .targets import PlaceOnImage

__all__ = ["MaskBlock", "open_mask"]

ONE_NUMBER = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # Pillow's modes with an integer for each pixel
OPACITY = 0.55  # of a mask over its image


def open_mask(source: Any) -> tv_tensors.Mask:
    """A mask as integers `(h, w)`: uint8 where its source has bytes or bools, else int64.

    `source`: a path, the bytes of a file or a PIL image, grey or with a palette (whose numbers count, not its colours);
    an array or tensor of integers or bools, `(h, w)` or `(1, h, w)`. Raises ValueError for anything with colours, and
    for what cannot be read.
    """
    if isinstance(source, Image.Image):
        source = _numbers(source)
    if isinstance(source, np.ndarray) and source.dtype.kind in "iub":
        source = torch.from_numpy(source if source.itemsize == 1 else source.astype(np.int64))
    if isinstance(source, (Tensor, np.ndarray)):
        return _from_tensor(source)
    if not isinstance(source, (str, Path, bytes)):
        raise TypeError(f"a mask is a path, bytes, PIL image, array or tensor, not {type(source).__name__}")
    return _from_file(source)


def _from_file(source: str | Path | bytes) -> tv_tensors.Mask:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise ValueError(f"this mask cannot be read ({error}): replace the file, or leave its item out") from error
    return open_mask(image)


def _numbers(image: Image.Image) -> np.ndarray:
    """The numbers of a PIL image's pixels, upright."""
    if image.mode not in ONE_NUMBER:
        raise ValueError(
            f"a mask has one number for each pixel, and this is a picture of mode {image.mode}: let get_y return an "
            "array that has the number of a class where the picture has its colour"
        )
    return np.array(ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image)


def _from_tensor(mask: Tensor | np.ndarray) -> tv_tensors.Mask:
    flat = mask[0] if mask.ndim == 3 and mask.shape[0] == 1 else mask
    if not isinstance(flat, Tensor) or flat.is_floating_point() or flat.is_complex() or flat.ndim != 2:
        raise ValueError(f"a mask has integers (h, w), one for each pixel; got {mask.dtype} {tuple(mask.shape)}")
    small = flat.dtype in (torch.uint8, torch.bool)
    return tv_tensors.Mask(flat.as_subclass(Tensor).to(torch.uint8 if small else torch.int64))


@dataclass
class MaskBlock(Block):
    """A class for each pixel of the image before it, encoded as `tv_tensors.Mask`, integer `(h, w)`; int64 in batches.

    `codes` are the names of the classes 0, 1, …; a model needs an output for each. `void` marks pixels that count for
    nothing: one of the codes, or a number that may be beyond them (255, say). The default loss ignores it; metrics are
    told so, as in `DiceMulti(ignore_index=block.ignore_index)`.

    Raises ValueError for a mask with numbers beyond the codes, and for one of another size than its image.
    """

    codes: Sequence[Any] | None = None
    void: str | int | None = None

    is_picture: ClassVar[bool] = True
    is_spatial: ClassVar[bool] = True
    item_tfms: ClassVar[Sequence[Transform]] = (PlaceOnImage(),)

    def __post_init__(self):
        self.codes = None if self.codes is None else [str(code) for code in self.codes]
        if isinstance(self.void, str) and self.void not in (self.codes or []):
            raise ValueError(f"void={self.void!r} is none of the codes {self.codes}: give one of them, or its number.")

    @property
    def vocab(self) -> list | None:
        """The codes."""
        return None if self.codes is None else list(self.codes)

    @property
    def n_out(self) -> int | None:
        return None if self.codes is None else len(self.codes)

    @property
    def ignore_index(self) -> int | None:
        """The number of the pixels that count for nothing, as losses and metrics are told; None: all count."""
        return (self.vocab or []).index(self.void) if isinstance(self.void, str) else self.void

    @property
    def loss(self) -> CrossEntropyLoss:  # type: ignore[override]  # which depends on `void`
        """Cross-entropy over the classes on axis 1, without the pixels that are void."""
        return CrossEntropyLoss(axis=1, ignore_index=-100 if self.ignore_index is None else self.ignore_index)

    def encode(self, value: Any) -> tv_tensors.Mask:
        mask = open_mask(value)
        if self.codes is not None:
            self._check_numbers(mask.as_subclass(Tensor))
        return mask

    def _check_numbers(self, mask: Tensor) -> None:
        n = len(self.codes or [])
        if not mask.numel() or (mask.max() < n and mask.min() >= 0):
            return
        beyond = (mask < 0) | (mask >= n)
        if self.ignore_index is not None:
            beyond &= mask != self.ignore_index
        if beyond.any():
            y, x = beyond.nonzero()[0].tolist()
            raise ValueError(
                f"the mask has {int(beyond.sum())} of {mask.numel()} pixels beyond its {n} codes (0 to {n - 1}), first:"
                f" {int(mask[y, x])} at x = {x}, y = {y}. Complete the codes, let get_y return an array with other "
                f"numbers, or pass void={int(mask[y, x])} if these pixels are to count for nothing."
            )

    def wrap(self, batch: Tensor) -> tv_tensors.Mask:
        return tv_tensors.Mask(batch.long())

    def code(self, number: int) -> str:
        """What a class is called."""
        return self.codes[number] if self.codes and 0 <= number < len(self.codes) else str(number)

    def _occurring(self, *masks: Tensor) -> list[int]:
        """The classes in the masks, without void."""
        numbers = sorted({number for mask in masks for number in mask.unique().tolist()})
        return [number for number in numbers if number != self.ignore_index]

    def text(self, value: Tensor) -> str:
        names = ", ".join(map(self.code, self._occurring(value)))
        return f"mask {value.shape[-2]} × {value.shape[-1]}: {names}"

    def draw(self, value: Tensor, ax: Any) -> None:
        """Draw the mask over the image that `ax` has, with a legend of the classes that occur."""
        if not ax.images:  # the mask is what is seen, and not where it lies
            show_image(torch.zeros(1, *value.shape, dtype=torch.uint8), ax)
        self._overlay(value, ax, ax.images[0].get_extent())
        self._legend(self._occurring(value), ax)

    def draw_result(self, target: Tensor, pred: Tensor, ax: Any) -> None:
        """The target over its image, and to the right the prediction over the same."""
        self.draw(target, ax)
        picture, gap = ax.images[0], target.shape[-1] // 20
        left, right, bottom, top = picture.get_extent()
        beside = (right + gap, 2 * right - left + gap, bottom, top)
        ax.imshow(picture.get_array(), extent=beside, cmap=picture.get_cmap(), norm=picture.norm)
        self._overlay(pred, ax, beside)
        ax.set_xlim(left, beside[1])
        self._legend(self._occurring(target, pred), ax)

    def _overlay(self, mask: Tensor, ax: Any, extent: Sequence[float]) -> None:
        pixels = np.zeros((*mask.shape, 4))
        for number in self._occurring(mask):
            pixels[np.asarray(mask) == number] = (*_colour(number), OPACITY)
        ax.imshow(pixels, extent=extent, interpolation="nearest")

    def _legend(self, numbers: Iterable[int], ax: Any) -> None:
        from matplotlib.patches import Patch

        handles = [Patch(color=_colour(number), label=self.code(number)) for number in numbers]
        legend(ax, handles)


def _colour(number: int) -> tuple[float, float, float]:
    """Red, green and blue of a class: hues that follow each other by the golden ratio are far apart for any number."""
    return colorsys.hsv_to_rgb(number * 0.618034 % 1, (0.95, 0.55)[number // 5 % 2], (1.0, 0.75)[number // 10 % 2])
