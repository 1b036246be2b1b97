"""Batch transforms on the CPU, some items at a time, so that memory is used again instead of asked for anew.

What each step of a pipeline makes of a batch of photos is tens of megabytes, and fresh pages of memory cost more than
the arithmetic that fills them. Steps that are `by_item` may see the batch in pieces: only what the last of them gives
is kept whole. The result is the same, to the bit.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from .randomness import Randomness
from .transforms import Transform, apply_transforms

__all__ = ["apply_to_batch"]

ITEMS = 8  # of a piece: what steps make of so many photos stays in the processor's cache


def apply_to_batch(tfms: Sequence[Transform], batch: tuple, rand: Randomness | None) -> tuple:
    """Run a batch through `tfms` in order, each with its own stream of random numbers."""
    if not _can_be_parted(batch):
        return apply_transforms(tfms, batch, rand)
    done = 0
    for by_item, group in groupby(tfms, key=lambda tfm: tfm.by_item):
        steps = list(group)
        apply = _apply_in_pieces if by_item and len(steps) > 1 else apply_transforms
        batch, done = apply(steps, batch, rand, done), done + len(steps)
    return batch


def _can_be_parted(batch: tuple) -> bool:
    """Whether it is tensors of as many items each, on the CPU: accelerators want much work at a time."""
    are_tensors = all(isinstance(value, Tensor) and value.ndim and value.device.type == "cpu" for value in batch)
    return are_tensors and len({len(value) for value in batch}) == 1


def _apply_in_pieces(tfms: Sequence[Transform], batch: tuple, rand: Randomness | None, first_stream: int) -> tuple:
    n, step = len(batch[0]), max(ITEMS, torch.get_num_threads())
    whole: list[Tensor] = []
    for begin in range(0, n, step):
        part = slice(begin, begin + step)
        piece = tuple(_like(value.as_subclass(Tensor)[part], value) for value in batch)
        piece = apply_transforms(tfms, piece, rand.of(part) if rand else None, first_stream)
        whole = whole or [_like(_empty(n, value.as_subclass(Tensor)), value) for value in piece]
        for all_items, value in zip(whole, piece, strict=True):
            all_items.as_subclass(Tensor)[part] = value.as_subclass(Tensor)
    return tuple(whole)


def _empty(n: int, value: Tensor) -> Tensor:
    """Memory for `n` items as those in `value`: numpy's, for which it asks the system to give few, large pages."""
    n_bytes = n * value[0].numel() * value.element_size()
    memory = torch.from_numpy(np.empty(n_bytes, np.uint8)).untyped_storage()
    return value.new_empty(0).set_(memory).view(n, *value.shape[1:])


def _like(value: Tensor, other: Tensor) -> Tensor:
    """`value` as the kind of tensor that `other` is, with what that knows of itself, such as the size of its canvas."""
    result = value.as_subclass(type(other))
    vars(result).update(vars(other))
    return result
