"""Tensors as losses and metrics want them: precision, shape and device, without waiting for the accelerator."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["Weights", "as_list", "as_values", "classes_second", "double_precision", "full_precision", "rows",
           "weights_like"]  # fmt: skip

Weights = float | Sequence[float] | Tensor | None


def full_precision(x: Tensor) -> Tensor:
    """`x` as float32 at least: sums and exponentials overflow or lose their digits in half precision."""
    return x if x.dtype == torch.float64 else x.float()


def double_precision(x: Tensor) -> Tensor:
    """`x` as float64, or as float32 on Apple's GPUs, which have nothing wider."""
    return x.float() if x.device.type == "mps" else x.double()


def as_values(pred: Tensor, targ: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the shape of the targets and the dtype of the predictions; so nothing is broadcast by accident."""
    pred = full_precision(pred)
    return pred.reshape(targ.shape), targ.to(pred.dtype)


def classes_second(x: Tensor, axis: int) -> Tensor:
    """`x` with its classes on axis 1, where PyTorch wants them, without a copy if they are there or last already."""
    if x.ndim == 2 and axis in (-1, 1):  # the usual case, which costs no view
        return x
    if axis % x.ndim == x.ndim - 1:
        return x.reshape(-1, x.shape[-1])
    return x.movedim(axis, 1)


def rows(x: Tensor, axis: int) -> Tensor:
    """`x` as `(n, c)`, a row for each position and what is on `axis` last; `(n, 1)` if `x` is flat."""
    return x.unsqueeze(-1) if x.ndim == 1 else x.movedim(axis, -1).flatten(0, -2)


def as_list(weights: Weights) -> list[float] | None:
    """Weights as plain numbers, so that a loss prints, compares and travels as JSON."""
    if weights is None or isinstance(weights, list):
        return weights
    return torch.as_tensor(weights, dtype=torch.float64).flatten().tolist()


def weights_like(x: Tensor, weights: Weights) -> Tensor | None:
    """Weights made by `as_list` as a tensor of the device and dtype of `x`."""
    return None if weights is None else _weights_on(tuple(weights), x.device, x.dtype)  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _weights_on(weights: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Made once per device, since copying from the host makes every step wait."""
    with torch.inference_mode(False):  # validation may come first, and backward could not use a tensor made there
        return torch.tensor(weights, device=device, dtype=dtype)
