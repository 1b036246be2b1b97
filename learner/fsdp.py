"""Models too large for one device: parameters, gradients and optimizer parted over the processes, by torch's FSDP2."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..callbacks.checkpointing import blocks
from ..callbacks.distributed import DistributedTraining
from ..callbacks.gradients import SAM
from .ranks import Ranks

__all__ = ["ShardedTraining", "shard_model"]

STEPS = ("training_step", "validation_step")  # of a system, by which it is called in place of `forward`


class ShardedTraining(DistributedTraining):
    """Each process trains its part of the parameters (Zhao et al. 2023, "PyTorch FSDP", arXiv:2304.11277).

    `learn.to_fsdp()` adds it. A block's parameters are put together for as long as it computes, those outside of blocks
    from the forward to the backward pass; gradients are averaged over the processes after each backward pass, also
    while they accumulate. `SAM` is refused.
    """

    def before_fit(self, learn: Any) -> None:
        for cb in learn.cbs:
            if isinstance(cb, SAM):
                raise ValueError(
                    f"{cb!r} asks for gradients that parted parameters never have: train with to_distributed()."
                )
        super().before_fit(learn)

    def before_train(self, learn: Any) -> None:
        """Nothing is to be wrapped: the model does it by itself."""

    def _forward(self, learn: Any, forward: Callable[[], Any]) -> Any:
        return forward()

    # What a forward pass has put together outside of blocks is parted again in the backward pass, if there is one.

    def before_batch(self, learn: Any) -> None:
        learn.model.reshard()
        super().before_batch(learn)

    def after_batch(self, learn: Any) -> None:
        super().after_batch(learn)
        learn.model.reshard()

    after_cancel_batch = after_batch

    def after_validate(self, learn: Any) -> None:
        learn.model.reshard()  # after spare batches, of which nobody is told

    after_cancel_validate = after_validate


def shard_model(model: nn.Module, modules: Iterable[nn.Module] | None, ranks: Ranks, device: torch.device) -> None:
    """Part the parameters of `model` over the processes; those of each of `modules` are put together at one time.

    Raises ValueError where `modules` are not all of the model, or have parameters in common with the rest of it.
    """
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = DeviceMesh.from_group(ranks.group, device.type)
    model.to(memory_format=torch.contiguous_format)  # it parts no other
    for module in _innermost_first(model, _one_by_one(model) if modules is None else _checked(model, modules)):
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    steps = [name for name in STEPS if callable(getattr(model, name, None))]
    for name in steps:
        register_fsdp_forward_method(model, name)
    if not steps:  # which may go on computing when the forward pass is over
        model.register_forward_hook(_part_again)


def _part_again(model: Any, *_: Any) -> None:
    if not torch.is_grad_enabled():
        model.reshard()


def _one_by_one(model: nn.Module) -> set[nn.Module]:
    """The model's blocks, but for those that share parameters, which stay with the rest."""
    return {block for block in blocks(model) if not _shares(block, model)}


def _checked(model: nn.Module, modules: Iterable[nn.Module]) -> set[nn.Module]:
    chosen = set(modules)
    for module in chosen:
        if module not in set(model.modules()):
            raise ValueError(f"{type(module).__name__} to be parted by itself is no part of this learner's model.")
        if _shares(module, model):
            raise ValueError(
                f"{type(module).__name__} cannot be parted by itself: it has a parameter in common with the rest of "
                "the model, from which that would be cut. Choose a module that holds both, or none of the two."
            )
    return chosen


def _shares(module: nn.Module, model: nn.Module) -> bool:
    """Whether a parameter of `module` is also one of a module outside."""
    inside, own = set(module.modules()), {id(p) for p in module.parameters()}
    outside = (other for other in model.modules() if other not in inside)
    return any(id(p) in own for other in outside for p in other.parameters(recurse=False))


def _innermost_first(model: nn.Module, modules: set[nn.Module]) -> list[nn.Module]:
    """Those but the model itself, in the order in which they can be parted."""
    return [module for module in reversed(list(model.modules())) if module in modules and module is not model]
