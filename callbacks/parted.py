"""Tensors of which each process has a part, torch's DTensors, as FSDP makes them of parameters and gradients.

What is computed number by number is computed with the `own_parts`; the rest by all processes together.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

__all__ = ["is_parted", "like", "own_class", "own_parts", "put_together"]


def is_parted(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")


def own_parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process has of each tensor, in the same memory."""
    return [tensor.to_local() if is_parted(tensor) else tensor for tensor in tensors]  # type: ignore[attr-defined]


def put_together(tensor: Tensor) -> Tensor:
    """A tensor put together; all processes have to call it."""
    return tensor.full_tensor() if is_parted(tensor) else tensor  # type: ignore[attr-defined]


def like(value: Any, own: Any) -> Any:
    """A whole tensor parted as `own` is, if that is; all processes have to call it, with the same value."""
    if not is_parted(own) or is_parted(value):
        return value
    from torch.distributed.tensor import distribute_tensor  # from torch 2.5 on

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module had before FSDP put one of its own in front."""
    cls = type(module)
    is_parted = any(base.__name__ == "FSDPModule" for base in cls.__bases__)
    return cls.__bases__[-1] if is_parted else cls
