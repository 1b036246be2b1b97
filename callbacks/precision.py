"""Half precision, and the memory layout that goes with it."""

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .core import Callback, CancelStep
from .nested import map_tensors

__all__ = ["ChannelsLast", "MixedPrecision"]


class MixedPrecision(Callback):
    """Compute in half precision where that is safe, with weights in float32.

    `dtype` is `torch.float16` or `torch.bfloat16`. Forward pass and loss run under `torch.autocast`; predictions come
    out in float32. For float16 the loss is scaled so that small gradients survive (Micikevicius et al. 2018,
    arXiv:1710.03740). They are unscaled before anybody looks at them in `before_step`, and a step whose gradients
    overflowed is not taken, so nothing that counts steps counts it. To know that, each step waits for the device;
    bfloat16 needs neither scale nor wait.

    A CPU without bfloat16 instructions emulates them and is about ten times slower than in float32: it warns once.
    """

    order = -40

    def __init__(self, dtype: torch.dtype = torch.float16):
        if dtype not in (torch.float16, torch.bfloat16):
            raise ValueError(f"dtype={dtype}: mixed precision is torch.float16 or torch.bfloat16.")
        self.dtype = dtype
        self.scaler: torch.amp.GradScaler | None = None
        self.scale = 0.0
        self.resumed: dict[str, Any] | None = None  # a scaler's state

    def __repr__(self) -> str:
        return f"MixedPrecision({self.dtype})"

    def before_fit(self, learn: Any) -> None:
        device = learn.data.device.type
        if device == "cpu":
            _warn_where_emulated(self.dtype)
        if self.dtype == torch.float16:
            self.scaler = self.scaler or torch.amp.GradScaler(device)
            self._resume()

    def state_dict(self) -> dict[str, Any]:
        return {"scaler": self.scaler.state_dict() if self.scaler else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.resumed = state["scaler"]
        if self.scaler:  # otherwise there is one from before_fit on
            self._resume()

    def _resume(self) -> None:
        """Let the scaler go on from what has been loaded, if anything has."""
        assert self.scaler is not None
        if self.resumed:
            self.scaler.load_state_dict(self.resumed)
        self.resumed, self.scale = None, self.scaler.get_scale()

    def before_batch(self, learn: Any) -> None:
        learn.precision = partial(torch.autocast, learn.data.device.type, self.dtype)

    def after_pred(self, learn: Any) -> None:
        learn.pred = map_tensors(_to_float, learn.pred)

    def before_backward(self, learn: Any) -> None:
        if self.scaler:
            learn.loss = self.scaler.scale(learn.loss)

    def before_step(self, learn: Any) -> None:
        if self.scaler is None:
            return
        self.scaler.unscale_(learn.opt)
        self.scaler.update()
        before, self.scale = self.scale, self.scaler.get_scale()
        if self.scale < before:  # some gradient was not finite
            learn.zero_grad()
            raise CancelStep

    def after_batch(self, learn: Any) -> None:
        learn.precision = nullcontext

    after_cancel_batch = after_batch


def _warn_where_emulated(dtype: torch.dtype) -> None:
    """Warn where this CPU says that it has no instructions for `dtype`."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.11 cannot tell
    name = "bf16" if dtype == torch.bfloat16 else "fp16"
    if capabilities and not any(has for key, has in capabilities.items() if key.endswith(name)):
        warnings.warn(
            f"This CPU has no {dtype} instructions and emulates them, about ten times slower than float32: "
            "mixed precision is for accelerators, and here only for trying it out.",
            stacklevel=2,
        )


def _to_float(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class ChannelsLast(Callback):
    """Keep images and convolution weights with the channels innermost, as fast convolutions want them.

    Batches and weights of four axes change their layout in memory, nothing changes in value or shape.
    """

    def before_fit(self, learn: Any) -> None:
        learn.model.to(memory_format=torch.channels_last)

    def before_batch(self, learn: Any) -> None:
        if isinstance(learn.xb, tuple):
            learn.xb = tuple(_channels_last(x) for x in learn.xb)


def _channels_last(x: Any) -> Any:
    is_image = isinstance(x, Tensor) and x.ndim == 4
    return x.contiguous(memory_format=torch.channels_last) if is_image else x
