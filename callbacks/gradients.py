"""What happens to gradients before a step: accumulated over batches, clipped, taken at a worse place."""

from typing import Any

import torch
from torch import Tensor, nn

from .batchnorm import kept_statistics
from .core import Callback, CancelStep
from .parted import put_together

__all__ = ["SAM", "GradientAccumulation", "GradientClip"]


class GradientAccumulation(Callback):
    """Step once `n_acc` samples have been seen, as if they had been one batch.

    Each loss counts by its batch's share of `n_acc`. Groups that come out larger (uneven batches) or smaller (the last
    of an epoch, which gets its step when training ends) are averaged over the samples they have, so every step follows
    the mean over its samples. That is exact for losses that are means over samples; BatchNorm still sees each batch.
    """

    order = -50  # before gradients are unscaled and looked at

    def __init__(self, n_acc: int = 32):
        if n_acc < 1:
            raise ValueError(f"n_acc={n_acc}: it is the number of samples in a step, at least 1.")
        self.n_acc, self.needed, self.count = n_acc, n_acc, 0

    def before_fit(self, learn: Any) -> None:
        _check_automatic(self, learn)
        if others := [cb for cb in learn.cbs if isinstance(cb, GradientAccumulation) and cb is not self]:
            raise ValueError(
                f"Two GradientAccumulation callbacks, of {others[0].n_acc} and of {self.n_acc} samples, would both "
                "decide when this fit steps: choose one. learn.cbs are those of the learner, cbs= those of this fit."
            )

    def before_train(self, learn: Any) -> None:
        if self.count:  # of an epoch that was left early
            learn.zero_grad()
        self.needed, self.count = self.n_acc, 0

    def will_step(self, learn: Any) -> bool:
        """Whether the batch completes a group, so that a step follows it."""
        return self.count + learn.n_samples >= self.needed

    def before_backward(self, learn: Any) -> None:
        self.count += learn.n_samples
        learn.loss = learn.loss * (learn.n_samples / self.n_acc)

    def before_step(self, learn: Any) -> None:
        if self.count < self.needed:
            raise CancelStep
        if self.count != self.n_acc:
            torch._foreach_mul_(_gradients(learn), self.n_acc / self.count)
        self.count = 0

    def after_train(self, learn: Any) -> None:
        self.needed = 0
        if self.count and learn.run_step():
            learn.zero_grad()


def _gradients(learn: Any) -> list[Tensor]:
    return [p.grad for group in learn.opt.param_groups for p in group["params"] if p.grad is not None]


def _check_automatic(cb: Callback, learn: Any) -> None:
    if not learn.automatic:
        raise ValueError(
            f"{type(learn.model).__name__} steps its optimizers by itself (automatic_optimization = False), so "
            f"{cb!r} has no step to change: do it in its training_step."
        )


class GradientClip(Callback):
    """Scale gradients so that their global norm is at most `max_norm` (Pascanu et al. 2013, arXiv:1211.5063).

    With `max_value` each number of them is cut to ±`max_value`, before the norm is taken; `max_norm=None` leaves it at
    that. `norm` is the norm found in the last step, on the device. Raises ValueError for a bound that is not above 0.
    """

    order = 20
    state_names = ("norm",)

    def __init__(self, max_norm: float | None = 1.0, max_value: float | None = None, norm_type: float = 2.0):
        for name, bound in {"max_norm": max_norm, "max_value": max_value}.items():
            if bound is not None and not bound > 0:
                raise ValueError(f"{name}={bound}: gradients are cut to a bound above 0, or with None not at all.")
        self.max_norm, self.max_value, self.norm_type = max_norm, max_value, norm_type
        self.norm: Tensor | None = None

    def before_step(self, learn: Any) -> None:
        params = [p for group in learn.opt.param_groups for p in group["params"]]
        if self.max_value is not None:
            nn.utils.clip_grad_value_(params, self.max_value)
        if self.max_norm is not None:
            self.norm = put_together(nn.utils.clip_grad_norm_(params, self.max_norm, self.norm_type))


class SAM(Callback):
    """Step by the gradients at the worst place within `rho`, for flat minima (Foret et al. 2021, arXiv:2010.01412).

    Twice the work: each batch's gradient g leads up to w + rho·g/‖g‖, where the gradient for the step is taken. With
    `GradientAccumulation` each batch climbs by itself, as does each process's part of one. BatchNorm's statistics are
    those of the first pass alone. In float16 gradients too small for it are lost to the way up, which goes by unscaled
    ones: take bfloat16.
    """

    order = -60  # before the loss is scaled, which the second one will be instead

    def __init__(self, rho: float = 0.05):
        if rho < 0:
            raise ValueError(f"rho={rho}: it is a distance, 0 or more.")
        self.rho = rho
        self.params: list[Tensor] = []  # those that have left their place
        self.places: list[Tensor] = []

    def before_fit(self, learn: Any) -> None:
        _check_automatic(self, learn)

    def before_backward(self, learn: Any) -> None:
        params = [p for group in learn.opt.param_groups for p in group["params"] if p.requires_grad]
        found = zip(params, torch.autograd.grad(learn.loss, params, allow_unused=True), strict=True)
        self.params, gradients = map(list, zip(*((p, g) for p, g in found if g is not None), strict=True))
        self.places = [p.detach().clone() for p in self.params]
        with torch.no_grad():
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            torch._foreach_mul_(gradients, self.rho / (norm + 1e-12))
            torch._foreach_add_(self.params, gradients)
        with learn.precision(), kept_statistics(learn.model):
            learn.pred = learn.forward()
            learn.loss = learn.compute_loss()

    def after_backward(self, learn: Any) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.params, self.places)
        self.params, self.places = [], []

    def after_cancel_backward(self, learn: Any) -> None:
        if self.params:
            self.after_backward(learn)
