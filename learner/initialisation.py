"""LSUV: weights that let numbers keep their size all the way through a network.

xb, yb = learn.data.one_batch()
lsuv_init(learn.model, xb)
learn.fit_one_cycle(5)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..callbacks.batchnorm import kept_statistics
from ..callbacks.evaluating import evaluating

__all__ = ["lsuv_init"]


def lsuv_init(model: nn.Module, xb: Any, orthogonal: bool = True) -> nn.Module:
    """Give each linear and convolutional layer of `model` an output of mean 0 and variance 1 on the batch `xb`.

    Layer sequential unit variance (Mishkin & Matas 2015, arXiv:1511.06422): one layer after the other starts with
    `orthogonal` weights (else with those that it has), which are divided by the standard deviation of its output; a
    bias takes the mean away, where the paper leaves it zero. Both is exact at once, since the output is linear in them,
    and so one forward pass does for all layers.

    `xb` is the model's input: a tensor, a tuple of several, or a dict of keyword arguments. Dropout does nothing
    meanwhile, BatchNorm normalises by this batch and keeps its statistics. What does not run stays as it is, as do
    layers whose weight is computed, by `weight_norm` say; a layer that runs twice is fitted to the first time. Returns
    the model.

    Raises ValueError where a layer's output is the same number everywhere, or not finite.
    """
    names = {layer: name for name, layer in model.named_modules() if _is_fitted(layer)}
    done: set[nn.Module] = set()

    def start(layer: Any, args: Any) -> None:
        if orthogonal and layer not in done:
            nn.init.orthogonal_(layer.weight)

    def fit(layer: Any, args: Any, output: Tensor) -> Tensor | None:
        if layer in done:
            return None
        done.add(layer)
        return _fitted(names[layer], layer, output)

    handles = [layer.register_forward_pre_hook(start) for layer in names]
    handles += [layer.register_forward_hook(fit) for layer in names]
    try:
        with _undisturbed(model):
            _run(model, xb)
    finally:
        for handle in handles:
            handle.remove()
    return model


def _is_fitted(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Linear, _ConvNd)) and "weight" in layer._parameters


def _fitted(name: str, layer: Any, output: Tensor) -> Tensor:
    """What `layer` would have given with the weights that it now gets."""
    values = output.float()
    mean, std = values.mean() if layer.bias is not None else 0.0, values.std()
    if not 0 < std.item() < float("inf"):
        raise ValueError(
            f"The output of {name!r} ({type(layer).__name__}) has a standard deviation of {std.item()}, and cannot be "
            "scaled by that: is the batch finite, and does it hold more than one number everywhere?"
        )
    layer.weight /= std
    if layer.bias is not None:
        layer.bias.sub_(mean).div_(std)
    return ((values - mean) / std).to(output.dtype)


def _run(model: nn.Module, xb: Any) -> None:
    if isinstance(xb, Mapping):
        model(**xb)
    elif isinstance(xb, (tuple, list)):
        model(*xb)
    else:
        model(xb)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm works as in training but keeps its statistics, nothing is random, and nothing is compiled."""
    with evaluating(model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.train()
        with kept_statistics(model):
            yield
