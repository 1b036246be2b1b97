"""Less memory for activations: they are computed again when the backward pass needs them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .batchnorm import kept_statistics
from .core import Callback

__all__ = ["GradientCheckpointing", "blocks"]


class GradientCheckpointing(Callback):
    """Keep only the inputs of `modules` for the backward pass, and run them again there.

    Chen et al. 2016, "Training deep nets with sublinear memory cost", arXiv:1604.06174. Costs about a third more time
    and saves most of the activations' memory; results are the same. `modules` is a module, a list of them, or a
    function from the model to one; by default the outermost blocks, as residual networks and transformers list them:
    members of an `nn.Sequential` or `nn.ModuleList` that have layers with weights.
    """

    def __init__(self, modules: nn.Module | Iterable[nn.Module] | Callable[[nn.Module], Any] | None = None):
        is_function = callable(modules) and not isinstance(modules, nn.Module)
        self.modules: Any = modules if modules is None or is_function else _as_modules(modules)
        self.wrapped: list[tuple[nn.Module, dict]] = []  # and what they had in place of a method `forward`

    def before_fit(self, learn: Any) -> None:
        choose = blocks if self.modules is None else self.modules
        modules = _as_modules(choose(learn.model)) if callable(choose) else choose
        _check(modules, learn.model)
        for module in modules:
            own = {name: value for name, value in vars(module).items() if name == "forward"}
            self.wrapped.append((module, own))
            module.forward = partial(_recomputed, module, module.forward)

    def after_fit(self, learn: Any) -> None:
        for module, own in self.wrapped:
            vars(module).pop("forward", None)
            vars(module).update(own)
        self.wrapped = []

    after_cancel_fit = after_fit


def _as_modules(modules: Any) -> list[nn.Module]:
    """A module or several as a list, each once. Raises TypeError for anything else."""
    modules = [modules] if isinstance(modules, nn.Module) else list(dict.fromkeys(modules))
    if wrong := [module for module in modules if not isinstance(module, nn.Module)]:
        raise TypeError(f"GradientCheckpointing takes modules, [model.layer1, model.layer2], not {wrong[0]!r}.")
    return modules


def _check(modules: list[nn.Module], model: nn.Module) -> None:
    """Raise ValueError where there is nothing to do, or where it would be done to another model."""
    if not modules:
        raise ValueError("This model has no blocks to checkpoint: say which modules, GradientCheckpointing([…]).")
    own = set(model.modules())
    if strangers := [module for module in modules if module not in own]:
        raise ValueError(f"{type(strangers[0]).__name__} to checkpoint is no part of this learner's model.")


def _recomputed(module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    """What `forward` gives; BatchNorm layers take in the statistics of its first run alone."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    earlier_runs = count()

    def run(*args: Any, **kwargs: Any) -> Any:
        with kept_statistics(module) if next(earlier_runs) else nullcontext():
            return forward(*args, **kwargs)

    return checkpoint(run, *args, use_reentrant=False, **kwargs)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of lists of modules that are no lists themselves and have layers with weights."""
    for child in module.children():
        if _is_list(module) and not _is_list(child) and any(map(_has_weights, child.children())):
            yield child
        else:
            yield from blocks(child)


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.Sequential, nn.ModuleList))


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
