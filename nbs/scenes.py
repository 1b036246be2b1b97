"""Scenes: a few handwritten digits on a dim photo, with everything one may want to know of them, for lessons 5 and 6.

Each scene has one large digit and up to three small ones, which do not touch. The digits are those of `digits.py`, the
photos are two that come with scikit-learn. What validates has digits and photos that no training scene has.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from digits import digits_folder
from PIL import Image
from sklearn.datasets import load_sample_images
from warmstart.data.home import warmstart_home

__all__ = ["CODES", "RIM", "scenes_folder"]

SIZE, LARGE, SMALL = 80, (38, 48), (22, 30)  # sides in pixels, of a scene and of its digits
CODES = ["background", *"0123456789"]  # what the numbers in a mask mean
RIM = 255  # in a mask: the faint edge of a stroke, neither digit nor background
FAINT, DIM = 0.4, 0.4  # ink below which it is an edge; brightness of a photo


def scenes_folder(n_scenes: int = 4000, n_kinds: int = 10) -> Path:
    """A folder of scenes with the digits 0 … `n_kinds` - 1.

    It has `images/0000.png` …, a mask of the same name for each in `masks`, and a table `scenes.csv`.

    The table's columns: `file`; `digits`, those that occur (`2;7`); `n`, how many; `x` and `y`, the middle of the large
    one, in pixels; `is_valid` of the last fifth. Written when it is first asked for, to the cache: see
    `warmstart_home`.
    """
    folder = warmstart_home() / f"scenes-{n_scenes}-{n_kinds}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")  # renamed at the end, so that what `folder` holds is whole
        shutil.rmtree(unfinished, ignore_errors=True)
        write_scenes(unfinished, n_scenes, n_kinds)
        unfinished.rename(folder)
    return folder


def write_scenes(folder: Path, n_scenes: int, n_kinds: int) -> None:
    """Write images, masks and table."""
    rand, rows = np.random.default_rng(0), []
    digits, photos = _digits(n_scenes, n_kinds), load_sample_images().images
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(n_scenes):
        is_valid, name = number >= 0.8 * n_scenes, f"{number:04}.png"
        image, mask, seen, middle = _scene(rand, digits[is_valid], _background(rand, photos, is_valid))
        Image.fromarray(image).save(folder / "images" / name)
        Image.fromarray(mask).save(folder / "masks" / name)
        labels = ";".join(map(str, sorted(set(seen))))
        rows.append((f"images/{name}", labels, len(seen), *middle, is_valid))
    columns = ["file", "digits", "n", "x", "y", "is_valid"]
    pd.DataFrame(rows, columns=pd.Index(columns)).to_csv(folder / "scenes.csv", index=False)


def _digits(n_scenes: int, n_kinds: int) -> tuple[list[list[Path]], list[list[Path]]]:
    """For each digit its files: four fifths to train with, and the others. Few scenes need few of them."""
    folder = digits_folder(5000 if n_scenes > 1000 else 1000)
    files = [sorted((folder / str(digit)).iterdir()) for digit in range(n_kinds)]
    return [some[: len(some) * 4 // 5] for some in files], [some[len(some) * 4 // 5 :] for some in files]


def _background(rand: np.random.Generator, photos: list[np.ndarray], is_valid: bool) -> np.ndarray:
    """A dim window of a photo, float `(SIZE, SIZE, 3)`; windows that validate lie to the right of all others."""
    photo = photos[rand.integers(len(photos))]
    border = int(0.7 * photo.shape[1])
    photo = photo[:, border:] if is_valid else photo[:, :border]
    y, x = (rand.integers(side - SIZE) for side in photo.shape[:2])
    return photo[y : y + SIZE, x : x + SIZE] * DIM


def _scene(rand: np.random.Generator, digits: list[list[Path]],
           image: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int], tuple[float, float]]:  # fmt: skip
    """Image, mask, the digits that are drawn, and the middle of the first, the large one."""
    mask, boxes, seen = np.zeros((SIZE, SIZE), np.uint8), [], []
    for sides in [LARGE, *[SMALL] * rand.integers(4)]:
        box = _free_box(rand, int(rand.integers(*sides)), boxes)
        if box is None:
            continue
        digit, (x, y, side) = int(rand.integers(len(digits))), box
        ink = _ink(digits[digit][rand.integers(len(digits[digit]))], side)
        window = np.s_[y : y + side, x : x + side]
        colour = rand.uniform(150, 255, 3)
        image[window] += ink[..., None] * (colour - image[window])
        mask[window][ink > 0.1] = RIM
        mask[window][ink > FAINT] = digit + 1
        boxes.append(box)
        seen.append(digit)
    x, y, side = boxes[0]
    return image.round().astype(np.uint8), mask, seen, (x + side / 2, y + side / 2)


def _free_box(rand: np.random.Generator, side: int, taken: list[tuple]) -> tuple[int, int, int] | None:
    """x, y and side of a box that no other touches; None where there is hardly room for one."""
    for _ in range(50):
        x, y = (int(place) for place in rand.integers(SIZE - side + 1, size=2))
        if all(x + side <= a or a + s <= x or y + side <= b or b + s <= y for a, b, s in taken):
            return x, y, side
    return None


def _ink(file: Path, side: int) -> np.ndarray:
    """How much ink there is in each pixel of a digit, 0 to 1, `(side, side)`."""
    with Image.open(file) as image:
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), float) / 255
