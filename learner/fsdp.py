"""Models too large for one device: parameters, gradients and optimizer parted over the processes, by torch's FSDP2."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..callbacks.checkpointing import blocks
from ..callbacks.distributed import DistributedTraining
from .ranks import Ranks

__all__ = ["ShardedTraining", "shard_model"]

STEPS = ("training_step", "validation_step")  # of a system, by which it is called in place of `forward`


class ShardedTraining(DistributedTraining):
    """Each process trains its part of the parameters (Zhao et al. 2023, "PyTorch FSDP", arXiv:2304.11277).

    `learn.to_fsdp()` adds it. A layer's parameters are put together for as long as it computes; their gradients are
    averaged over the processes after each backward pass, also while they accumulate.
    """

    def before_train(self, learn: Any) -> None:
        """Nothing is to be wrapped: the model does it by itself."""

    def _forward(self, learn: Any, forward: Callable[[], Any]) -> Any:
        return forward()


def shard_model(model: nn.Module, modules: Iterable[nn.Module] | None, ranks: Ranks, device: torch.device) -> None:
    """Part the parameters of `model` over the processes, beginning with those of rank 0; `modules` one by one."""
    from torch.distributed.device_mesh import DeviceMesh  # from torch 2.6 on
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    ranks.copy_first([t.detach() for t in (*model.parameters(), *model.buffers())])
    mesh = DeviceMesh.from_group(ranks.group, device.type)
    for module in blocks(model) if modules is None else modules:
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in STEPS:
        if callable(getattr(model, name, None)):
            register_fsdp_forward_method(model, name)
