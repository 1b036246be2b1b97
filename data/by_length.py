"""Sequences of similar length together, so that little of a batch is padding.

>>> order = SortedInChunks([5, 900, 7, 850], bs=2)
>>> list(order)                       # positions of the items: two batches, the longest item in the first
[1, 3, 2, 0]
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from .dataset import Dataset

__all__ = ["SortedInChunks", "order_by_length"]

CHUNK = 50  # batches whose items are sorted together


class SortedInChunks(Sampler[int]):
    """Positions in a random order in which the `bs` items of a batch are about equally long.

    The shuffled items are sorted by length in chunks of 50 batches, and then the batches are shuffled. The longest item
    is in the first batch: if that fits into memory, all do. Draws from torch's global generator.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, bs: int):
        self.lengths, self.bs = np.asarray(lengths), bs

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self)).numpy()
        chunks = [order[i : i + CHUNK * self.bs] for i in range(0, len(order), CHUNK * self.bs)]
        order = np.concatenate([_longest_first(chunk, self.lengths) for chunk in chunks]) if chunks else order
        batches = [order[i : i + self.bs] for i in range(0, len(order), self.bs)]
        whole = [batch for batch in batches if len(batch) == self.bs]
        first = max(range(len(whole)), key=lambda i: self.lengths[whole[i]].max(), default=0)
        rest = [i for i in torch.randperm(len(whole)).tolist() if i != first]
        ordered = [whole[i] for i in ([first, *rest] if whole else [])] + batches[len(whole) :]
        yield from (int(position) for batch in ordered for position in batch)


def order_by_length(dataset: Dataset, shuffled_for: int | None = None) -> SortedInChunks | list[int] | None:
    """The order of a dataset whose first input is a sequence: longest first, or shuffled for batches of so many items.

    None where it is not.
    """
    block = dataset.blocks[0]
    if not block.is_sequence:
        return None
    lengths = np.array([len(block.encode(value)) for value in dataset.values(0)])
    if shuffled_for is not None:
        return SortedInChunks(lengths, shuffled_for)
    return _longest_first(np.arange(len(lengths)), lengths).tolist()


def _longest_first(positions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return positions[np.argsort(-lengths[positions], kind="stable")]
