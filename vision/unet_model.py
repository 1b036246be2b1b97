"""The description of a whole U-Net, from which it can be built again without the code that trained it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..data import DataBunch
from ..data.portable import Portable
from .architecture import Arch, as_architecture
from .body import Cut, create_body
from .normalisation import Stats, normalised
from .parameter_groups import ParameterGroups, split_model
from .unet import DynamicUnet, Norm

__all__ = ["UnetModel"]


@dataclass
class UnetModel(Portable):
    """A body from `arch` and the decoder of a `DynamicUnet`; the fields are the arguments of these two.

    `normalisation` is the mean and std of each channel that the weights were trained with.

    >>> spec = describe(UnetModel(resnet34, n_out=12))     # JSON; a `cut` or `arch` of the user's own is named in it
    >>> model = restore(spec).build()                      # a DynamicUnet with random weights
    """

    arch: Arch
    n_out: int
    n_in: int = 3
    cut: Cut = None
    blur: bool = False
    blur_final: bool = True
    self_attention: bool = False
    y_range: Sequence[float] | None = None
    last_cross: bool = True
    bottle: bool = False
    norm: Norm = "batch"
    normalisation: Stats | None = None

    def __post_init__(self):
        self.arch = as_architecture(self.arch)

    def build(self, pretrained: bool = False) -> DynamicUnet:
        """(bs, n_in, h, w) to (bs, n_out, h, w). Only the body is ever pretrained."""
        body = create_body(self.arch, pretrained, self.cut, self.n_in)
        unet = DynamicUnet(body, self.n_out, None, self.blur, self.blur_final, self.self_attention, self.y_range,
                           self.last_cross, self.bottle, self.norm, self.n_in)  # fmt: skip
        return unet.to(memory_format=torch.channels_last)  # for speed, as in `VisionModel`

    def body(self, model: DynamicUnet) -> nn.Module:
        """The part of the model that may be pretrained."""
        return model.body

    def split(self, model: DynamicUnet) -> ParameterGroups:
        """The groups that the architecture makes of (body, decoder); else early layers, late layers, decoder."""
        split = as_architecture(self.arch).split or split_model
        return split(nn.Sequential(model.body, model.decoder))

    def prepare(self, data: DataBunch) -> DataBunch:
        """`data` normalised as the weights were trained; asked by the learner for all data that it is given."""
        return normalised(data, self.normalisation)
