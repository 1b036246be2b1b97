"""Transfer learning for images: a pretrained body, a new head, the normalisation that the weights expect."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import AdamW

from ..callbacks import BnFreeze, Callback
from ..data import DataBunch
from ..learner import Learner
from .architecture import Arch, as_architecture
from .body import Cut
from .image import ImageBlock
from .normalisation import for_channels, given_stats
from .parameter_groups import split_model
from .vision_model import VisionModel

__all__ = ["channels_of", "frozen", "vision_learner"]


def vision_learner(data: DataBunch, arch: Arch, metrics: Any = None, pretrained: bool = True, cut: Cut = None,
                   splitter: Callable | None = None, custom_head: nn.Module | None = None, n_in: int = 3,
                   n_out: int | None = None, concat_pool: bool = True, ps: float | Sequence[float] = 0.5,
                   lin_ftrs: Sequence[int] | None = None, loss_func: Callable | None = None, opt_func: Callable = AdamW,
                   lr: float = 1e-3, cbs: Callback | Iterable[Callback] | None = None, wd: float | None = None,
                   path: str | Path | None = None, wd_bn_bias: bool = True,
                   bn_freeze: bool = True, train_bn: bool = False,
                   y_range: Sequence[float] | None = None) -> Learner:  # fmt: skip
    """A Learner of the body of `arch` and a new head for the data's classes; pretrained bodies start frozen.

        learn = vision_learner(data, resnet34, metrics=accuracy)
        learn.fine_tune(3)

    `arch`: a torchvision builder, a timm name ('convnext_tiny'), one of `vision.models`, or any callable that returns
    an `nn.Module`. Images from a `DataBlock` are normalised by the statistics that come with its weights, unless the
    data has a `Normalize` of its own. The first layer takes as many channels as the data's images have (`n_in` where
    the data does not say); `n_out` defaults to `data.c`. `cut` says where the body ends (a child's number, or
    `model -> body`); `concat_pool, ps, lin_ftrs, y_range` shape the head (see `create_head`), which `custom_head`
    replaces; `splitter(model)` replaces the architecture's layer groups. With `bn_freeze` a pretrained body keeps the
    statistics of its BatchNorm layers, whose weights train, in fits at low learning rates (see `BnFreeze`); switch it
    off for images unlike photos. While the body is frozen it needs no backward pass; with `train_bn`, fast.ai's way,
    the weights of its BatchNorm layers train then, too.
    """
    arch, n_in = as_architecture(arch), channels_of(data, n_in)
    n_out = data.c if n_out is None and custom_head is None else n_out
    expected = for_channels(arch.normalisation, n_in)
    spec = VisionModel(arch, n_out, n_in, cut, lin_ftrs, ps, concat_pool, custom_head, expected, y_range)
    if pretrained:
        spec.prepare(data)  # warns where the data is normalised in another way
    spec.normalisation = given_stats(data) or expected
    learn = Learner(
        data, spec.build(pretrained), loss_func, opt_func, lr, splitter or arch.split or split_model, cbs, metrics,
        path, wd=wd, wd_bn_bias=wd_bn_bias, model_spec=spec,
    )  # fmt: skip
    return frozen(learn, bn_freeze, train_bn) if pretrained else learn


def frozen(learn: Learner, bn_freeze: bool, train_bn: bool) -> Learner:
    """`learn` of a model with a pretrained body, as it starts: the last layer group alone trains."""
    learn.train_bn = train_bn
    learn.freeze()
    if bn_freeze:
        learn.add_cb(BnFreeze(learn.model_spec.body(learn.model)))  # type: ignore[union-attr]  # a recipe's spec has it
    return learn


def channels_of(data: DataBunch, n_in: int) -> int:
    """The channels of the data's images. Raises ValueError where `n_in` was given and says otherwise."""
    block = data.blocks[0] if data.blocks else None
    if not isinstance(block, ImageBlock):
        return n_in
    if n_in not in (3, block.channels):
        raise ValueError(
            f"n_in={n_in}, but the images have {block.channels} channels: leave n_in out, or change ImageBlock(mode=…)."
        )
    return block.channels
