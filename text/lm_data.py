"""Batches of a language model: windows that run through all texts, each row going on where it stopped before.

The texts of an epoch, in an order of their own, are one long row of tokens, cut into `bs` rows of equal length. Batch t
holds the t-th `seq_len` tokens of each row, and as target the tokens after them; the last batch may be shorter. So a
model may keep its state from batch to batch. Fewer than `bs` tokens at the very end have no place; in training they are
others each epoch. Of several processes each has `bs` rows of its own.

    dl = lm_loader(dataset, bs=64, device=torch.device("cpu"), training=True)
    for x, y in dl: ...                                      # (64, 72) int64 each; y[:, :-1] equals x[:, 1:]
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from ..data.dataset import Collated, Dataset, Draw
from ..data.loaders import DeviceLoader, make_loader
from ..data.randomness import mix
from ..data.sharding import Shard
from ..data.transforms import Transform

__all__ = ["LMDataset", "LMLoader", "lm_loader"]


def lm_loader(documents: Dataset, bs: int, device: torch.device, training: bool = False, shuffle: bool | None = None,
              batch_tfms: Sequence[Transform] = ()) -> "LMLoader":  # fmt: skip
    """A loader of the texts of `documents`, whose first block is a `TextBlock`, shuffled each epoch if in `training`.

    Where it is not, few texts have fewer rows than `bs`, of one window each. Raises ValueError where there are not
    enough tokens for `bs` rows in training, or for a window at all.
    """
    windows = LMDataset(documents, bs if training else 1, training if shuffle is None else shuffle)
    if not training:
        bs = max(1, min(bs, windows.row_length // windows.seq_len))
        windows = windows.with_rows(bs)
    return _loader(windows, bs, device, batch_tfms, training)


class LMDataset(torch.utils.data.Dataset):
    """Windows: number i is that of step `i // n_rows` in row `i % n_rows`, input and target `(seq_len,)` int64.

    Which text is where follows from `(seed, epoch)`, so a window is the same wherever it is read.
    """

    def __init__(self, documents: Dataset, n_rows: int, shuffle: bool):
        block: Any = documents.blocks[0]
        parts = [block.numbers(value) for value in documents.values(0)]
        self.source, self.seq_len, self.shuffle, self.seed = documents, block.seq_len, shuffle, documents.seed
        self.items, self.item_tfms, self.cache, self.n_inp = documents.items, documents.item_tfms, None, 1
        self.blocks, self.getters = [block, block], [documents.getters[0]] * 2
        self.lengths = np.array([len(part) for part in parts])
        self.data = np.concatenate(parts) if parts else np.empty(0, np.int32)  # all tokens, in the order of the items
        self._order: tuple[int, np.ndarray, np.ndarray] | None = None  # of one epoch
        self._set_rows(n_rows)

    def with_rows(self, n_rows: int) -> "LMDataset":
        """The same texts in so many rows."""
        other = copy.copy(self)
        other._set_rows(n_rows)
        return other

    def _set_rows(self, n_rows: int) -> None:
        self.n_rows, self.row_length = n_rows, (len(self.data) - 1) // n_rows  # the last token is a target only
        if len(self.data) < 2:
            raise ValueError(
                f"{len(self.data)} tokens in {len(self.lengths)} texts are too few: a language model needs two, one to "
                "read and one to predict."
            )
        if self.row_length < 1:
            raise ValueError(
                f"{len(self.data)} tokens in {len(self.lengths)} texts are too few for {n_rows} rows (bs, for each "
                f"process): take bs={max(1, (len(self.data) - 1) // 2)} or less, or more texts."
            )

    def __len__(self) -> int:
        return self.n_rows * -(-self.row_length // self.seq_len)

    def __repr__(self) -> str:
        return f"LMDataset({len(self.data)} tokens in {len(self.lengths)} texts, {self.n_rows} rows)"

    def __getitem__(self, index: int | Draw) -> tuple[torch.Tensor, torch.Tensor]:
        draw = index if isinstance(index, Draw) else Draw(range(len(self))[index])
        x, y = self.__getitems__([draw]).values
        return x[0], y[0]

    def __getitems__(self, draws: Sequence[Draw]) -> Collated:
        """The windows of one step, some or all of its rows, as a batch."""
        index, epoch = np.array([draw.index for draw in draws]), draws[0].epoch
        step, row = index // self.n_rows, index % self.n_rows
        begin = step * self.seq_len
        width = min(self.seq_len, self.row_length - int(begin[0]))
        places = (row * self.row_length + begin)[:, None] + np.arange(width + 1)
        window = torch.from_numpy(self._tokens(places, epoch).astype(np.int64))
        return Collated((window[:, :-1].contiguous(), window[:, 1:].contiguous()), index.tolist(), epoch)

    def collate(self, batch: Collated) -> Collated:
        """The batch as `__getitems__` gave it."""
        return batch

    def _tokens(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """The tokens at these places of the long row of an epoch."""
        ends, shifts = self._texts(epoch)
        return self.data[places + shifts[np.searchsorted(ends, places, side="right")]]

    def _texts(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each text in the order of an epoch: where it ends, and how far its tokens are from there in `data`."""
        if self._order is None or self._order[0] != epoch:
            order = self._shuffled(epoch)
            begins = np.cumsum(self.lengths) - self.lengths
            ends = np.cumsum(self.lengths[order])
            self._order = epoch, ends, begins[order] - (ends - self.lengths[order])
        return self._order[1:]

    def _shuffled(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.lengths))
        generator = torch.Generator().manual_seed(mix(self.seed, epoch) >> 1)
        return torch.randperm(len(self.lengths), generator=generator).numpy()


class LMLoader(DeviceLoader):
    """A `DeviceLoader` of an `LMDataset`, all rows of which move on together, also where processes share them."""

    def sharded(self, shard: Shard, seed: int) -> "LMLoader":
        """A loader of `bs` rows of which no other process has one; in validation too, as its state goes on as well."""
        loader = self._of(self._windows.with_rows((self.bs or 1) * shard.n), self.bs or 1)
        return cast(LMLoader, DeviceLoader.sharded(loader, replace(shard, training=True), seed))

    def with_bs(self, bs: int) -> "LMLoader":
        """A loader of the same texts in `bs` rows (of this process). Raises ValueError for more than they fill."""
        loader = self._of(self._windows.with_rows(bs), bs)
        return loader if self.shard.n == 1 else loader.sharded(self.shard, self.shared_seed)

    @property
    def _windows(self) -> LMDataset:
        return cast(LMDataset, self.dataset)

    def _of(self, dataset: LMDataset, bs: int) -> "LMLoader":
        loader = _loader(dataset, bs, self.device, self.batch_tfms, self.training)
        loader.limit = self.limit
        return loader


def _loader(dataset: LMDataset, bs: int, device: torch.device, batch_tfms: Sequence[Transform],
            training: bool) -> LMLoader:  # fmt: skip
    dl = make_loader(cast(Any, dataset), bs, 0, device)  # a window is only cut out: no worker is faster at that
    return LMLoader(dl, device, batch_tfms, dataset.blocks, training)
