"""The library's own architectures: functions `arch(pretrained=False, ...)` that return an `nn.Module`."""

from .efficientnet_lite import efficientnet_lite0

__all__ = ["efficientnet_lite0"]
