"""Optimizers: `torch.optim`'s, with layer groups and a weight decay policy, fused where torch can."""

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from ..callbacks.hyper import set_hyper

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "batchnorm_params", "create_optimizer",
           "layer_groups", "leave_out", "no_decay_params", "per_group", "trainable_params"]  # fmt: skip

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
NEEDS_A_CLOSURE = (
    "LBFGS computes the loss again and again within a step, through a closure that the training loop does not give it. "
    "Use an optimizer that takes one step per batch, such as AdamW or SGD."
)


def trainable_params(model: nn.Module) -> list[nn.Parameter]:
    """All parameters that require gradients, as one layer group: the default `splitter`."""
    return [p for p in model.parameters() if p.requires_grad]


def layer_groups(splitter: Callable, model: nn.Module) -> list[list[nn.Parameter]]:
    """What `splitter(model)` returns as a list of groups: it may give one list of parameters, or several.

    Raises TypeError where it gives anything but parameters, ValueError where a parameter is in two groups.
    """
    name, found = getattr(splitter, "__name__", splitter), list(splitter(model))
    groups = [found] if all(isinstance(p, nn.Parameter) for p in found) else [_parameters(g, name) for g in found]
    ids = [id(p) for group in groups for p in group]
    if twice := len(ids) - len(set(ids)):
        raise ValueError(f"splitter {name} puts {twice} parameters into two groups.")
    return groups


def leave_out(splitter: Callable, model: nn.Module, groups: Sequence[Sequence[nn.Parameter]]) -> None:
    """Freeze the parameters of no layer group, which no optimizer will step, and warn of those that were to train."""
    grouped = {id(p) for group in groups for p in group}
    left = {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in grouped}
    if not left:
        return
    for p in left.values():
        p.requires_grad_(False)
    warnings.warn(
        f"splitter {getattr(splitter, '__name__', splitter)} leaves {len(left)} parameters out of its layer groups, "
        f"first: {next(iter(left))}. They will not train, and require no gradients from now on. Return them in one of "
        "the groups, or freeze them yourself to say that this is meant: parameter.requires_grad_(False).",
        stacklevel=4,
    )


def _parameters(group: Any, name: Any) -> list[nn.Parameter]:
    params = list(group) if isinstance(group, (list, tuple)) or hasattr(group, "__next__") else [group]
    if wrong := [type(p).__name__ for p in params if not isinstance(p, nn.Parameter)]:
        raise TypeError(
            f"splitter {name} returned {wrong[0]} where a list of parameters was expected: return one list for each "
            "layer group, [list(model.body.parameters()), list(model.head.parameters())]."
        )
    return params


def batchnorm_params(model: nn.Module) -> set[int]:
    """The ids of all BatchNorm parameters."""
    return {id(p) for m in model.modules() if isinstance(m, _BatchNorm) for p in m.parameters(recurse=False)}


def no_decay_params(model: nn.Module) -> set[int]:
    """The ids of biases and of normalisation layers' parameters, which many recipes do not decay."""
    norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
    return norms | {id(p) for name, p in model.named_parameters() if name.split(".")[-1] == "bias"}


def per_group(value: Any, n_groups: int, name: str = "lr") -> list[float]:
    """`value` for each layer group: a number for all, or a list with one each.

    `slice(lo, hi)` is spread evenly in log space; `slice(hi)` is `hi` for the last group and a tenth of it for the
    others. Raises ValueError for a slice where there is one group, a list of another length, and a rate that is
    negative or not finite; TypeError for what is no number.
    """
    if isinstance(value, slice):
        if n_groups == 1:
            raise ValueError(
                f"{name}={value} spreads over layer groups, and this model has one: pass a single number, or give the "
                "Learner a splitter that returns several lists of parameters."
            )
        stop = _rate(value.stop, name)
        if value.start is None:
            return [stop / 10] * (n_groups - 1) + [stop]
        start = _rate(value.start, name)
        if not start * stop > 0:
            raise ValueError(f"{name}={value} is spread evenly in log space: both ends must be above 0.")
        return [start * (stop / start) ** (i / (n_groups - 1)) for i in range(n_groups)]
    if isinstance(value, str) or not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0:
        return [_rate(value, name)] * n_groups
    if len(value) != n_groups:
        raise ValueError(f"{name} has {len(value)} values for {n_groups} layer groups: pass one for each, or a slice.")
    return [_rate(v, name) for v in value]


