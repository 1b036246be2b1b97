"""Texts of similar length together, so that little of a batch is padding.

>>> order = SortedInChunks([5, 900, 7, 850], bs=2)
>>> list(order)                       # positions of the texts: two batches, the longest text in the first
[1, 3, 2, 0]
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from ..data.bunch import check_batch_size
from ..data.dataset import Dataset
from ..data.loaders import DeviceLoader, make_loader
from ..data.transforms import Transform

__all__ = ["SortedInChunks", "by_length_loader"]

CHUNK = 50  # batches whose texts are sorted together


class SortedInChunks(Sampler[int]):
    """Positions in a random order in which the `bs` texts of a batch are about equally long.

    The shuffled texts are sorted by length in chunks of 50 batches, and then the batches are shuffled. The longest text
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


def by_length_loader(dataset: Dataset, bs: int, num_workers: int, device: torch.device, training: bool,
                     batch_tfms: Sequence[Transform] = ()) -> DeviceLoader:  # fmt: skip
    """A loader of texts of similar length; outside of training all of them, the longest first.

    Raises ValueError where a training set is smaller than one batch.
    """
    if training:
        check_batch_size(len(dataset), bs)
    lengths = np.array([len(dataset.blocks[0].encode(value)) for value in dataset.values(0)])
    order = SortedInChunks(lengths, bs) if training else _longest_first(np.arange(len(lengths)), lengths).tolist()
    dl = make_loader(dataset, bs, num_workers, device, drop_last=training, order=order)
    return DeviceLoader(dl, device, batch_tfms, dataset.blocks, training)


def _longest_first(positions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return positions[np.argsort(-lengths[positions], kind="stable")]
