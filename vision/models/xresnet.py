"""XResNets: residual networks with the tricks that make them train better, for training from random weights.

    learn = vision_learner(data, xresnet18, pretrained=False)
    learn.fit_one_cycle(5)

He et al. 2018, "Bag of Tricks for Image Classification with Convolutional Neural Networks" (arXiv:1812.01187): the stem
is three convolutions of 3×3 instead of one of 7×7, a stride is in the 3×3 convolution of a block (ResNet-B), its
shortcut halves the map by pooling (ResNet-D), and each block begins as its shortcut alone.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..attention import SelfAttention

__all__ = ["xresnet", "xresnet18", "xresnet34", "xresnet50", "xresnet101", "xresnet152"]

Activation = Callable[[], nn.Module]
STEM = (32, 32, 64)
WIDTHS = (64, 128, 256, 512)  # of the four stages, inside their blocks


def conv_bn(n_in: int, n_out: int, size: int = 3, stride: int = 1, act: Activation | None = None) -> nn.Sequential:
    """Convolution, started as in He et al. 2015, batch norm and, if given, activation."""
    conv = nn.Conv2d(n_in, n_out, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), *([act()] if act else []))


class XResBlock(nn.Module):
    """Two convolutions of 3×3, or with `expansion` 4 a bottleneck of 1×1, 3×3, 1×1; added to the shortcut."""

    def __init__(self, n_in: int, width: int, expansion: int, stride: int, act: Activation, sa: bool):
        super().__init__()
        n_out = width * expansion
        if expansion == 1:
            layers = [conv_bn(n_in, width, 3, stride, act), conv_bn(width, n_out)]
        else:
            layers = [conv_bn(n_in, width, 1, 1, act), conv_bn(width, width, 3, stride, act), conv_bn(width, n_out, 1)]
        nn.init.zeros_(layers[-1][1].weight)  # type: ignore[arg-type]  # of its batch norm
        self.convs = nn.Sequential(*layers, *([SelfAttention(n_out)] if sa else []))
        pool = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        self.shortcut = nn.Sequential(*pool, *([conv_bn(n_in, n_out, 1)] if n_in != n_out else []))
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.convs(x) + self.shortcut(x))


def xresnet(n_blocks: Sequence[int], expansion: int = 1, n_classes: int = 1000, n_in: int = 3,
            act: Activation = nn.ReLU, sa: bool = False) -> nn.Sequential:  # fmt: skip
    """Stem, four stages of `n_blocks`, pooling and classifier: `(bs, n_in, h, w)` to `(bs, n_classes)`.

    `expansion`: 1 for blocks of two convolutions, 4 for bottlenecks. `act` makes an activation (`nn.ReLU`, `nn.Mish`).
    With `sa` the last block of the first stage has self-attention (see `SelfAttention`), over a quarter of the image's
    height and width: for small images.
    """
    sizes = [n_in, *STEM]
    stem = [conv_bn(sizes[i], sizes[i + 1], stride=2 if i == 0 else 1, act=act) for i in range(len(STEM))]
    layers: dict[str, nn.Module] = {"stem": nn.Sequential(*stem), "maxpool": nn.MaxPool2d(3, 2, 1)}
    n = STEM[-1]
    for i, (width, count) in enumerate(zip(WIDTHS, n_blocks, strict=True)):
        layers[f"layer{i + 1}"] = _stage(n, width, count, expansion, 1 if i == 0 else 2, act, sa and i == 0)
        n = width * expansion
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(n, n_classes)}
    return nn.Sequential(OrderedDict(layers))


def _stage(n_in: int, width: int, n_blocks: int, expansion: int, stride: int, act: Activation,
           sa: bool) -> nn.Sequential:  # fmt: skip
    first = XResBlock(n_in, width, expansion, stride, act, sa and n_blocks == 1)
    rest = [
        XResBlock(width * expansion, width, expansion, 1, act, sa and i == n_blocks - 1) for i in range(1, n_blocks)
    ]
    return nn.Sequential(first, *rest)


def xresnet18(pretrained: bool = False, n_classes: int = 1000, n_in: int = 3, act: Activation = nn.ReLU,
              sa: bool = False) -> nn.Sequential:  # fmt: skip
    """XResNet-18 of 11 million parameters; see `xresnet`. Raises ValueError if `pretrained`: there are no weights."""
    return _untrained("xresnet18", pretrained, (2, 2, 2, 2), 1, n_classes, n_in, act, sa)


def xresnet34(pretrained: bool = False, n_classes: int = 1000, n_in: int = 3, act: Activation = nn.ReLU,
              sa: bool = False) -> nn.Sequential:  # fmt: skip
    """XResNet-34 of 21 million parameters; as `xresnet18`."""
    return _untrained("xresnet34", pretrained, (3, 4, 6, 3), 1, n_classes, n_in, act, sa)


def xresnet50(pretrained: bool = False, n_classes: int = 1000, n_in: int = 3, act: Activation = nn.ReLU,
              sa: bool = False) -> nn.Sequential:  # fmt: skip
    """XResNet-50 of 25 million parameters, with bottlenecks; as `xresnet18`."""
    return _untrained("xresnet50", pretrained, (3, 4, 6, 3), 4, n_classes, n_in, act, sa)


def xresnet101(pretrained: bool = False, n_classes: int = 1000, n_in: int = 3, act: Activation = nn.ReLU,
               sa: bool = False) -> nn.Sequential:  # fmt: skip
    """XResNet-101 of 44 million parameters, with bottlenecks; as `xresnet18`."""
    return _untrained("xresnet101", pretrained, (3, 4, 23, 3), 4, n_classes, n_in, act, sa)


def xresnet152(pretrained: bool = False, n_classes: int = 1000, n_in: int = 3, act: Activation = nn.ReLU,
               sa: bool = False) -> nn.Sequential:  # fmt: skip
    """XResNet-152 of 60 million parameters, with bottlenecks; as `xresnet18`."""
    return _untrained("xresnet152", pretrained, (3, 8, 36, 3), 4, n_classes, n_in, act, sa)


def _untrained(name: str, pretrained: bool, n_blocks: Sequence[int], expansion: int, n_classes: int, n_in: int,
             act: Activation, sa: bool) -> nn.Sequential:  # fmt: skip
    if pretrained:
        raise ValueError(f"There are no pretrained weights of {name}: pass pretrained=False, or take resnet18 …")
    return xresnet(n_blocks, expansion, n_classes, n_in, act, sa)
