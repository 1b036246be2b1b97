"""Transfer learning for images: a pretrained body, a new head, the normalisation that the weights expect."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import AdamW
from torchvision.transforms import v2

from ..callbacks import BnFreeze, Callback
from ..data import DataBunch
from ..data.portable import Portable
from ..learner import Learner
from .architecture import Arch, Architecture, as_architecture
from .body import Cut, create_body
from .image import ImageBlock
from .parameter_groups import split_model
from .transforms import Normalize
from .vision_model import VisionModel

__all__ = ["vision_learner"]


def vision_learner(data: DataBunch, arch: Arch, metrics: Any = None, pretrained: bool = True, cut: Cut = None,
                   splitter: Callable | None = None, custom_head: nn.Module | None = None, n_in: int = 3,
                   n_out: int | None = None, concat_pool: bool = True, ps: float | Sequence[float] = 0.5,
                   lin_ftrs: Sequence[int] | None = None, loss_func: Callable | None = None, opt_func: Callable = AdamW,
                   lr: float = 1e-3, cbs: Callback | Iterable[Callback] | None = None, wd: float | None = None,
                   path: str | Path | None = None, wd_bn_bias: bool = True, bn_freeze: bool = True) -> Learner:  # fmt: skip
    """A Learner of the body of `arch` and a new head for the data's classes; pretrained bodies start frozen.

        learn = vision_learner(data, resnet34, metrics=accuracy)
        learn.fine_tune(3)

    `arch`: a torchvision builder, a timm name ('convnext_tiny'), one of `vision.models`, or any callable that returns
    an `nn.Module`. Images from a `DataBlock` are normalised by the statistics that come with its weights, unless the
    data has a `Normalize` of its own. The first layer takes as many channels as the data's images have (`n_in` where
    the data does not say); `n_out` defaults to `data.c`. `cut` says where the body ends (a child's number, or
    `model -> body`); `concat_pool, ps, lin_ftrs` shape the head (see `create_head`), `custom_head` replaces it;
    `splitter(model)` replaces the architecture's layer groups. With `bn_freeze` a pretrained body keeps the statistics
    of its BatchNorm layers (see `BnFreeze`), whose weights train; switch it off for much data unlike photos.
    """
    arch, n_in = as_architecture(arch), _channels(data, n_in)
    if custom_head is None:
        spec = VisionModel(arch, data.c if n_out is None else n_out, n_in, cut, lin_ftrs, ps, concat_pool)
    else:
        spec = _BodyAndHead(arch, custom_head, n_in, cut)
    learn = Learner(
        _normalised(data, arch, n_in, pretrained), spec.build(pretrained), loss_func, opt_func, lr,
        splitter or arch.split or split_model, cbs, metrics, path, wd=wd, wd_bn_bias=wd_bn_bias, model_spec=spec,
    )  # fmt: skip
    if pretrained:
        learn.freeze()
    if pretrained and bn_freeze:
        learn.add_cb(BnFreeze(learn.model[0]))
    return learn


@dataclass
class _BodyAndHead(Portable):
    """The description of a model with a head of the user's own, who hands it in when an export is loaded."""

    arch: Architecture
    head: Any
    n_in: int = 3
    cut: Cut = None

    def build(self, pretrained: bool = False) -> nn.Sequential:
        """`nn.Sequential(body, head)`; a function for a head is called."""
        head = self.head if isinstance(self.head, nn.Module) else self.head()
        return nn.Sequential(create_body(self.arch, pretrained, self.cut, self.n_in), head)


def _channels(data: DataBunch, n_in: int) -> int:
    """The channels of the data's images. Raises ValueError where `n_in` was given and says otherwise."""
    block = data.blocks[0] if data.blocks else None
    if not isinstance(block, ImageBlock):
        return n_in
    if n_in not in (3, block.channels):
        raise ValueError(
            f"n_in={n_in}, but the images have {block.channels} channels: leave n_in out, or change ImageBlock(mode=…)."
        )
    return block.channels


def _normalised(data: DataBunch, arch: Architecture, n_in: int, pretrained: bool) -> DataBunch:
    """`data` with the normalisation that `arch` expects; a copy, since other learners may use the same data."""
    stats = arch.normalisation if data.blocks else None
    if stats is None:
        return data
    expected, given = Normalize(*_for_channels(stats, n_in)), _given_normalize(data)
    if given is None:
        return data.with_batch_tfms([*data.batch_tfms, expected])
    pairs = zip((*given.mean, *given.std), (*expected.mean, *expected.std), strict=False)
    if pretrained and any(abs(a - b) > 0.01 for a, b in pairs):
        warnings.warn(
            f"The data is normalised with {given}, but the weights of {arch.name} were trained with {expected}, which "
            "is used if the data has no Normalize. Leave it out, unless you mean it.",
            stacklevel=3,
        )
    return data


def _given_normalize(data: DataBunch) -> Any:
    """The `Normalize`, ours or torchvision's, that the data has already."""
    tfms = [getattr(tfm, "transform", tfm) for tfm in (*data.batch_tfms, *data.train_ds.item_tfms)]
    return next((tfm for tfm in tfms if isinstance(tfm, (Normalize, v2.Normalize))), None)


def _for_channels(stats: tuple[Sequence[float], Sequence[float]], n_in: int) -> tuple[tuple, tuple]:
    """Mean and std for `n_in` channels: their average where there are fewer; further ones stay in [0, 1]."""
    (mean, std), n = stats, len(stats[0])
    if n_in < n or n == 1:
        return (sum(mean) / n,) * n_in, (sum(std) / n,) * n_in
    return (*mean, *(0.0,) * (n_in - n)), (*std, *(1.0,) * (n_in - n))
