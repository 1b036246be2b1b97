"""Lookahead gives any optimizer slow weights, which follow the fast ones at a distance.

    learn = Learner(data, model, opt_func=ranger)
    learn = Learner(data, model, opt_func=lambda params, lr: Lookahead(SGD(params, lr, momentum=0.9), k=5))

`ranger` is RAdam with such weights.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer, RAdam

__all__ = ["Lookahead", "ranger"]


class Lookahead(Optimizer):
    """`opt`, whose weights every `k` steps go back to `alpha` of their way: "k steps forward, one step back".

    Zhang et al. 2019, arXiv:1907.08610: slow weights start where the fast ones do; after every `k` steps of `opt` they
    move by `alpha` of the difference towards the fast weights, which go on from there. The steps are counted for each
    parameter: one without a gradient stands still, and one that is thawed later begins its own `k` steps.

    Parameter groups and state are those of `opt`, with `slow` and `fast_steps` added to each parameter's state: so
    schedules, `state_dict` and `load_state_dict` reach both at once. It is an optimizer of its own rather than hooks on
    `opt`, which copying and pickling lose. Raises TypeError where `opt` is no optimizer, needs a closure, or has slow
    weights already; ValueError for `k` below 1 and for `alpha` outside 0…1.
    """

    def __init__(self, opt: Optimizer, k: int = 6, alpha: float = 0.5):
        if not isinstance(opt, Optimizer) or isinstance(opt, (Lookahead, LBFGS)):
            raise TypeError(
                f"Lookahead got {type(opt).__name__}: it takes an optimizer whose steps need no closure and that has "
                "no slow weights yet, Lookahead(SGD(params, lr=0.1))."
            )
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k={k}: the number of steps between two of the slow weights is a whole number from 1 on.")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha}: the share of the way that slow weights go is between 0 and 1.")
        self.opt, self.k, self.alpha = opt, k, alpha
        super().__init__(opt.param_groups, opt.defaults)
        self.param_groups, self.state = opt.param_groups, opt.state

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"opt": self.opt, "k": self.k, "alpha": self.alpha}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.opt.__setstate__({"state": self.state, "param_groups": self.param_groups})

    def __repr__(self) -> str:
        return f"Lookahead({self.opt!r}, k={self.k}, alpha={self.alpha})"

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """A step of `opt`, and where it is the `k`-th, one of the slow weights. Returns what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        start = {p: p.clone() for p in moving if "slow" not in self.state[p]}
        self.opt.step()
        for p, slow in start.items():  # only now, since optimizers make their own state where they find none at all
            self.state[p].update(slow=slow, fast_steps=0)
        for p in moving:
            self._count(p, self.state[p])
        return loss

    def _count(self, p: Tensor, state: dict[str, Any]) -> None:
        """Count a step of the fast weights `p`; after `k` of them both go on from where the slow ones then are."""
        state["fast_steps"] = (state["fast_steps"] + 1) % self.k
        if state["fast_steps"] == 0:
            p.copy_(state["slow"].lerp_(p, self.alpha))


def ranger(params: Iterable, lr: float = 1e-3, betas: tuple[float, float] = (0.95, 0.999), eps: float = 1e-6,
           weight_decay: float = 0.01, k: int = 6, alpha: float = 0.5) -> Lookahead:  # fmt: skip
    """RAdam with decoupled weight decay and `Lookahead`; goes well with `fit_flat_cos`.

    Wright 2019; RAdam is Liu et al. 2019, arXiv:1908.03265, the decay Loshchilov & Hutter 2017, arXiv:1711.05101.
    """
    fast = RAdam(params, lr, betas, eps, weight_decay, decoupled_weight_decay=True)
    return Lookahead(fast, k, alpha)
