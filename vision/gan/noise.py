"""Noise as the input of a generator: a block like any other, whose values follow from the item and the epoch."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...data import Block
from ...data.randomness import mix

__all__ = ["NoiseBlock"]


@dataclass
class NoiseBlock(Block):
    """`size` standard normal numbers, float32 `(size,)`; no item is read for them.

    In training they follow from (seed, epoch, item), in validation from (seed, item), so that the same images are made
    again after each epoch. The other block of a sample needs no `get_x` or `get_y`:

        DataBlock((NoiseBlock(100), ImageBlock), get_items=get_image_files, item_tfms=Resize(64))

    Raises ValueError for a size below 1.
    """

    size: int = 100

    reads_item: ClassVar[bool] = False

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"NoiseBlock({self.size}): the size is how many numbers a generator gets, at least 1.")

    def is_missing(self, value: Any) -> bool:
        return False

    def encode(self, value: Any) -> Tensor:
        """Drawn from the global generator, which follows from seed, epoch and item while an item is read."""
        return torch.randn(self.size)

    def noise(self, n: int, seed: int = 0) -> Tensor:
        """`(n, size)` numbers that follow from `seed`; the first ones are the same for any `n`."""
        return torch.stack([torch.randn(self.size, generator=_generator(seed, item)) for item in range(n)])

    def draw(self, value: Tensor, ax: Any) -> None:
        """Nothing: there is nothing to see in noise."""


def _generator(seed: int, item: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix(seed, item) >> 1)
