"""Datasets that did not come from a `DataBlock`, read in an order and with random numbers that follow from a seed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import TensorDataset, default_collate

from .dataset import Collated, Draw
from .items import ItemError, kind, short
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
        """The items as one batch, collated as torch does by default. Raises ItemError that names an item."""
        indices = [draw.index for draw in draws]
        if isinstance(self.dataset, TensorDataset):
            values = list(self.dataset[indices])
        else:
            values = self._collated(self._samples(draws, indices), indices)
        return Collated(values, indices, draws[0].epoch)

    def _samples(self, draws: Sequence[Draw], indices: list[int]) -> list:
        with kept_generators():
            if not hasattr(self.dataset, "__getitems__"):
                return [self._read(draw) for draw in draws]
            self._seed(draws[0])
            return self.dataset.__getitems__(indices)

    def _read(self, draw: Draw) -> Any:
        self._seed(draw)
        try:
            return self.dataset[draw.index]
        except Exception as error:
            where = f"item {draw.index} of {len(self)} of the {kind(self.dataset)}"
            raise ItemError(f"{where} cannot be read: {type(error).__name__}: {error}") from error

    def _collated(self, samples: list, indices: list[int]) -> Any:
        try:
            return default_collate(samples)
        except (RuntimeError, TypeError, KeyError) as error:
            raise ItemError(
                f"The items {short(indices)} of the {kind(self.dataset)} cannot form a batch, in which they are the "
                f"entries 0, 1, 2 and so on: {error}. Bring them to one size and type, or pass a DataLoader with a "
                "collate_fn of your own."
            ) from error

    def _seed(self, draw: Draw) -> None:
        seed_generators(Randomness(self.seed, draw.epoch, [draw.index]).first)

    def collate(self, batch: Collated) -> Collated:
        """The batch as `__getitems__` gave it."""
        return batch
