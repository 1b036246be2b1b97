"""Optimizers for batches of thousands, in which every layer moves by a share of its own size: LARS and LAMB.

    learn = Learner(data, model, opt_func=Lamb)
    learn = Learner(data, model, opt_func=partial(Lars, momentum=0.95), lr=5.0)

A layer is one parameter tensor. Its step is multiplied by its trust ratio, the norm of the weights over the norm of the
update, so that one learning rate suits layers whose gradients differ by orders of magnitude. Where one of the two norms
is 0, as that of new biases is, the ratio is 1. Nothing here waits for the device.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Lamb", "Lars"]


class _LayerWise(Optimizer):
    """What both share: all parameters of a group that have a gradient take their step at once."""

    @abstractmethod
    def update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """Change `params`, which are of one device and dtype, with the hyper-parameters of `group`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Change all parameters that have a gradient. Returns what `closure` gives, which is called first.

        Raises RuntimeError for a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in _alike(p for p in group["params"] if p.grad is not None):
                self.update(params, [self._dense(p) for p in params], group)
        return loss

    def _dense(self, p: Tensor) -> Tensor:
        """The gradient of a parameter that has one."""
        if p.grad is None or p.grad.layout != torch.strided:
            raise RuntimeError(
                f"{type(self).__name__} measures whole layers, and a parameter of shape {tuple(p.shape)} has a sparse "
                "gradient: make its embedding with sparse=False, or train it with SparseAdam."
            )
        return p.grad


class Lamb(_LayerWise):
    """Adam whose step is made as long as the layer's weights, times `lr` (You et al. 2019, arXiv:1904.00962).

    Algorithm 2 with φ the identity: `r = m / (√v + eps) + weight_decay · w` with bias-corrected moments m and v of the
    gradient, then `w -= lr · ‖w‖ / ‖r‖ · r`. Raises ValueError for a hyper-parameter out of its range.
    """

    def __init__(self, params: Iterable, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-6, weight_decay: float = 0.0):  # fmt: skip
        _check_at_least_0(lr=lr, eps=eps, weight_decay=weight_decay)
        _check_shares(beta1=betas[0], beta2=betas[1])
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        states = [self._stepped(p) for p in params]
        means, squares = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        sizes = torch._foreach_div(squares, [1 - beta2 ** s["step"] for s in states])
        torch._foreach_sqrt_(sizes)
        torch._foreach_add_(sizes, group["eps"])
        updates = torch._foreach_div(means, [1 - beta1 ** s["step"] for s in states])
        torch._foreach_div_(updates, sizes)
        torch._foreach_add_(updates, params, alpha=group["weight_decay"])
        torch._foreach_mul_(updates, _trust_ratios(_norms(params), _norms(updates)))
        torch._foreach_add_(params, updates, alpha=-group["lr"])

    def _stepped(self, p: Tensor) -> dict[str, Any]:
        """The state of a parameter, which counts the steps that it has taken, the coming one included."""
        state = self.state[p]
        if "exp_avg" not in state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        return state


class Lars(_LayerWise):
    """SGD with momentum, at a rate for each layer that follows from its weights and gradient.

    You et al. 2017, arXiv:1708.03888, algorithm 1: `rate = lr · trust_coefficient · ‖w‖ / (‖g‖ + weight_decay · ‖w‖)`
    with the gradient g, then `v = momentum · v + rate · (g + weight_decay · w)` and `w -= v`. So `lr` is far larger
    than that of SGD, 1 to 30. Raises ValueError for a hyper-parameter out of its range.
    """

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.9, weight_decay: float = 0.0,
                 trust_coefficient: float = 1e-3):  # fmt: skip
        _check_at_least_0(lr=lr, weight_decay=weight_decay)
        _check_shares(momentum=momentum)
        if not trust_coefficient > 0:
            raise ValueError(f"trust_coefficient={trust_coefficient}: it must be above 0, or no layer would move.")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay,
                                  "trust_coefficient": trust_coefficient})  # fmt: skip

    def update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        decay, weights = group["weight_decay"], _norms(params)
        ratios = _trust_ratios(group["trust_coefficient"] * weights, _norms(grads) + decay * weights)
        updates = torch._foreach_add(grads, params, alpha=decay)
        torch._foreach_mul_(updates, ratios)
        velocities = [self._velocity(p) for p in params]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, updates, alpha=group["lr"])
        torch._foreach_sub_(params, velocities)

    def _velocity(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]


def _alike(params: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """The parameters of each device and dtype, which can be computed with together."""
    found: dict[tuple, list[Tensor]] = {}
    for p in params:
        found.setdefault((p.device, p.dtype), []).append(p)
    return found.values()


def _norms(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors))


def _trust_ratios(weights: Tensor, updates: Tensor) -> tuple[Tensor, ...]:
    """One norm over the other for each layer; 1 where one of them is 0."""
    return torch.where((weights > 0) & (updates > 0), weights / updates, 1.0).unbind()


def _check_at_least_0(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name}={value}: it must be 0 or more.")


def _check_shares(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value}: it is the share of the past that is kept, from 0 to below 1.")
