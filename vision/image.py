"""Images: reading files, the block that holds them, and showing them."""

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision import tv_tensors

from ..data.blocks import Block
from ..data.transforms import Transform
from .dicom import is_dicom, open_dicom
from .jpeg import decoded
from .transforms import ToFloat

__all__ = ["ImageBlock", "open_image", "show_image", "show_images", "verify_images"]

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
ORIENTATION = 0x0112  # the tag of EXIF


def open_image(source: Any, mode: str = "RGB", min_side: int | None = None) -> tv_tensors.Image:
    """An image as uint8 `(c, h, w)`, upright (EXIF orientation applied), in `mode` 'L', 'RGB' or 'RGBA'.

    `source`: a path, the bytes of a file, a PIL image, a uint8 or bool array `(h, w)` or `(h, w, c)`, or a uint8 tensor
    `(c, h, w)`; of DICOM see `open_dicom`. With `min_side`, a big JPEG is decoded at 1/2, 1/4 or 1/8 scale, several
    times faster, as long as twice these pixels remain on its shorter side. The extra `jpeg` makes the same pixels in
    less time. Raises ValueError for what cannot be read as an image.
    """
    if isinstance(source, Tensor):
        return _from_tensor(source, mode)
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if is_dicom(source):
        source = open_dicom(source)
    if isinstance(source, Image.Image):
        return _to_tensor(source, mode)
    if not isinstance(source, (str, Path, bytes)):
        raise TypeError(f"an image is a path, bytes, PIL image, array or tensor, not {type(source).__name__}")
    return _from_file(source, mode, min_side)


def _from_file(source: str | Path | bytes, mode: str, min_side: int | None) -> tv_tensors.Image:
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            if min_side:
                _scale_down(image, min_side)
            as_it_is = image.mode == mode and _orientation(image) == 1
            pixels = decoded(content, image) if as_it_is else None
            return _to_tensor(image, mode) if pixels is None else _wrapped(pixels)
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(
            f"this is not an image that can be read ({len(content):,} bytes; {reason}). verify_images(files) finds all "
            "such files: remove them, or leave them out in get_items."
        ) from error


def _scale_down(image: Image.Image, min_side: int) -> None:
    """Have a JPEG decoded at a smaller scale. Twice `min_side` remains, so that resizing still averages pixels."""
    scale = 2 * min_side / min(image.size)
    image.draft(None, (int(image.width * scale), int(image.height * scale)))


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(ORIENTATION, 1)


def _to_tensor(image: Image.Image, mode: str) -> tv_tensors.Image:
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion would clip them at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return _wrapped(np.array(image if image.mode == mode else image.convert(mode)))


def _wrapped(pixels: np.ndarray) -> tv_tensors.Image:
    """Pixels `(h, w)` or `(h, w, c)`."""
    return tv_tensors.Image(torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1))


def _from_array(array: np.ndarray) -> Image.Image:
    channels = 1 if array.ndim == 2 else array.shape[-1]
    if array.dtype not in (np.uint8, np.bool_) or array.ndim not in (2, 3) or channels not in (1, 2, 3, 4):
        hint = ": of floats in [0, 1] pass (255 * image).round().astype(np.uint8)" if array.dtype.kind == "f" else ""
        raise ValueError(f"an image array is uint8 (h, w) or (h, w, 1 to 4); got {array.dtype} {array.shape}{hint}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and channels == 1 else array)


def _from_tensor(image: Tensor, mode: str) -> tv_tensors.Image:
    channels = CHANNELS[mode]
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, channels):
        hint = ": of floats in [0, 1] pass (255 * image).round().to(torch.uint8)" if image.is_floating_point() else ""
        raise ValueError(
            f"an image tensor for mode {mode} is uint8 ({channels}, h, w); got {image.dtype} {tuple(image.shape)}{hint}"
        )
    return tv_tensors.Image(image.as_subclass(Tensor).expand(channels, -1, -1))


