"""What users pass as `arch`, in one form that prints, compares and travels as JSON.

    as_architecture(torchvision.models.resnet34)    # Architecture(source='torchvision', name='resnet34', builder=None)
    as_architecture("convnext_tiny")                # a timm name
    as_architecture(efficientnet_lite0)             # one of our own
    as_architecture(MyNet)                          # any function or class that returns an nn.Module

An `Architecture` builds the whole network, with its classifier, and knows which normalisation its weights expect.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from ..data.portable import Portable
from . import models
from .timm_models import build_timm, known_to_timm, timm_name, timm_normalisation
from .torchvision_models import build_torchvision, torchvision_name, torchvision_normalisation

__all__ = ["Arch", "Architecture", "as_architecture"]

_SOURCES = ("torchvision", "timm", "warmstart", "custom")


@dataclass
class Architecture(Portable):
    """A network that can be built: `name` in its `source`, or the user's own `builder`.

    `source` is "torchvision", "timm", "warmstart" (vision.models) or "custom"; only the last has a `builder`, whose
    attributes `normalisation` (mean, std) and `split` (network to parameter groups) are used if it has them.
    """

    source: str
    name: str
    builder: Callable[..., nn.Module] | None = None

    def __post_init__(self):
        if self.source not in _SOURCES:
            raise ValueError(f"source is one of {', '.join(_SOURCES)}, not {self.source!r}.")
        if (self.source == "custom") != callable(self.builder):
            raise ValueError(f"A custom architecture has a builder and no other has; {self.name} has {self.builder!r}.")

    def build(self, pretrained: bool) -> nn.Module:
        """The whole network, with its classifier.

        Raises ConnectionError where the weights cannot be downloaded, ImportError where an extra is missing, ValueError
        where `pretrained` is asked of what has no weights.
        """
        if self.source == "torchvision":
            return build_torchvision(self.name, pretrained)
        if self.source == "timm":
            return build_timm(self.name, pretrained)
        return _call(self._function(), self.name, pretrained)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation per channel, of images in [0, 1], that the weights expect; None if unknown."""
        if self.source == "torchvision":
            return torchvision_normalisation(self.name)
        if self.source == "timm":
            return timm_normalisation(self.name)
        return getattr(self._function(), "normalisation", None)

    @property
    def split(self) -> Callable[[nn.Module], list[list[nn.Parameter]]] | None:
        """The architecture's own splitter of a model (body, head) into parameter groups, if it carries one."""
        return None if self.source in ("torchvision", "timm") else getattr(self._function(), "split", None)

    def _function(self) -> Callable[..., nn.Module]:
        if self.builder is not None:
            return self.builder
        if self.name not in models.__all__:
            raise ValueError(f"vision.models has {', '.join(models.__all__)}, but not {self.name!r}.")
        return getattr(models, self.name)


Arch = str | Callable[..., nn.Module] | Architecture


def as_architecture(arch: Arch) -> Architecture:
    """`arch` as an `Architecture`: a torchvision builder, a timm name, one of ours, any callable returning a network.

    Raises ValueError for a name that timm lacks, ImportError for a name where timm is missing, TypeError for a network
    that is built already.
    """
    if isinstance(arch, Architecture):
        return arch
    if isinstance(arch, str):
        return Architecture("timm", known_to_timm(arch))
    if isinstance(arch, nn.Module) or not callable(arch):
        raise TypeError(
            "arch is a function that builds a network (resnet34, not resnet34()) or the name of a timm model, "
            f"not a {type(arch).__name__}."
        )
    if name := timm_name(arch):
        return Architecture("timm", name)
    if name := torchvision_name(arch):
        return Architecture("torchvision", name)
    name = getattr(arch, "__name__", type(arch).__name__)
    if name in models.__all__ and getattr(models, name) is arch:
        return Architecture("warmstart", name)
    return Architecture("custom", name, arch)


def _call(function: Callable[..., nn.Module], name: str, pretrained: bool) -> nn.Module:
    """The network from `function`, told of `pretrained` in the way that its signature offers."""
    parameters = _parameters(function)
    if "pretrained" in parameters:
        model = function(pretrained=pretrained)
    elif "weights" in parameters:
        model = function(weights="DEFAULT" if pretrained else None)
    elif pretrained:
        raise ValueError(
            f"{name} takes neither `pretrained` nor `weights`, so pretrained=True would be ignored: "
            "pass pretrained=False (a function may well load weights by itself)."
        )
    else:
        model = function()
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} returned a {type(model).__name__}; an architecture returns an nn.Module.")
    return model


def _parameters(function: Callable[..., nn.Module]) -> Iterable[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin tells no signature
        return ()
