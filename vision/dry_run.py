"""What comes out of a network, found by sending one black image through it."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..callbacks.evaluating import evaluating

__all__ = ["dry_run"]


def dry_run(model: nn.Module, n_in: int = 3, size: int | None = None, forward: Callable | None = None) -> Tensor:
    """The output of `model`, or of its method `forward`, for one black image of `n_in` channels and `size` pixels.

    Without `size` the first that the network accepts of 64, 224 and what it says itself. Nothing in `model` changes.
    Raises ValueError where it accepts none.
    """
    weight = next(model.parameters(), torch.zeros(()))
    sizes = [size] if size else [64, 224, *_stated_sizes(model)]
    reason: Exception | None = None
    with evaluating(model), torch.no_grad():
        for size in sizes:
            try:
                return (forward or model)(weight.new_zeros(1, n_in, size, size))
            except (AssertionError, RuntimeError, TypeError, ValueError, IndexError) as error:
                reason = error
    raise ValueError(
        f"{type(model).__name__} accepts no batch of {n_in} channels and {' or '.join(map(str, sizes))} pixels; "
        f"the last attempt failed with {type(reason).__name__}: {reason}"
    ) from reason


def _stated_sizes(model: nn.Module) -> Iterator[int]:
    """Image sizes that networks of fixed size name: timm's in `default_cfg`, torchvision's in `image_size`."""
    for module in model.modules():
        if isinstance(config := getattr(module, "default_cfg", None), dict) and "input_size" in config:
            yield config["input_size"][-1]
        elif isinstance(image_size := getattr(module, "image_size", None), int):
            yield image_size
