"""One model trained by several processes, each on its share of every batch."""

from collections.abc import Callable
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .core import Callback
from .gradients import GradientAccumulation

__all__ = ["DistributedTraining"]


class DistributedTraining(Callback):
    """Averages gradients over the processes, by torch's `DistributedDataParallel` (Li et al. 2020, arXiv:2006.15704).

    `learn.to_distributed()` adds it. Each loss counts by its process's share of the samples, so a step follows the mean
    over all of them also where they could not be parted evenly; and `learn.loss` is that mean, the same on all ranks,
    for whoever records it or decides by it. While gradients accumulate, the processes do not wait for each other.

    Within a fit each rank has random numbers of its own, so that dropout does not leave out the same on all of them.
    `find_unused_parameters` is for models of which a step may not use some parameter, see torch. BatchNorm's statistics
    are those of rank 0's batches.
    """

    order = -45  # a step is known to come, and the scaler has not looked at the gradients
    orders = MappingProxyType({"before_validate": 75})  # when averages are in the model

    def __init__(self, find_unused_parameters: bool = False):
        self.find_unused_parameters = find_unused_parameters
        self.ddp: DistributedDataParallel | None = None
        self.trained: list[Tensor] = []  # the parameters that it averages gradients of
        self.synced = True  # whether the last backward pass has averaged them
        self.share = 1.0  # of this process in the batch, times their number

    def before_fit(self, learn: Any) -> None:
        learn.run_through = lambda forward: self._forward(learn, forward)
        learn.ranks.part_random_numbers(learn.data.device)

    def before_train(self, learn: Any) -> None:
        trained = [p for p in learn.model.parameters() if p.requires_grad]
        if self.ddp is None or [id(p) for p in trained] != [id(p) for p in self.trained]:
            self.trained = trained
            self.ddp = DistributedDataParallel(
                _Inside(learn.model),
                process_group=learn.ranks.group,
                find_unused_parameters=self.find_unused_parameters,
            )

    def before_batch(self, learn: Any) -> None:
        if learn.training:
            own = 0 if learn.dl.spare else learn.bs
            known = learn.dl.n_in_round if learn.automatic and learn.data.device.type == "cpu" else None
            total = int(learn.ranks.total(own)) if known is None else known  # with no loss to come, wishes go with it
            learn.bs_elsewhere, self.share = total - learn.bs, own * learn.ranks.n / total

    def _forward(self, learn: Any, forward: Callable[[], Any]) -> Any:
        accumulating = [cb for cb in learn.cbs if isinstance(cb, GradientAccumulation)]
        self.synced = learn.automatic and all(cb.will_step(learn) for cb in accumulating)
        assert self.ddp is not None
        with nullcontext() if self.synced else self.ddp.no_sync():
            return self.ddp(forward)

    def after_loss(self, learn: Any) -> None:
        if learn.training:
            learn.own_loss = learn.loss.detach()
            part = learn.own_loss * (self.share / learn.ranks.n)
            if part.device.type == "cpu":  # nobody waits for it: what hosts tell each other will do
                mean = torch.full_like(part, learn.ranks.total(part.item()))
            else:
                mean = learn.ranks.sum_tensor(part)
            learn.loss = _WithValue.apply(learn.loss, mean)

    def before_backward(self, learn: Any) -> None:
        if self.share != 1:
            learn.loss = learn.loss * self.share

    def before_step(self, learn: Any) -> None:
        if self.synced:
            return
        params = [p for group in learn.opt.param_groups for p in group["params"]]
        if self.find_unused_parameters:  # a gradient of this rank's may be None where another rank has one
            used = torch.tensor([p.grad is not None for p in params], dtype=torch.uint8, device=params[0].device)
            for p, n in zip(params, learn.ranks.sum_tensor(used).tolist(), strict=True):
                p.grad = torch.zeros_like(p) if n and p.grad is None else p.grad
        learn.ranks.average(p.grad for p in params if p.grad is not None)

    def after_batch(self, learn: Any) -> None:
        if learn.training:
            learn.bs_elsewhere, learn.own_loss = 0, None

    after_cancel_batch = after_batch

    def before_validate(self, learn: Any) -> None:
        if learn.fitting:
            learn.ranks.copy_first(learn.model.buffers())

    def after_fit(self, learn: Any) -> None:
        learn.ranks.copy_first(learn.model.buffers())
        self.after_cancel_fit(learn)

    def after_cancel_fit(self, learn: Any) -> None:
        learn.run_through, learn.bs_elsewhere = None, 0
        learn.ranks.join_random_numbers(learn.data.device)
        self.ddp, self.trained = None, []


class _Inside(nn.Module):
    """Runs any function as its forward pass: so DDP is around whatever the learner does for one."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, run: Callable[[], Any]) -> Any:
        return run()


class _WithValue(torch.autograd.Function):
    """A loss with another value, and its own gradient."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
