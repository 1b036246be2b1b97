"""Changes of a picture's geometry as 3×3 matrices, composed into one and made by one interpolation.

A matrix maps where a pixel of the result lies to the place in the source that it shows. Places are relative: x runs
from -1 at the left edge to 1 at the right edge, y from -1 at the top to 1 at the bottom. Changes are composed by
multiplication, the first one leftmost:

    warp(images, rotation(degrees, w / h) @ zoom(factor, x, y), size)    # turned, then enlarged

All builders take `(n,)` float64 arrays, one number for each image, and return `(n, 3, 3)`, also float64.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dihedral", "perspective", "rotation", "sampling_grid", "warp", "zoom"]

# The eight ways to lay a square upon itself, as 2×2 matrices in the order of fast.ai's dihedral transforms
_WAYS = np.array([
    *((1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (0, -1, 1, 0)),
    *((-1, 0, 0, -1), (0, 1, -1, 0), (0, 1, 1, 0), (0, -1, -1, 0)),
], np.float64)  # fmt: skip


def dihedral(number: np.ndarray, aspect: float) -> np.ndarray:
    """One of the eight flips and quarter turns for each image: `number` is `(n,)` int64, 0 changes nothing, 1 mirrors.

    Turns keep the shape of what is shown: what no longer fits into an image of another `aspect` is cut off.
    """
    a, b, c, d = _WAYS[number].T
    return _matrices(len(number), ((a, b / aspect, 0), (c * aspect, d, 0), (0, 0, 1)))


def rotation(degrees: np.ndarray, aspect: float) -> np.ndarray:
    """Turn counter-clockwise around the middle, without shearing an image whose width / height is `aspect`."""
    angle = degrees * (math.pi / 180)
    cos, sin = np.cos(angle), np.sin(angle)
    return _matrices(len(degrees), ((cos, -sin / aspect, 0), (sin * aspect, cos, 0), (0, 0, 1)))


def zoom(factor: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Enlarge by `factor` around the place (x, y), each in [-1, 1], which stays where it is."""
    share = 1 / factor
    return _matrices(len(factor), ((share, 0, x * (1 - share)), (0, share, y * (1 - share)), (0, 0, 1)))


def perspective(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Look from the side (x) and from above (y): one edge grows by that share, the opposite one shrinks by it.

    Where one of the two is 0 this is fast.ai's `Warp(draw_x=x, draw_y=y)`; where both are not, it differs by terms of
    the order of xy. |x| + |y| must stay below 1, where a corner reaches the horizon.
    """
    return _matrices(len(x), ((1, 0, -x), (0, 1, -y), (-x, -y, 1)))


def _matrices(n: int, rows: tuple[tuple[np.ndarray | float, ...], ...]) -> np.ndarray:
    """`(n, 3, 3)` from nine entries, each a number or `(n,)`."""
    result = np.empty((n, 3, 3))
    for i, row in enumerate(rows):
        for j, entry in enumerate(row):
            result[:, i, j] = entry
    return result


def warp(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    mode: str = "bilinear",
    pad_mode: str = "reflection",
    to_float: bool = False,
) -> Tensor:
    """`images` `(n, c, h, w)` seen through `matrix` `(n, 3, 3)`, as `(n, c, *size)` of the same dtype.

    Computed in float32; with `to_float`, bytes become float32 in [0, 1]. `mode` is "bilinear", "nearest" or "bicubic";
    `pad_mode` says what lies around the images: "reflection", "border" or "zeros".
    """

    def seen(images: Tensor, grid: Tensor) -> Tensor:
        pixels = F.grid_sample(images.to(torch.float32, copy=True), grid, mode, pad_mode, align_corners=False)
        return pixels.div_(255) if to_float else pixels.to(images.dtype)

    if images.device.type != "cpu":
        return seen(images, sampling_grid(matrix.float(), size))
    result = images.new_empty(*images.shape[:2], *size, dtype=torch.float32 if to_float else images.dtype)
    n = torch.get_num_threads()
    for pixels, matrices, places in zip(images.split(4 * n), matrix.split(4 * n), result.split(4 * n), strict=True):
        grids = sampling_grid(matrices.float(), size)
        for one, grid, place in zip(pixels.split(n), grids.split(n), places.split(n), strict=True):
            place.copy_(seen(one, grid))
    return result


def sampling_grid(matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """The places (x, y) in the source that the pixels of a result of `size` show: `(n, *size, 2)`.

    What a row and what a column add to the sums is computed once each: seven times as fast as a product of matrices.
    """
    by_x, by_y, shift = matrix[..., None, None].unbind(2)  # (n, 3, 1, 1) each
    across = by_x * _centres(size[1], matrix)  # (n, 3, 1, w)
    down = by_y * _centres(size[0], matrix)[:, None] + shift  # (n, 3, h, 1)
    nearness = (across[:, 2] + down[:, 2]).reciprocal_()
    grid = matrix.new_empty(len(matrix), *size, 2)
    for axis in (0, 1):
        torch.mul(across[:, axis] + down[:, axis], nearness, out=grid[..., axis])
    return grid


def _centres(n: int, like: Tensor) -> Tensor:
    """Where the centres of `n` pixels lie between -1 and 1."""
    return (torch.arange(n, dtype=like.dtype, device=like.device) * 2 + (1 - n)) / n
