"""What transforms of images have in common: a sample's values picked by type, and random numbers for each image."""

from collections.abc import Callable
from typing import TypeVar

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


def draw(rand: Randomness, n: int, batch: bool) -> tuple[Tensor, ...]:
    """`n` numbers in [0, 1) for each image, or the first image's for all if `batch`: `(bs,)` float64 each.

    What is computed from them in double precision and rounded to float32 in the end is the same for an image on its own
    and in a batch, although processors use other instructions for many numbers than for one.
    """
    numbers = rand.uniform(n).double()
    return (numbers[:1].expand_as(numbers) if batch else numbers).unbind(1)
