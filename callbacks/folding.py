"""Frozen BatchNorm computed by the convolution before it, which saves memory and passes over it.

A layer that normalises by stored statistics multiplies and adds the same to every pixel of a channel. So may the
weights of the convolution: the result is the same, and so are all gradients, but the convolution's own output need not
be kept for the backward pass. Weights of both layers stay parameters of their own.

>>> fold = folded(conv_bn_pairs(model))      # until fold.close()
"""

from collections.abc import Iterable
from contextlib import ExitStack
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["conv_bn_pairs", "folded"]

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]


def conv_bn_pairs(model: nn.Module) -> list[Pair]:
    """Each convolution of `model` with the BatchNorm that alone takes its output; none where torch.fx cannot trace it.

    Layers that are called twice or have hooks are left as they are, and all of a model whose inner modules have hooks.
    """
    if any(_is_watched(m) for m in model.modules() if any(m.children())):
        return []  # hooks of what is looked into would be called, as those of FSDP, with values that are none
    try:
        graph = _Tracer().trace(model)
    except Exception:  # whatever a model's own code does with values that are none
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    pairs = []
    for node in calls:
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and source.op == "call_module" and len(source.users) == 1:
            pair = model.get_submodule(str(source.target)), model.get_submodule(str(node.target))
            if all(targets.count(name) == 1 for name in (source.target, node.target)) and _fits(*pair):
                pairs.append(pair)
    return pairs


class _Tracer(fx.Tracer):
    """Looks into modules that have others inside, for how these are called."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(m.children()) or super().is_leaf_module(m, module_qualified_name)


def _fits(conv: nn.Module, bn: nn.Module) -> bool:
    if not isinstance(conv, nn.Conv2d) or type(bn) is not nn.BatchNorm2d:
        return False
    whole = all(type(p) is nn.Parameter for p in (*conv.parameters(), *bn.parameters()))
    return whole and not (_is_watched(conv) or _is_watched(bn)) and bn.affine and bn.track_running_stats


def _is_watched(m: nn.Module) -> bool:
    return bool(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m))


def folded(pairs: Iterable[Pair]) -> ExitStack:
    """Let the first of each pair do the work of the second, while that evaluates, until the result is closed."""
    stack = ExitStack()
    for conv, bn in pairs:
        object.__setattr__(conv, "_norm", bn)  # beside the submodules, so that names and files stay as they are
        conv.forward, bn.forward = MethodType(_conv, conv), MethodType(_norm, bn)  # which copies of the model can bind
        stack.callback(_unfold, conv, bn)
    return stack


def _unfold(conv: nn.Module, bn: nn.Module) -> None:
    del conv.__dict__["_norm"], conv.__dict__["forward"], bn.__dict__["forward"]


def _conv(conv: Any, x: Tensor) -> Tensor:
    """The convolution with weights that normalise its output."""
    bn = conv._norm
    if bn.training:
        return type(conv).forward(conv, x)
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    shift = bn.bias - bn.running_mean * scale
    own = conv._parameters["weight"], conv._parameters["bias"]
    conv._parameters["weight"] = own[0] * scale[:, None, None, None]
    conv._parameters["bias"] = shift if own[1] is None else shift + own[1] * scale
    try:
        return type(conv).forward(conv, x)
    finally:
        conv._parameters["weight"], conv._parameters["bias"] = own


def _norm(bn: Any, x: Tensor) -> Tensor:
    return type(bn).forward(bn, x) if bn.training else x
