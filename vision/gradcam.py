"""Grad-CAM: the places of an image that speak for a class (Selvaraju et al. 2017, arXiv:1610.02391).

cam = GradCAM(learn)
cam.show(file)                                   # for what is predicted
cam.show(file, ["ants", "bees"])                 # for each of these
cam(file, "ants")                                # the map, (h, w) from 0 to 1
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..callbacks.hooks import Hook
from .evidence import Evidence, Target, scores_of

__all__ = ["GradCAM"]


class GradCAM(Evidence):
    """Maps of the places that raise an output, seen through the channels of one `layer`.

    Each channel of the layer's map counts by how much the output grows with it, averaged over the map; what is
    negative in their sum is left out, and the rest drawn at the size of the image. `layer` is any module of the model
    that gives a map (bs, c, h, w), by default the last that does, which in a vision model is the body. Earlier layers
    see finer, and less of what it is. For a map of outputs, as in segmentation, the mean of a class's outputs counts.

        GradCAM(learn, learn.model[0][-2])

    Frozen parameters do not matter: only the layer's map needs a gradient. Raises ValueError where no layer gives a map
    of more than one pixel, or the layer given does not, or is not used.
    """

    def __init__(self, learn: Any, layer: nn.Module | None = None):
        super().__init__(learn)
        if layer is not None and all(layer is not module for module in learn.model.modules()):
            raise ValueError(
                f"The layer is not a part of the model: {type(layer).__name__}. Pass a module of learn.model."
            )
        self.layer = layer

    def compute(self, model: nn.Module, xb: tuple, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.layer or last_map(model, xb)
        with _Cut(layer) as cut:
            output = model(*xb)
        if cut.map is None:
            raise ValueError(f"The layer {type(layer).__name__} took no part in what the model returned: pass another.")
        numbers = self.numbers(output, target)
        (slope,) = torch.autograd.grad(scores_of(output, numbers), cut.map)
        weights = slope.mean((2, 3), keepdim=True)
        maps = (weights * cut.map).sum(1, keepdim=True).relu()
        return F.interpolate(maps, xb[0].shape[-2:], mode="bilinear")[:, 0], numbers, output


class _Cut:
    """Inside, the output of `layer` is where the gradients begin; afterwards it is in `map`."""

    def __init__(self, layer: nn.Module):
        self.layer, self.map = layer, None

    def __enter__(self) -> "_Cut":
        self.handle = self.layer.register_forward_hook(self._replace)
        return self

    def __exit__(self, *error: Any) -> None:
        self.handle.remove()

    def _replace(self, module: nn.Module, input: Any, output: Any) -> Tensor:
        if not _is_map(output):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"The layer {type(module).__name__} gives no map (bs, c, h, w), but {shape}: pass another."
            )
        self.map = output.detach().requires_grad_()
        return self.map.clone()  # which what follows may change in place


def last_map(model: nn.Module, xb: tuple) -> nn.Module:
    """The module that is the last to give a map of more than one pixel, the model's own output aside.

    Raises ValueError where there is none.
    """
    found: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, input: Any, output: Any) -> None:
        if _is_map(output) and output.shape[-2:].numel() > 1:
            found.append((module, output.data_ptr()))

    hooks = [Hook(module, note) for module in model.modules()]
    try:
        with torch.no_grad():
            output = model(*xb)
    finally:
        for hook in hooks:
            hook.remove()
    own = output.data_ptr() if isinstance(output, Tensor) else None
    layer = next((module for module, place in reversed(found) if place != own), None)
    if layer is None:
        raise ValueError(
            f"No layer of {type(model).__name__} gives a map (bs, c, h, w) of more than one pixel for images of "
            f"{tuple(xb[0].shape[-2:])} pixels: take larger images, or pass a layer that does."
        )
    return layer


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4
