"""Less memory for activations: they are computed again when the backward pass needs them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .batchnorm import kept_statistics
from .core import Callback

__all__ = ["GradientCheckpointing"]


class GradientCheckpointing(Callback):
    """Keep only the inputs of `modules` for the backward pass, and run them again there.

    Costs about a third more time and saves most of the activations' memory; results are the same (Chen et al. 2016,
    arXiv:1604.06174). `modules` is a list of modules, or a function from the model to one; by default the outermost
    blocks, as residual networks and transformers list them: members of an `nn.Sequential` or `nn.ModuleList` that have
    layers of their own.
    """

    def __init__(self, modules: Iterable[nn.Module] | Callable[[nn.Module], Iterable[nn.Module]] | None = None):
        self.modules = modules if modules is None or callable(modules) else list(modules)
        self.wrapped: list[nn.Module] = []

    def before_fit(self, learn: Any) -> None:
        modules = _blocks(learn.model) if self.modules is None else self.modules
        self.wrapped = list(modules(learn.model)) if callable(modules) else list(modules)
        if not self.wrapped:
            raise ValueError("This model has no blocks to checkpoint: say which modules, GradientCheckpointing([…]).")
        for module in self.wrapped:
            module.forward = partial(_recomputed, module, module.forward)

    def after_fit(self, learn: Any) -> None:
        for module in self.wrapped:
            module.__dict__.pop("forward", None)
        self.wrapped = []

    after_cancel_fit = after_fit


def _recomputed(module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    contexts = lambda: (nullcontext(), kept_statistics(module))  # noqa: E731
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of lists of modules that are no lists themselves and have layers of their own."""
    is_list = isinstance(module, (nn.Sequential, nn.ModuleList))
    for child in module.children():
        if is_list and list(child.children()) and not isinstance(child, (nn.Sequential, nn.ModuleList)):
            yield child
        else:
            yield from _blocks(child)
