"""timm's networks by name: building, what their weights expect, taking the classifier off.

timm is imported where it is used: it comes with `pip install "warmstart[hub]"`.
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torchvision.ops import Permute

from .dry_run import dry_run

__all__ = [
    "build_timm",
    "is_timm",
    "known_to_timm",
    "timm_body",
    "timm_first_convs",
    "timm_name",
    "timm_normalisation",
]


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ImportError('An architecture given by name comes from timm: `pip install "warmstart[hub]"`.') from error
    return timm


def timm_name(builder: Callable[..., Any]) -> str | None:
    """The name of `builder` if it is one of timm's own functions."""
    name = getattr(builder, "__name__", "")
    return name if (getattr(builder, "__module__", None) or "").startswith("timm.") and _timm().is_model(name) else None


def known_to_timm(name: str) -> str:
    """`name` itself, if timm has the model and, where a dot follows, these weights of it.

    Raises ValueError otherwise, with the closest names that it has, and ImportError where timm is missing.
    """
    timm = _timm()
    if timm.is_model(name) and ("." not in name or name in timm.list_pretrained()):
        return name
    close = difflib.get_close_matches(name, [*timm.list_models(), *timm.list_pretrained()], n=5)
    fix = f"Did you mean {', '.join(close)}?" if close else 'timm.list_models("*part*") lists what it has.'
    raise ValueError(f"timm has no model {name!r}. {fix} A builder of torchvision is passed as the function itself.")


def timm_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation per channel that the weights of `name` expect; None for a model without weights."""
    config = _timm().get_pretrained_cfg(known_to_timm(name))
    return (tuple(config.mean), tuple(config.std)) if config else None


def build_timm(name: str, pretrained: bool) -> nn.Module:
    """The network `name`, random or with the weights that timm downloads.

    Raises ConnectionError where the download fails, ValueError where there is no such model or there are no weights.
    """
    timm, config = _timm(), _timm().get_pretrained_cfg(known_to_timm(name))
    if not pretrained:
        return timm.create_model(name)
    if config is None or not config.has_weights:
        raise ValueError(f"timm has no weights for {name!r}: pass pretrained=False.")
    try:
        return timm.create_model(name, pretrained=True)
    except OSError as error:
        url = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        raise ConnectionError(
            f"The weights of {name} could not be downloaded from {url} ({error}). Build the model once where there "
            f"is a network and copy {_cache(config)} from there to here, or pass pretrained=False."
        ) from error


def _cache(config: Any) -> Path:
    """Where these weights lie once downloaded."""
    if not config.hf_hub_id:
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{config.hf_hub_id.replace('/', '--')}"


def is_timm(model: nn.Module) -> bool:
    """Whether `model` speaks timm's protocol, by which it takes off its own classifier."""
    return hasattr(model, "reset_classifier") and hasattr(model, "default_cfg")


def timm_body(model: Any) -> nn.Module:
    """`model` without its classifier: a map (bs, nf, h, w) if its features are one, else its pooled tokens (bs, nf)."""
    features = dry_run(model, forward=model.forward_features)
    if isinstance(features, torch.Tensor) and features.ndim == 4 and _took_pooling_off(model):
        return nn.Sequential(model, Permute([0, 3, 1, 2])) if getattr(model, "output_fmt", "") == "NHWC" else model
    model.reset_classifier(0)
    return model


def _took_pooling_off(model: Any) -> bool:
    try:
        model.reset_classifier(0, global_pool="")
    except AssertionError:  # a few heads cannot do without
        return False
    return True


def timm_first_convs(body: nn.Module) -> list[nn.Conv2d]:
    """The convolutions that see the image, by timm's own record; empty for a body that is not timm's."""
    for model in filter(is_timm, body.modules()):
        names: Any = model.default_cfg.get("first_conv") or ()  # type: ignore[union-attr]
        layers = [model.get_submodule(name) for name in ([names] if isinstance(names, str) else names)]
        return [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    return []