@dataclass
class ImageBlock(Block):
    """An image, encoded as `tv_tensors.Image` uint8 `(c, h, w)`; batches are float32 in [0, 1] on the device.

    `mode`: 'L' (grey, 1 channel), 'RGB' or 'RGBA'. `min_side` lets big JPEGs be decoded at reduced scale (see
    `open_image`); a `DataBlock` takes it from its first transform where no other value has positions in the image.
    """

    mode: str = "RGB"
    min_side: int | None = None

    loss: ClassVar[str] = "MSELoss"
    is_picture: ClassVar[bool] = True
    is_spatial: ClassVar[bool] = True
    batch_tfms: ClassVar[Sequence[Transform]] = (ToFloat(),)

    def __post_init__(self):
        if self.mode not in CHANNELS:
            raise ValueError(f"ImageBlock(mode={self.mode!r}): the modes are {list(CHANNELS)}.")

    @property
    def channels(self) -> int:
        """Channels of the encoded image: 1, 3 or 4."""
        return CHANNELS[self.mode]

    @property
    def n_out(self) -> int:
        """The outputs for each pixel of a model that predicts the image."""
        return self.channels

    def for_min_side(self, min_side: int) -> "ImageBlock":
        return replace(self, min_side=self.min_side or min_side)

    def encode(self, value: Any) -> tv_tensors.Image:
        return open_image(value, self.mode, self.min_side)

    def wrap(self, batch: Tensor) -> tv_tensors.Image:
        return tv_tensors.Image(batch)

    def text(self, value: Tensor) -> str:
        return f"image {value.shape[-2]} × {value.shape[-1]}"

    def draw(self, value: Tensor, ax: Any) -> None:
        """Draw the image to the right of those that `ax` has already."""
        right = max((image.get_extent()[1] for image in ax.images), default=-0.5)
        _imshow(value, ax, left=right)

    def draw_result(self, target: Tensor, pred: Tensor, ax: Any) -> None:
        """Target left, prediction right of it."""
        self.draw(target, ax)
        self.draw(pred, ax)


def verify_images(fnames: Iterable[str | Path]) -> list[Path]:
    """Which of the files cannot be decoded as an image, in their order; each is read whole."""
    files = [Path(f) for f in fnames]
    with ThreadPoolExecutor() as pool:
        good = list(pool.map(_is_image, files))
    return [file for file, ok in zip(files, good, strict=True) if not ok]


def _is_image(file: Path) -> bool:
    try:
        open_image(file)
    except (ValueError, OSError):
        return False
    return True


def show_image(im: Any, ax: Any = None, title: str | None = None) -> Any:
    """Draw an image on matplotlib axes, and return them.

    `im`: anything `open_image` takes, or a tensor `(c, h, w)` or `(h, w)` of bytes or of floats in [0, 1].
    """
    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(figsize=(3, 3), layout="constrained")
    _imshow(im if isinstance(im, Tensor) else open_image(im), ax)
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


def _imshow(image: Tensor, ax: Any, left: float = -0.5) -> None:
    """Draw `(c, h, w)` or `(h, w)` from the x coordinate `left` on; what is drawn already stays in view."""
    pixels = image.detach().cpu().as_subclass(Tensor)
    pixels = (pixels[None] if pixels.ndim == 2 else pixels).permute(1, 2, 0)
    if pixels.is_floating_point():
        pixels = pixels.clamp(0, 1)
    height, width, channels = pixels.shape
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1 if pixels.is_floating_point() else 255} if channels == 1 else {}
    ax.imshow(pixels.squeeze(-1).numpy(), extent=(left, left + width, height - 0.5, -0.5), **grey)
    ax.set_xlim(-0.5, left + width)
    ax.set_ylim(max(shown.get_extent()[2] for shown in ax.images), -0.5)
    ax.axis("off")


def show_images(ims: Sequence[Any], nrows: int = 1, titles: Sequence[str] | None = None) -> None:
    """Draw several images in a grid of `nrows` rows."""
    from ..data.show import draw_grid

    names = titles if titles is not None else [None] * len(ims)
    draws = [lambda ax, im=im, name=name: show_image(im, ax, name) for im, name in zip(ims, names, strict=True)]
    draw_grid(draws, n_cols=-(-len(ims) // nrows))
