"""Batches of any nesting: moved to a device, and parted into what the model gets and what the loss compares with."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["batch_size", "default_device", "join_batch", "split_batch", "to_device"]

TARGET_KEYS = ("labels", "label", "targets", "target", "y")  # of a dict batch, in this order of preference


def default_device() -> torch.device:
    """The accelerator where there is one – of several processes on a machine each has its own – else the CPU."""
    if torch.cuda.is_available():
        local_rank = int(os.environ.get("LOCAL_RANK", -1))  # of a process that torchrun has started
        is_own = 0 <= local_rank < torch.cuda.device_count()
        return torch.device("cuda", local_rank if is_own else torch.cuda.current_device())
    return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")


def to_device(batch: Any, device: torch.device) -> Any:
    """`batch` with every tensor in it on `device`; copies from pinned memory do not wait.

    Tuples (also named ones), lists, mappings and whatever has a method `to` are moved; anything else stays as it is.
    """
    if isinstance(batch, Tensor):
        return batch if batch.device == device else batch.to(device, non_blocking=True)
    if type(batch) is tuple or type(batch) is list:
        return type(batch)([to_device(value, device) for value in batch])
    if hasattr(batch, "to") and not isinstance(batch, type):  # a PackedSequence, a BatchEncoding of transformers, …
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):  # a class derived from one of them
        return type(batch)([to_device(value, device) for value in batch])
    return batch


def split_batch(batch: Any, n_inp: int | None = None) -> tuple[tuple | dict, tuple]:
    """`(inputs, targets)` of a batch.

    A tuple or list: its first `n_inp` values (by default all but the last, at least one) are the inputs. A dict: the
    first key of `labels, label, targets, target, y` that it has holds the target, the rest are keyword arguments of the
    model.
    """
    if isinstance(batch, (list, tuple)):
        cut = max(1, len(batch) - 1) if n_inp is None else n_inp
        return tuple(batch[:cut]), tuple(batch[cut:])
    if isinstance(batch, Mapping):
        target = next((key for key in TARGET_KEYS if key in batch), None)
        inputs = {key: value for key, value in batch.items() if key != target}
        return inputs, () if target is None else (batch[target],)
    return (batch,), ()


def join_batch(xb: tuple | dict, yb: tuple, like: Any) -> Any:
    """The batch that `split_batch` makes `(xb, yb)` of, in the form of `like`: a tensor, a dict, a tuple or a list."""
    if isinstance(like, Mapping):
        target = next((key for key in TARGET_KEYS if key in like), None)
        return {key: yb[0] if key == target else xb[key] for key in like}  # type: ignore[call-overload]
    if not isinstance(like, (list, tuple)):
        return xb[0]
    return [*xb, *yb] if isinstance(like, list) else (*xb, *yb)


def batch_size(batch: Any) -> int:
    """The number of samples: the length of the first tensor found in `batch`, 1 where there is none."""
    tensor = next(_tensors(batch), None)
    return 1 if tensor is None or not tensor.ndim else tensor.shape[0]


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        yield from _tensors(tuple(batch.values()))
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from _tensors(value)
