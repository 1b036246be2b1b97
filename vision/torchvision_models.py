"""torchvision's classification networks by name: building, what their weights expect, taking the classifier off."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision
from torch import nn
from torchvision.models import DenseNet, VisionTransformer

__all__ = ["build_torchvision", "downloading", "torchvision_body", "torchvision_name", "torchvision_normalisation"]

# The weights of these two expect inputs in [-1, 1]. torchvision's networks convert to that from its usual normalisation
# in their `forward`, which a body does not have: so ours are built without the conversion.
_INCEPTIONS = ("googlenet", "inception_v3")


def torchvision_name(builder: Callable[..., Any]) -> str | None:
    """The name of `builder` if it is one of torchvision's for classification."""
    name = getattr(builder, "__name__", "")
    names = torchvision.models.list_models(module=torchvision.models)
    return name if name in names and torchvision.models.get_model_builder(name) is builder else None


def torchvision_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel that the default weights of `name` expect."""
    if name in _INCEPTIONS:
        return (0.5,) * 3, (0.5,) * 3
    transforms = _default_weights(name).transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def build_torchvision(name: str, pretrained: bool) -> nn.Module:
    """The network `name`, random or with its default weights, which torchvision downloads and keeps under TORCH_HOME.

    Raises ConnectionError where the download fails, ValueError for an unknown name.
    """
    build, weights = torchvision.models.get_model_builder(name), _default_weights(name)
    options = _options(name, weights)
    if not pretrained:
        return build(weights=None, **options)
    with downloading(name, weights.url):
        return build(weights=weights, **options)


@contextmanager
def downloading(name: str, url: str) -> Iterator[None]:
    """Inside, a download of the weights of `name` that fails is a ConnectionError that says what to do."""
    try:
        yield
    except OSError as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
        raise ConnectionError(
            f"The weights of {name} could not be downloaded ({error}). Download {url} where there is a network "
            f"and put it at {file}, or pass pretrained=False."
        ) from error


def _default_weights(name: str) -> Any:
    return torchvision.models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]


def _options(name: str, weights: Any) -> dict[str, Any]:
    if name in _INCEPTIONS:
        return {"transform_input": False, "init_weights": False}
    if name.startswith("vit_"):  # the weights fix the number of positions, also where they are loaded afterwards
        return {"image_size": weights.meta["min_size"][0]}
    return {}


def torchvision_body(model: nn.Module) -> nn.Module | None:
    """`model` without its classifier, for those of torchvision where that is not a run of its children; else None."""
    if isinstance(model, DenseNet):  # applies a ReLU to its features in `forward`
        return nn.Sequential(*model.features, nn.ReLU(inplace=True))
    if isinstance(model, VisionTransformer):  # adds a class token, whose features (bs, nf) the body returns
        model.heads = nn.Identity()  # type: ignore[assignment]
        return model
    return None
