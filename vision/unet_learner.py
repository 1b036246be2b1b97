"""Transfer learning for pictures of pictures: a class for each pixel, or another image.

data = DataBlock((ImageBlock, MaskBlock(codes, void="Void")), get_items=get_image_files, get_y=mask_of,
                 item_tfms=Resize((240, 320)), batch_tfms=aug_transforms()).databunch(path, bs=8)
learn = unet_learner(data, resnet34, metrics=DiceMulti(ignore_index=11))
learn.fine_tune(6)
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch.optim import AdamW

from ..callbacks import Callback
from ..data import DataBunch
from ..learner import Learner
from .architecture import Arch, as_architecture
from .body import Cut
from .learner import channels_of, frozen
from .normalisation import for_channels, given_stats
from .unet import Norm
from .unet_model import UnetModel

__all__ = ["unet_learner"]


def unet_learner(data: DataBunch, arch: Arch, metrics: Any = None, pretrained: bool = True, cut: Cut = None,
                 splitter: Callable | None = None, n_in: int = 3, n_out: int | None = None,
                 self_attention: bool = False, blur: bool = False, loss_func: Callable | None = None,
                 opt_func: Callable = AdamW, lr: float = 1e-3, cbs: Callback | Iterable[Callback] | None = None,
                 wd: float | None = None, path: str | Path | None = None, wd_bn_bias: bool = True,
                 bn_freeze: bool = True, blur_final: bool = True, y_range: Sequence[float] | None = None,
                 last_cross: bool = True, bottle: bool = False, norm: Norm = "batch",
                 train_bn: bool = False) -> Learner:  # fmt: skip
    """A Learner of a `DynamicUnet` around the body of `arch`; a pretrained body starts frozen.

    For masks (`MaskBlock`: one output for each of its codes, cross-entropy without void pixels), for images
    (`ImageBlock` as target: an output for each of its channels, mean squared error), or for what `n_out` and
    `loss_func` say. Predictions have the size of the input. Input images are normalised as the weights expect, target
    images stay in [0, 1]: a `y_range` should leave some room around that, (-0.1, 1.1), since a sigmoid stops learning
    near its ends.

    `arch`, `pretrained`, `cut`, `n_in`, `splitter`, `bn_freeze` and `train_bn` as in `vision_learner`;
    `self_attention, blur, blur_final, y_range, last_cross, bottle, norm` as in `DynamicUnet`.
    """
    arch, n_in = as_architecture(arch), channels_of(data, n_in)
    n_out = data.c if n_out is None else n_out
    expected = for_channels(arch.normalisation, n_in)
    spec = UnetModel(
        arch, n_out, n_in, cut, blur, blur_final, self_attention, y_range, last_cross, bottle, norm, expected
    )
    if pretrained:
        spec.prepare(data)  # warns where the data is normalised in another way
    spec.normalisation = given_stats(data) or expected
    learn = Learner(
        data, spec.build(pretrained), loss_func, opt_func, lr, splitter or spec.split, cbs, metrics, path,
        wd=wd, wd_bn_bias=wd_bn_bias, model_spec=spec,
    )  # fmt: skip
    return frozen(learn, bn_freeze, train_bn) if pretrained else learn
