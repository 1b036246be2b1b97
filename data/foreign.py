"""Datasets that did not come from a `DataBlock`, read in an order and with random numbers that follow from a seed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import TensorDataset, default_collate

from .dataset import Collated, Draw
from .randomness import Randomness, kept_generators, seed_generators

__all__ = ["ForeignDataset"]


class ForeignDataset(torch.utils.data.Dataset):
    """Any map-style dataset, keyed by draws; while an item is read, the global generators follow from its draw.

    A dataset with `__getitems__` reads a batch at once, and the generators follow from its first item. Of a
    `TensorDataset`, where nothing is random, the tensors are indexed once a batch.
    """

    def __init__(self, dataset: Any, seed: int):
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, draws: Sequence[Draw]) -> Collated:
        """The items as one batch, collated as torch does by default."""
        indices = [draw.index for draw in draws]
        if isinstance(self.dataset, TensorDataset):
            values = list(self.dataset[indices])
        else:
            values = default_collate(self._samples(draws, indices))
        return Collated(values, indices, draws[0].epoch)

    def _samples(self, draws: Sequence[Draw], indices: list[int]) -> list:
        with kept_generators():
            if not hasattr(self.dataset, "__getitems__"):
                return [self._read(draw) for draw in draws]
            self._seed(draws[0])
            return self.dataset.__getitems__(indices)

    def _read(self, draw: Draw) -> Any:
        self._seed(draw)
        return self.dataset[draw.index]

    def _seed(self, draw: Draw) -> None:
        seed_generators(Randomness(self.seed, draw.epoch, [draw.index]).first)

    def collate(self, batch: Collated) -> Collated:
        """The batch as `__getitems__` gave it."""
        return batch
