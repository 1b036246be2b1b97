"""The body of a vision model: a network without its classifier, for any number of input channels.

>>> body = create_body(resnet34, pretrained=True)    # (bs, 3, h, w) -> (bs, 512, h/32, w/32)
>>> num_features(body)
512
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..callbacks.hooks import hook_outputs
from .architecture import Arch, as_architecture
from .dry_run import dry_run
from .timm_models import is_timm, timm_body, timm_first_convs
from .torchvision_models import torchvision_body

__all__ = ["Cut", "adapt_input", "create_body", "model_sizes", "num_features_model", "output_shape"]

Cut = int | Callable[[nn.Module], nn.Module] | None


def create_body(arch: Arch, pretrained: bool = True, cut: Cut = None, n_in: int = 3) -> nn.Module:
    """`arch` without its classifier: (bs, `n_in`, h, w) to a map (bs, nf, h', w'), or to features (bs, nf).

    `cut` is the number of the network's children that stay, a function from the network to its body, or None: found by
    itself for all of torchvision and timm, and for networks whose children run one after the other. The first
    convolution is adapted to `n_in` channels by `adapt_input`.

    Raises ValueError where the place to cut or the first convolution cannot be found.
    """
    body = _cut(as_architecture(arch).build(pretrained), cut)
    adapt_input(body, n_in)
    return body


def _cut(model: nn.Module, cut: Cut) -> nn.Module:
    if cut is None:
        return _without_classifier(model)
    if isinstance(cut, int) and not isinstance(cut, bool):
        return _first_children(model, cut)
    if callable(cut):
        return cut(model)
    raise TypeError(f"cut is the number of children to keep, a function from network to body or None, not {cut!r}.")


def _first_children(model: nn.Module, n: int) -> nn.Sequential:
    children = list(model.children())
    if not 0 < abs(n) <= len(children) or n == -len(children):
        raise ValueError(f"cut={n} keeps no child, or more than there are: {_children_of(model)}.")
    return nn.Sequential(*map(_runnable, children[:n]))


def _without_classifier(model: nn.Module) -> nn.Module:
    if is_timm(model):
        return timm_body(model)
    if (body := torchvision_body(model)) is not None:
        return body
    children = [child for name, child in model.named_children() if not name.lower().startswith("aux")]
    n = next((i for i, child in enumerate(children) if _begins_classifier(child)), None)
    if n == 0 and len(children) == 1 and isinstance(children[0], nn.Sequential):  # a network around one Sequential
        return _without_classifier(children[0])
    if not n:
        raise ValueError(
            f"Found no place where the classifier begins: {_children_of(model)}. "
            "Pass cut=<how many of them to keep> or cut=<function from the network to its body>."
        )
    kept = [_runnable(child) for child in children[:n]]
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)


_CLASSIFIER = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Linear)


def _begins_classifier(child: nn.Module) -> bool:
    """Whether `child` pools to a fixed size, flattens or classifies, itself or as the chain that it is."""
    return isinstance(child, _CLASSIFIER) or (
        isinstance(child, nn.Sequential) and any(isinstance(layer, _CLASSIFIER) for layer in child)
    )


def _runnable(child: nn.Module) -> nn.Module:
    return nn.Sequential(*child) if isinstance(child, nn.ModuleList) else child


def _children_of(model: nn.Module) -> str:
    names = [f"{name} ({type(child).__name__})" for name, child in model.named_children()]
    return f"{type(model).__name__} has {len(names)} children: {', '.join(names)}"


def adapt_input(body: nn.Module, n_in: int) -> None:
    """Make the first convolution of `body` accept `n_in` channels, in place.

    With fewer channels than before, each gets an equal share of the summed weights, so that a grey image is answered as
    its RGB copy is; with more, the old weights stay and the new ones are zero.

    Raises ValueError where there is no convolution of the image's channels to adapt.
    """
    convs = timm_first_convs(body) or [m for m in body.modules() if isinstance(m, nn.Conv2d)][:1]
    if n_in == (convs[0].in_channels if convs else 3):
        return
    if not convs or any(conv.groups != 1 or conv.in_channels not in (1, 3) for conv in convs):
        raise ValueError(
            f"{type(body).__name__} begins with {convs[0] if convs else 'no nn.Conv2d'}, which cannot be adapted to "
            f"{n_in} channels: pass n_in=3 and images of 3 channels, or an architecture that takes yours."
        )
    for conv in convs:
        conv.weight = nn.Parameter(_weight_for(n_in, conv.weight.detach()))
        conv.in_channels = n_in


def _weight_for(n_in: int, weight: Tensor) -> Tensor:
    n_old = weight.shape[1]
    if n_in < n_old or n_old == 1:
        return (weight.sum(1, keepdim=True) / n_in).repeat(1, n_in, 1, 1)
    new = weight.new_zeros(weight.shape[0], n_in - n_old, *weight.shape[2:])
    return torch.cat([weight, new], dim=1)


def output_shape(body: nn.Module, n_in: int = 3, size: int | None = None) -> tuple[int, ...]:
    """The shape that `body` gives one image: (nf, h, w) for a map, (nf,) for a vector; measured on a black image.

    `size` in pixels: without it the first that the body accepts. Raises ValueError for any other kind of output.
    """
    output = dry_run(body, n_in, size)
    if not isinstance(output, Tensor) or output.ndim not in (2, 4):
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"A body returns a map (bs, nf, h, w) or features (bs, nf); {type(body).__name__} returned {what}. "
            "Pass cut=<function from the network to a body that does>."
        )
    return tuple(output.shape[1:])


def num_features_model(body: nn.Module, n_in: int = 3, size: int | None = None) -> int:
    """The number of channels, or of features, that `body` returns; see `output_shape`."""
    return output_shape(body, n_in, size)[0]


def model_sizes(model: nn.Module, size: int | None = None, n_in: int = 3) -> dict[str, tuple[int, ...]]:
    """The shape that each part of `model` gives one image of `size` pixels, by the part's name.

    Parts are the model's children, such as the stages of a body; those that give no tensor, or are not called, are left
    out. `size` as for `output_shape`.
    """
    children = dict(model.named_children())
    with hook_outputs(children.values()) as hooks:
        dry_run(model, n_in, size)
        outputs = dict(zip(children, hooks.stored, strict=True))
    return {name: tuple(output.shape[1:]) for name, output in outputs.items() if isinstance(output, Tensor)}
