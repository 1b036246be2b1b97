"""Transfer learning for images: a pretrained body, a new head, the normalisation that the weights expect."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import AdamW

from ..callbacks import Callback
from ..data import DataBunch
from ..learner import Learner
from .architecture import Arch, Architecture, as_architecture
from .body import Cut, create_body
from .image import ImageBlock
from .parameter_groups import split_model
from .transforms import Normalize
from .vision_model import VisionModel

__all__ = ["vision_learner"]


def vision_learner(data: DataBunch, arch: Arch, metrics: Any = None, pretrained: bool = True, cut: Cut = None,
                   splitter: Callable | None = None, custom_head: nn.Module | None = None, n_in: int = 3, n_out: int | None = None,
                   concat_pool: bool = True, ps: float | Sequence[float] = 0.5, lin_ftrs: Sequence[int] | None = None,
                   loss_func: Callable | None = None, opt_func: Callable = AdamW, lr: float = 1e-3,
                   cbs: Callback | Iterable[Callback] | None = None, wd: float | None = None, path: str | Path | None = None,
                   wd_bn_bias: bool = True) -> Learner:  # fmt: skip
    """A Learner whose model is the body of `arch` and a new head for the data's classes; pretrained bodies start frozen.

        learn = vision_learner(data, resnet34, metrics=accuracy)
        learn.fine_tune(3)

    `arch`: a torchvision builder, a timm name ('convnext_tiny'), one of `vision.models`, or any callable that returns an
    `nn.Module`. Images are normalised by the statistics that come with its weights, unless the data has a `Normalize` of its
    own. The first layer takes as many channels as the data's images have (`n_in` where the data does not say); `n_out`
    defaults to `data.c`. `cut` says where the body ends (a child's number, or `model -> body`); `concat_pool, ps, lin_ftrs`
    shape the head (see `create_head`), `custom_head` replaces it; `splitter(model)` replaces the three layer groups.
    """
    arch = as_architecture(arch)
    n_in, n_out = _channels(data, n_in), data.c if n_out is None else n_out
    spec = VisionModel(arch, n_out, n_in, cut, lin_ftrs, ps, concat_pool)
    model = spec.build(pretrained) if custom_head is None else nn.Sequential(create_body(arch, pretrained, cut, n_in), custom_head)
    learn = Learner(
        _normalised(data, arch, n_in, pretrained), model, loss_func, opt_func, lr, splitter or arch.split or split_model, cbs, metrics, path,
        wd=wd, wd_bn_bias=wd_bn_bias, model_spec=spec if custom_head is None else None,
    )  # fmt: skip
    if pretrained:
        learn.freeze()
    return learn


def _channels(data: DataBunch, n_in: int) -> int:
    """The channels of the data's images. Raises ValueError where `n_in` was given and says otherwise."""
    block = data.blocks[0] if data.blocks else None
    if not isinstance(block, ImageBlock):
        return n_in
    if n_in not in (3, block.channels):
        raise ValueError(f"n_in={n_in}, but the images have {block.channels} channels: leave n_in out, or change ImageBlock(mode=…).")
    return block.channels


def _normalised(data: DataBunch, arch: Architecture, n_in: int, pretrained: bool) -> DataBunch:
    """`data` with the normalisation that the weights of `arch` expect; a copy, since other learners may use the same data."""
    stats = arch.normalisation if data.blocks else None
    if stats is None:
        return data
    expected = Normalize(*_for_channels(stats, n_in))
    given = next((tfm for tfm in data.batch_tfms if isinstance(tfm, Normalize)), None)
    if given is None:
        return data.with_batch_tfms([*data.batch_tfms, expected])
    if pretrained and any(abs(a - b) > 0.01 for a, b in zip(given.mean + given.std, expected.mean + expected.std, strict=False)):
        warnings.warn(
            f"The data is normalised with {given}, but the weights of {arch.name} were trained with {expected}, which is used if the data "
            "has no Normalize. Leave it out, unless you mean it.",
            stacklevel=3,
        )
    return data


def _for_channels(stats: tuple[Sequence[float], Sequence[float]], n_in: int) -> list[tuple[float, ...]]:
    """Mean and std for `n_in` channels: their average for fewer than three; further channels stay in [0, 1]."""
    if n_in < 3:
        return [(sum(values) / len(values),) * n_in for values in stats]
    return [(*values, *(fill,) * (n_in - 3)) for values, fill in zip(stats, (0.0, 1.0), strict=True)]
