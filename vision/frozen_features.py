"""What a pretrained network sees in an image, layer by layer: for losses that compare images as a network does.

>>> features = FrozenFeatures(create_body(vgg16_bn))
>>> [tuple(f.shape) for f in features(torch.rand(8, 3, 64, 64))]      # the last map of each resolution
[(8, 64, 64, 64), (8, 128, 32, 32), (8, 256, 16, 16), (8, 512, 8, 8), (8, 512, 4, 4)]
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..callbacks.hooks import hook_outputs
from ..data.portable import Portable
from ..learner.tensors import weights_like
from .normalisation import Stats
from .skips import find_skips
from .transforms import imagenet_stats

__all__ = ["FrozenFeatures"]


@dataclass(eq=False)
class FrozenFeatures(Portable):
    """The outputs of some `layers` of `network` for images `(bs, 3, h, w)` in [0, 1], grey ones `(bs, 1, h, w)`, too.

    `layers` are paths in the network ("features.22"), by default those of the last map of each resolution. Images are
    normalised by `stats`, a mean and a std of each channel. It works on a copy of the network, whose weights stay as
    they are: BatchNorm and dropout evaluate, and only the images get gradients. The copy goes to where the images are.

    A description of it, as in an exported learner, leaves the network out: what is restored has to be given another.
    Raises TypeError for what is no network, ValueError for a path that it has not.
    """

    network: nn.Module | None
    layers: Sequence[str] | None = None
    stats: Stats = imagenet_stats

    def __post_init__(self):
        network, self.network = self.network, None
        if network is None:
            self._frozen = None
            return
        self.layers = _checked(network, self.layers)
        self._frozen = _frozen(network)

    def __call__(self, images: Tensor) -> list[Tensor]:
        network = self._frozen_on(images)
        modules = [network.get_submodule(path) for path in self.layers or ()]
        with hook_outputs(modules, detach=False) as hooks:
            network(self._normalised(images))
        return hooks.stored

    def _frozen_on(self, images: Tensor) -> nn.Module:
        if self._frozen is None:
            raise RuntimeError(
                "This loss comes from an exported file, which leaves its network out. To train, make it anew: "
                "learn.loss_func = FeatureLoss(create_body(vgg16_bn))."
            )
        weight = next(self._frozen.parameters(), images)
        return self._frozen if weight.device == images.device else self._frozen.to(images.device)

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std = (weights_like(images, [*stat])[:, None, None] for stat in self.stats)  # type: ignore[index]
        return (images - mean) / std  # grey images are as many times themselves as there are means


def _checked(network: nn.Module, layers: Sequence[str] | None) -> list[str]:
    """The paths of the layers. Raises TypeError for no network, ValueError for a layer that it has not."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"a body is a network, create_body(vgg16_bn) say, not {network!r:.60}.")
    if layers is None:
        return _last_maps(network)
    known = dict(network.named_modules())
    if unknown := [path for path in layers if path not in known]:
        some = ", ".join(path for path in list(known)[1:9])
        raise ValueError(f"{type(network).__name__} has no layer {unknown[0]!r}; its layers are {some}, …")
    return [*layers]


def _last_maps(network: nn.Module) -> list[str]:
    """Where the last map of each resolution is; not that of pooling at the end, which has nothing of its own to say."""
    found = find_skips(network)
    paths = [skip.path for skip in found.skips if not skip.channels_last]
    ends_by_pooling = isinstance([*network.modules()][-1], (nn.MaxPool2d, nn.AvgPool2d))
    return paths if ends_by_pooling and paths else [*paths, ""]  # "" is the path of the network itself


def _frozen(network: nn.Module) -> nn.Module:
    """A copy that evaluates, and changes no output of a layer in place afterwards."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return network