def _rate(value: Any, name: str) -> float:
    """A learning rate as a float: a number, or a tensor or an array without axes."""
    if not hasattr(value, "__float__"):
        raise TypeError(f"{name} has {value!r} where a learning rate was expected: pass a number, such as 1e-3.")
    if not 0 <= (rate := float(value)) < math.inf:
        raise ValueError(f"{name} has {rate}: a learning rate is a finite number, 0 or more.")
    return rate


def create_optimizer(opt_func: Callable, groups: Sequence[Sequence[nn.Parameter]], lrs: Sequence[float],
                     no_decay: set[int]) -> Optimizer:  # fmt: skip
    """An optimizer over layer groups: `opt_func` is a `torch.optim` class or `(params, lr) -> Optimizer`.

    Each of its parameter groups knows its `layer_group` and whether weight decay applies (`decay`): parameters whose id
    is in `no_decay` get none. Raises TypeError where `opt_func` does not take (params, lr=…), where it gives anything
    but an optimizer, and for one that needs a closure.
    """
    _check_opt_func(opt_func)
    parts = [
        {"params": params, "layer_group": i, "decay": decay}
        for i, group in enumerate(groups)
        for decay in (True, False)
        if (params := [p for p in group if (id(p) not in no_decay) == decay])
    ]
    options = {"fused": True} if _can_be_fused(opt_func, [p for group in groups for p in group]) else {}
    opt = opt_func(parts, lr=lrs[-1], **options)
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt_func(params, lr=…) returned {type(opt).__name__}, not a torch.optim.Optimizer.")
    if isinstance(opt, LBFGS):
        raise TypeError(NEEDS_A_CLOSURE)
    set_hyper(opt, "lr", lrs)
    for part in opt.param_groups:
        if not part["decay"] and "weight_decay" in part:
            part["weight_decay"] = 0.0
    return opt


def _check_opt_func(opt_func: Callable) -> None:
    """Raise TypeError where the training loop cannot work with the optimizers that `opt_func` makes."""
    if _unwrapped(opt_func) is LBFGS:
        raise TypeError(NEEDS_A_CLOSURE)
    try:
        signature = inspect.signature(opt_func)
    except ValueError:  # a builtin does not tell its arguments; calling it will
        return
    try:
        signature.bind([], lr=0.1)
    except TypeError as error:
        name = getattr(opt_func, "__name__", opt_func)
        raise TypeError(
            f"opt_func {name} cannot be called as opt_func(params, lr=…): {error}. Pass a torch.optim class, a partial "
            "of one that sets its options, or a function (params, lr) -> Optimizer."
        ) from error


def _unwrapped(opt_func: Callable) -> Callable:
    """What a partial, of a partial perhaps, calls in the end."""
    while isinstance(opt_func, partial):
        opt_func = opt_func.func
    return opt_func


def _can_be_fused(opt_func: Callable, params: Sequence[nn.Parameter]) -> bool:
    """Whether this class, or partial of one, has a fused implementation that works with parameters like these.

    That is tried out: torch says so only in the first step, and what it can differs by device, dtype and version.
    """
    inner = opt_func
    while isinstance(inner, partial):
        if "fused" in inner.keywords:
            return False  # the user has decided
        inner = inner.func
    if not isinstance(inner, type) or "fused" not in inspect.signature(inner).parameters:
        return False
    try:
        for p in {(p.device, p.dtype): p for p in params}.values():
            probe = nn.Parameter(p.detach().new_zeros(1))  # parted, if they are
            probe.grad = torch.zeros_like(probe)
            opt_func([probe], lr=0.1, fused=True).step()
    except RuntimeError:
        return False
    return True
