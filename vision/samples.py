"""What transforms of images have in common: a sample's values picked by type, and random numbers for each image."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from torch import Tensor
from torchvision import tv_tensors
from torchvision.tv_tensors import TVTensor

from ..data.randomness import Randomness

__all__ = ["draw", "map_type", "rewrap"]

Kind = TypeVar("Kind", bound=TVTensor)


def map_type(kind: type[Kind], function: Callable[[Kind], Tensor], sample: tuple) -> tuple:
    """`sample` with `function` applied to its values of that kind."""
    return tuple(function(value) if isinstance(value, kind) else value for value in sample)


def rewrap(pixels: Tensor, like: Kind) -> Kind:
    """`pixels` as the kind of `tv_tensor` that `like` is."""
    return tv_tensors.wrap(pixels, like=like)  # type: ignore[call-arg,call-issue]


def draw(rand: Randomness, n: int, batch: bool) -> tuple[np.ndarray, ...]:
    """`n` numbers in [0, 1) for each image, or the first image's for all if `batch`: `(bs,)` float64 each.

    They are numpy's, which goes through a few numbers in a quarter of torch's time. What is computed from them in
    double precision and rounded to float32 in the end is the same for an image on its own and in a batch, although
    processors use other instructions for many numbers than for one.
    """
    numbers = rand.uniform(n).numpy().astype(np.float64)
    return tuple((np.broadcast_to(numbers[:1], numbers.shape) if batch else numbers).T)
