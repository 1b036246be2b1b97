"""Patches of real photos, each sharp and as if a camera with a quarter of the pixels had taken it, for lesson 7.

The three photos come with scikit-learn (a temple, a flower) and with matplotlib (a portrait of Grace Hopper). Patches
that validate are from the bottom of each, those to train with from above.
"""

import shutil
from pathlib import Path

import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_images
from warmstart.data.home import warmstart_home

__all__ = ["SIZE", "patches_folder"]

SIZE, FACTOR = 64, 4  # pixels of a patch, and how many of them become one, each way
DETAIL = 5.0  # the mean difference of neighbouring pixels, of 255, that a patch has at least


def patches_folder(n_patches: int = 1000) -> Path:
    """A folder with `sharp/train/0000.png` … and `sharp/valid`, and the same files, blurred, in `small`.

    A fifth of them is in `valid`. Written when it is first asked for, to the cache: see `warmstart_home`.
    """
    folder = warmstart_home() / f"patches-{n_patches}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")  # renamed at the end, so that what `folder` holds is whole
        shutil.rmtree(unfinished, ignore_errors=True)
        write_patches(unfinished, n_patches)
        unfinished.rename(folder)
    return folder


def write_patches(folder: Path, n_patches: int) -> None:
    """Write each patch twice."""
    rand, photos = np.random.default_rng(0), _photos()
    for number in range(n_patches):
        is_valid = number >= 0.8 * n_patches
        patch = _patch(rand, photos[number % len(photos)], is_valid)
        for kind, image in {"sharp": patch, "small": _small(patch)}.items():
            place = folder / kind / ("valid" if is_valid else "train")
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{number:04}.png")


def _photos() -> list[Image.Image]:
    portrait = Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB")
    return [portrait, *map(Image.fromarray, load_sample_images().images)]


def _patch(rand: np.random.Generator, photo: Image.Image, is_valid: bool) -> Image.Image:
    """A random patch from one part of the photo, with something in it: sky would be as sharp when it is blurred."""
    border = int(0.7 * photo.height)
    top, bottom = (border, photo.height) if is_valid else (0, border)
    for _ in range(100):
        x, y = int(rand.integers(photo.width - SIZE)), int(rand.integers(top, bottom - SIZE))
        patch = photo.crop((x, y, x + SIZE, y + SIZE))
        if np.abs(np.diff(np.asarray(patch, float), axis=1)).mean() > DETAIL:
            return patch
    raise ValueError(f"a photo of {photo.size} pixels has no patch with enough detail in it: take another")


def _small(patch: Image.Image) -> Image.Image:
    """The patch with fewer pixels, enlarged again."""
    few = patch.resize((SIZE // FACTOR, SIZE // FACTOR), Image.Resampling.BOX)
    return few.resize(patch.size, Image.Resampling.BICUBIC)
