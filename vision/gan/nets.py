"""Generators and critics of convolutions: from noise to an image in −1…1, and from an image to scores.

>>> generator, critic = basic_generator(28, n_channels=1), basic_critic(28, n_channels=1)
>>> critic(generator(torch.randn(5, 100))).shape
torch.Size([5, 1])

They are those of DCGAN (Radford et al. 2016, arXiv:1511.06434). Sides of an image are 4 to 7 times a power of two, as
28, 32 and 64 are: a generator begins with a map of 4 to 7, and doubles it.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..attention import SelfAttention

__all__ = ["CriticNorm", "basic_critic", "basic_generator", "gan_critic", "map_sizes", "with_spectral_norm"]

CriticNorm = Literal["batch", "instance", "layer", "spectral", "none"]
SMALLEST = 4  # side of the smallest map


def basic_generator(out_size: int, n_channels: int, in_sz: int = 100, n_features: int = 64,
                    n_extra_layers: int = 0) -> nn.Sequential:  # fmt: skip
    """Noise `(bs, in_sz)` to images `(bs, n_channels, out_size, out_size)` in −1…1.

    The last but one map has `n_features` channels, each before it twice as many. `n_extra_layers` convolutions follow
    it at full size. Raises ValueError for an `out_size` that cannot be reached by doubling.
    """
    start, *sizes = map_sizes(out_size)
    width = n_features * 2 ** (len(sizes) - 1)
    layers = [nn.Unflatten(1, (in_sz, 1, 1)), *_enlarge(in_sz, width, start, 1, 0)]
    for _ in sizes[:-1]:
        layers += _enlarge(width, width // 2, 4, 2, 1)
        width //= 2
    for _ in range(n_extra_layers):
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return _started(nn.Sequential(*layers, nn.ConvTranspose2d(width, n_channels, 4, 2, 1), nn.Tanh()))


def _enlarge(n_in: int, n_out: int, size: int, stride: int, padding: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(n_in, n_out, size, stride, padding, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]


def basic_critic(in_size: int, n_channels: int, n_features: int = 64, n_extra_layers: int = 0,
                 norm: CriticNorm = "batch") -> nn.Module:  # fmt: skip
    """Images `(bs, n_channels, in_size, in_size)` to one score each, `(bs, 1)`.

    The first map has `n_features` channels, each after it twice as many, and LeakyReLUs; `n_extra_layers` convolutions
    follow the first. `norm`: "batch" as in DCGAN, "instance", "layer" (over all of an image, for a `GradientPenalty`,
    which needs the images apart), "spectral" (see `with_spectral_norm`) or "none". Raises ValueError for an `in_size`
    that cannot be halved to 4 to 7, and for another norm.
    """
    start, *sizes = map_sizes(in_size)
    if norm not in (known := CriticNorm.__args__):  # type: ignore[attr-defined]
        raise ValueError(f"norm={norm!r}: a critic's norm is one of {', '.join(known)}.")
    layers, width = [nn.Conv2d(n_channels, n_features, 4, 2, 1), nn.LeakyReLU(0.2)], n_features
    for _ in range(n_extra_layers):
        layers += _reduce(width, width, 3, 1, norm)
    for _ in sizes[:-1]:
        layers += _reduce(width, width * 2, 4, 2, norm)
        width *= 2
    critic = _started(nn.Sequential(*layers, nn.Conv2d(width, 1, start), nn.Flatten()))
    return with_spectral_norm(critic) if norm == "spectral" else critic


def _reduce(n_in: int, n_out: int, size: int, stride: int, norm: str) -> list[nn.Module]:
    norms = {"batch": nn.BatchNorm2d(n_out), "instance": nn.InstanceNorm2d(n_out, affine=True),
             "layer": nn.GroupNorm(1, n_out)}  # fmt: skip
    own = [norms[norm]] if norm in norms else []
    return [nn.Conv2d(n_in, n_out, size, stride, 1, bias=not own), *own, nn.LeakyReLU(0.2)]


def gan_critic(n_channels: int = 3, nf: int = 128, n_blocks: int = 3, p: float = 0.15) -> nn.Sequential:
    """Images of any size to a map of scores, flat: `(bs, n)`, one for each patch of the image.

    Meant to be trained as a classifier first, then with `GANLearner.from_learners`; several scores for an image want
    `AdaptiveLoss`. `n_blocks` convolutions halve the map and double its `nf` channels, after a first one that halves
    it, too; the first of them is followed by self-attention. All are under spectral normalisation, `p` is dropout
    between them. An image has at least 4 · 2 ** (n_blocks + 1) pixels a side.

    Unlike fast.ai's, scores are multiplied by a number that is learned, and an even grey is nothing to the first
    filters as they start: without, what is left of an image behind so many normalised layers is next to nothing, and
    the critic begins to learn late or never.
    """
    first = _halving(n_channels, nf)
    _without_mean(first[0])
    layers: list[nn.Module] = [*first, nn.Dropout2d(p / 2), _Residual(nf)]
    for number in range(n_blocks):
        layers += [nn.Dropout2d(p), *_halving(nf, nf * 2)]
        nf *= 2
        layers += [SelfAttention(nf)] if number == 0 else []
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(nf, 1, 4, bias=False)), nn.Flatten(), _Scale(20.0))


@torch.no_grad()
def _without_mean(layer: nn.Module) -> None:
    """Shift the weights of each filter so that they add up to 0."""
    weight: Any = layer.get_parameter("parametrizations.weight.original")
    weight -= weight.mean((1, 2, 3), keepdim=True)
    nn.init.zeros_(layer.get_parameter("bias"))


class _Scale(nn.Module):
    """Multiplies by a number that is learned."""

    def __init__(self, start: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _halving(n_in: int, n_out: int) -> list[nn.Module]:
    return [spectral_norm(nn.Conv2d(n_in, n_out, 4, 2, 1)), nn.LeakyReLU(0.2)]


class _Residual(nn.Module):
    """Two convolutions that add to what they get."""

    def __init__(self, width: int):
        super().__init__()
        convs = [spectral_norm(nn.Conv2d(width, width, 3, padding=1)) for _ in range(2)]
        self.layers = nn.Sequential(convs[0], nn.LeakyReLU(0.2), convs[1], nn.LeakyReLU(0.2))

    def forward(self, x):
        return x + self.layers(x)


def with_spectral_norm(network: nn.Module) -> nn.Module:
    """The same network, each convolution and linear layer of it divided by its largest singular value.

    So a critic is no steeper than its activations are (Miyato et al. 2018, arXiv:1802.05957). The value is estimated by
    a step of power iteration with each batch of training.
    """
    for layer in [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]:
        spectral_norm(layer)
    return network


def map_sizes(size: int) -> list[int]:
    """The sides of the maps from the smallest, of 4 to 7, to `size`. Raises ValueError where these do not meet."""
    sizes = [size]
    while sizes[0] % 2 == 0 and sizes[0] // 2 >= SMALLEST:
        sizes.insert(0, sizes[0] // 2)
    if len(sizes) < 2 or sizes[0] >= 2 * SMALLEST:
        raise ValueError(
            f"Images of {size} pixels a side cannot be made by doubling a map of 4 to 7: take 28, 32, 40, 48, 56, 64, "
            "…; Resize(…) brings images to that size."
        )
    return sizes


def _started(network: nn.Sequential) -> nn.Sequential:
    """Weights as DCGAN starts with them: normal, of standard deviation 0.02, those of BatchNorm around 1."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return network
