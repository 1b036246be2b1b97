"""The library's own architectures: functions `arch(pretrained=False, ...)` that return an `nn.Module`."""

from .efficientnet_lite import efficientnet_lite0
from .xresnet import xresnet18, xresnet34, xresnet50, xresnet101, xresnet152

__all__ = ["efficientnet_lite0", "xresnet18", "xresnet34", "xresnet50", "xresnet101", "xresnet152"]
