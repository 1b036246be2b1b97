"""Images that are there more than once, perhaps at another size or compressed anew.

>>> find_duplicates(get_image_files(path))
[(3, 17, 0.998), …]                                  # files[17] shows what files[3] does
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["find_duplicates"]

SIDE = 16  # pixels of the thumbnails that are compared
AT_ONCE = 1024  # rows of the table of similarities that are in memory


def find_duplicates(files: Sequence[str | Path], similarity: float = 0.99) -> list[tuple[int, int, float]]:
    """`(earlier, later, similarity)` of each pair of near-identical images, as positions in `files`.

    Compared are thumbnails of 16 × 16 pixels in colour, by how their channels correlate: 1 for the same up to colour
    cast and contrast, which scaling and compression hardly change, and cropping, turning or mirroring does. Pictures
    without shapes are like no other; frames of a video are alike, and so may drawings of few pixels be. Each file is
    read once, by threads. Raises ValueError for a file that is no image.
    """
    with ThreadPoolExecutor() as pool:
        thumbnails = torch.stack(list(pool.map(_thumbnail, files))) if len(files) else torch.zeros(0, 1)
    pairs = []
    for begin in range(0, len(thumbnails), AT_ONCE):
        alike = thumbnails[begin : begin + AT_ONCE] @ thumbnails[begin:].T
        rows, columns = (alike.triu(1) >= similarity).nonzero().unbind(1)
        values = alike[rows, columns].clamp(max=1)
        pairs += zip((rows + begin).tolist(), (columns + begin).tolist(), values.tolist(), strict=True)
    return pairs


def _thumbnail(file: str | Path) -> Tensor:
    """The pixels of a tiny copy as a vector of length 1, each channel of mean 0; without shapes, zeros."""
    try:
        with Image.open(file) as image:
            image.draft("RGB", (4 * SIDE, 4 * SIDE))
            pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise ValueError(f"{file} cannot be read as an image: {error}. verify_images(files) finds all such.") from error
    vector = torch.from_numpy(pixels - pixels.mean((0, 1))).flatten()
    length = vector.norm()
    return vector / length if length > SIDE else torch.zeros_like(vector)  # a standard deviation of half a grey value
