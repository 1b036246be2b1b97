"""BatchNorm of pretrained networks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .core import Callback
from .folding import conv_bn_pairs, folded

__all__ = ["BnFreeze", "kept_statistics"]


class BnFreeze(Callback):
    """Let the BatchNorm layers of `module` normalise by their stored statistics in training too, and keep these.

    Statistics of a few hundred images of one's own are worse than those of the million that a network was pretrained
    on, and what a layer does in training is then what it does in validation. Weight and bias train as ever. For images
    unlike photos train without this callback.

    Large steps of the layers between are no longer evened out, until nothing is learned. So a layer that trains keeps
    its statistics only in fits whose learning rate for it, before any schedule, is no more than `max_lr`. The default
    is from an EfficientNet-Lite0 that trained whole on 244 photos: by AdamW the stored statistics were no worse up to
    3e-4, and worse from 5e-4 on; at 1e-3 they left 0.46 and 0.59 of accuracy where 0.86 and 0.88 were reached without.
    By SGD they were better at 3e-4 and worse at 1e-3, too.

    Where the layer follows a convolution, that does its work in training, see `folding.py`: a third less memory
    for an EfficientNet-Lite0.
    """

    order = -30  # before anything looks at the model
    state_names = ("rates",)

    def __init__(self, module: nn.Module, max_lr: float = 4e-4):
        self.module, self.max_lr, self.fold = module, max_lr, ExitStack()
        self.layers = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        self.rates: list[float] = []  # the fit's learning rate for each parameter group, before any schedule changes it

    def before_fit(self, learn: Any) -> None:
        self.rates = [float(group["lr"]) for group in learn.opt.param_groups]

    def before_train(self, learn: Any) -> None:
        groups = zip(self.rates, learn.opt.param_groups, strict=True)
        rates = {p: rate for rate, group in groups for p in group["params"] if p.requires_grad}
        kept = {layer for layer in self.layers if all(rates.get(p, 0) <= self.max_lr for p in layer.parameters())}
        for layer in kept:
            layer.eval()
        self.fold = folded(pair for pair in conv_bn_pairs(self.module) if pair[1] in kept)

    def after_train(self, learn: Any) -> None:
        self.fold.close()

    after_cancel_train = after_cancel_fit = after_train


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm layers normalise as ever, but the running statistics that they update are copies.

    So what autograd saves is the same too, in number and in version.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    kept = [(layer, name, value) for layer in layers for name, value in layer.named_buffers(recurse=False)]
    for layer, name, value in kept:
        setattr(layer, name, value.clone())
    try:
        yield
    finally:
        for layer, name, value in kept:
            setattr(layer, name, value)
