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
    on, and what a layer does in training is then what it does in validation. Weight and bias train as ever. Large steps
    of the layers between are no longer evened out: keep the body's learning rate low (1e-5 to 1e-4), and for images
    unlike photos train without this callback.

    Where the layer follows a convolution, that does its work in training, see `folding.py`: a third less memory
    for an EfficientNet-Lite0.
    """

    order = -30  # before anything looks at the model

    def __init__(self, module: nn.Module):
        self.module, self.fold = module, ExitStack()
        self.layers = [m for m in module.modules() if isinstance(m, _BatchNorm)]

    def before_train(self, learn: Any) -> None:
        for layer in self.layers:
            layer.eval()
        self.fold = folded(conv_bn_pairs(self.module))

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
