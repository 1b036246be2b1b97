"""Networks that turn images into images of another kind, and critics that look at patches: those of CycleGAN.

>>> to_b, critic = resnet_generator(n_features=8, n_blocks=2), patch_critic(n_features=8)
>>> critic(to_b(torch.zeros(1, 3, 128, 128))).shape
torch.Size([1, 196])

Zhu et al. 2017, arXiv:1703.10593, whose generator is that of Johnson et al. 2016 (arXiv:1603.08155), and whose critic
is PatchGAN's (Isola et al. 2017, arXiv:1611.07004). All norms are of each image by itself.
"""

from torch import Tensor, nn

__all__ = ["patch_critic", "resnet_generator"]


def resnet_generator(n_channels: int = 3, n_features: int = 64, n_blocks: int = 9) -> nn.Sequential:
    """Images `(bs, n_channels, h, w)` in −1…1 to as many of that size; sides are multiples of 4.

    Two convolutions halve the map and double its `n_features` channels, `n_blocks` residual blocks work on that, and
    two transposed convolutions lead back. The paper takes 6 blocks for 128 pixels and 9 for 256.
    """
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(n_channels, n_features, 7), *_norm_and_relu(n_features)]
    width = n_features
    for _ in range(2):
        layers += [nn.Conv2d(width, width * 2, 3, 2, 1), *_norm_and_relu(width * 2)]
        width *= 2
    layers += [_Residual(width) for _ in range(n_blocks)]
    for _ in range(2):
        layers += [nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1), *_norm_and_relu(width // 2)]
        width //= 2
    return _started(nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, n_channels, 7), nn.Tanh()))


def patch_critic(n_channels: int = 3, n_features: int = 64, n_layers: int = 3) -> nn.Sequential:
    """Images `(bs, n_channels, h, w)` to a map of scores, flat: `(bs, n)`, each of a patch of the image.

    `n_layers` convolutions halve the map, from `n_features` channels to at most 8 times as many. With 3 of them a score
    is of 70 × 70 pixels, with 2 of 34, and an image has at least 4 times 2 ** `n_layers` pixels a side.
    """
    layers, width = [nn.Conv2d(n_channels, n_features, 4, 2, 1), nn.LeakyReLU(0.2)], n_features
    for number in range(1, n_layers + 1):
        new = n_features * min(2**number, 8)
        stride = 2 if number < n_layers else 1
        layers += [nn.Conv2d(width, new, 4, stride, 1), nn.InstanceNorm2d(new), nn.LeakyReLU(0.2)]
        width = new
    return _started(nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1), nn.Flatten()))


class _Residual(nn.Module):
    """Two convolutions of a map mirrored at its edges, which add to what they get."""

    def __init__(self, width: int):
        super().__init__()
        first, second = ([nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)] for _ in "12")
        self.layers = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _norm_and_relu(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(width), nn.ReLU()]


def _started(network: nn.Sequential) -> nn.Sequential:
    """Weights as CycleGAN starts with them: normal, of standard deviation 0.02."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
    return network
