"""Datasets that did not come from a `DataBlock`, read in an order and with random numbers that follow from a seed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import default_collate

from .dataset import Collated, Draw
from .randomness import Randomness, kept_generators, seed_generators

__all__ = ["ForeignDataset"]


class ForeignDataset(torch.utils.data.Dataset):
    """Any map-style dataset, keyed by draws; while an item is read, the global generators follow from its draw.

    A dataset with `__getitems__` reads a batch at once, and the generators follow from its first item.
    """

    def __init__(self, dataset: Any, seed: int):
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, draws: Sequence[Draw]) -> tuple[Sequence[Draw], list]:
        with kept_generators():
            if not hasattr(self.dataset, "__getitems__"):
                return draws, [self._read(draw) for draw in draws]
            self._seed(draws[0])
            return draws, self.dataset.__getitems__([draw.index for draw in draws])

    def _read(self, draw: Draw) -> Any:
        self._seed(draw)
        return self.dataset[draw.index]

    def _seed(self, draw: Draw) -> None:
        seed_generators(Randomness(self.seed, draw.epoch, [draw.index]).first)

    def collate(self, read: tuple[Sequence[Draw], list]) -> Collated:
        draws, samples = read
        return Collated(default_collate(samples), [draw.index for draw in draws], draws[0].epoch)
