"""Images: reading files, the block that holds them, and showing them."""

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from ..data.blocks import Block
from ..data.loaders import default_workers
from ..data.transforms import Transform
from .transforms import ToFloat

__all__ = ["ImageBlock", "open_image", "show_image", "show_images", "verify_images"]

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION = 0x0112


def open_image(source: Any, mode: str = "RGB", min_side: int | None = None) -> tv_tensors.Image:
    """An image as uint8 `(c, h, w)`, upright (EXIF orientation applied), in `mode` 'L', 'RGB' or 'RGBA'.

    `source`: a path, the bytes of a file, a PIL image, a uint8 array `(h, w)` or `(h, w, c)`, or a uint8 tensor `(c, h, w)`.
    With `min_side`, a JPEG of which the shorter side has more than twice these pixels is decoded at 1/2, 1/4 or 1/8 scale,
    which is several times faster. Raises ValueError for a file that cannot be read as an image.
    """
    if isinstance(source, Tensor):
        return _from_tensor(source, mode)
    if isinstance(source, np.ndarray):
        source = Image.fromarray(source)
    if isinstance(source, Image.Image):
        return _to_tensor(source, mode)
    if not isinstance(source, (str, Path, bytes)):
        raise TypeError(f"an image is a path, bytes, PIL image, array or tensor, not {type(source).__name__}")
    return _from_file(source, mode, min_side)


def _from_file(source: str | Path | bytes, mode: str, min_side: int | None) -> tv_tensors.Image:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if min_side and image.format == "JPEG":
                scale = 2 * min_side / min(image.size)  # twice, so that what is left for the resize stays a clean average
                image.draft(None, (int(image.width * scale), int(image.height * scale)))
            return _to_tensor(image, mode)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        size = f"{Path(source).stat().st_size:,} bytes" if isinstance(source, (str, Path)) and Path(source).is_file() else "not a file"
        raise ValueError(
            f"this is not an image that can be read ({size}; {error}). verify_images(files) finds all such files: remove them or leave "
            "them out in get_items."
        ) from error


def _to_tensor(image: Image.Image, mode: str) -> tv_tensors.Image:
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion would clip them at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    pixels = np.array(image if image.mode == mode else image.convert(mode))
    return tv_tensors.Image(torch.from_numpy(pixels[..., None] if mode == "L" else pixels).permute(2, 0, 1))


def _from_tensor(image: Tensor, mode: str) -> tv_tensors.Image:
    channels = CHANNELS[mode]
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, channels):
        raise ValueError(f"an image tensor for mode {mode} is uint8 ({channels}, h, w); got {image.dtype} {tuple(image.shape)}")
    return tv_tensors.Image(image.as_subclass(Tensor).expand(channels, -1, -1))


@dataclass
class ImageBlock(Block):
    """An image, encoded as `tv_tensors.Image` uint8 `(c, h, w)`; batches are float32 in [0, 1] on the device.

    `mode`: 'L' (grey, 1 channel), 'RGB' or 'RGBA'. `min_side` lets big JPEGs be decoded at reduced scale; a `DataBlock` sets it
    from its first transform where no other value has positions in the image.
    """

    mode: str = "RGB"
    min_side: int | None = None

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

    def for_min_side(self, min_side: int) -> "ImageBlock":
        return replace(self, min_side=min_side)

    def encode(self, value: Any) -> tv_tensors.Image:
        return open_image(value, self.mode, self.min_side)

    def wrap(self, batch: Tensor) -> tv_tensors.Image:
        return tv_tensors.Image(batch)

    def text(self, value: Tensor) -> str:
        return f"image {value.shape[-2]} × {value.shape[-1]}"

    def draw(self, value: Tensor, ax: Any) -> None:
        show_image(value, ax)

    def draw_result(self, target: Tensor, pred: Tensor, ax: Any) -> None:
        """Target left, prediction right."""
        show_image(torch.cat([target, pred.to(target.dtype)], dim=-1), ax)


def verify_images(fnames: Iterable[str | Path]) -> list[Path]:
    """Which of the files cannot be decoded as an image, in their order; each is read whole."""
    files = [Path(f) for f in fnames]
    with ThreadPoolExecutor(max(1, default_workers())) as pool:
        good = list(pool.map(_is_image, files))
    return [file for file, ok in zip(files, good, strict=True) if not ok]


def _is_image(file: Path) -> bool:
    try:
        open_image(file)
    except (ValueError, OSError):
        return False
    return True


def show_image(im: Any, ax: Any = None, title: str | None = None) -> Any:
    """Draw one image (anything `open_image` takes, or floats `(c, h, w)` in [0, 1]) on matplotlib axes, and return them."""
    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(figsize=(3, 3), layout="constrained")
    pixels = im if isinstance(im, Tensor) else open_image(im)
    pixels = pixels.detach().cpu().as_subclass(Tensor).permute(1, 2, 0)
    pixels = pixels.clamp(0, 1) if pixels.is_floating_point() else pixels
    ax.imshow(pixels.squeeze(-1).numpy(), **({"cmap": "gray", "vmin": 0} if pixels.shape[-1] == 1 else {}))
    ax.axis("off")
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


def show_images(ims: Sequence[Any], nrows: int = 1, titles: Sequence[str] | None = None) -> None:
    """Draw several images in a grid of `nrows` rows."""
    from ..data.show import draw_grid

    names = titles if titles is not None else [None] * len(ims)
    draws = [lambda ax, im=im, name=name: show_image(im, ax, name) for im, name in zip(ims, names, strict=True)]
    draw_grid(draws, n_cols=-(-len(ims) // nrows))
