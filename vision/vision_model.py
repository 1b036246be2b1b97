"""The description of a whole vision model, from which it can be built again without the code that trained it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from ..data import DataBunch
from ..data.portable import Portable
from .architecture import Arch, as_architecture
from .body import Cut, create_body, output_shape
from .head import create_head
from .normalisation import Stats, normalised

__all__ = ["VisionModel"]


@dataclass
class VisionModel(Portable):
    """A body from `arch` and fast.ai's head on it; the fields are the arguments of `create_body` and `create_head`.

    `custom_head`, a module or a function that makes one, replaces that head. `normalisation` is the mean and std of
    each channel that the weights were trained with.

    >>> spec = describe(VisionModel(resnet34, n_out=2))    # JSON; a `cut` or `arch` of the user's own is named in it
    >>> model = restore(spec).build()                      # nn.Sequential(body, head), with random weights
    """

    arch: Arch
    n_out: int | None
    n_in: int = 3
    cut: Cut = None
    lin_ftrs: Sequence[int] | None = None
    ps: float | Sequence[float] = 0.5
    concat_pool: bool = True
    custom_head: Any = None
    normalisation: Stats | None = None
    y_range: Sequence[float] | None = None

    def __post_init__(self):
        self.arch = as_architecture(self.arch)
        if self.n_out is None and self.custom_head is None:
            raise ValueError("n_out=None: the number of outputs may be left open with a custom_head only.")
        if self.y_range is not None and self.custom_head is not None:
            raise ValueError("y_range is of the head that custom_head replaces: let that end within the range.")

    def build(self, pretrained: bool = False) -> nn.Sequential:
        """`nn.Sequential(body, head)`: (bs, n_in, h, w) to (bs, n_out). Only the body is ever pretrained.

        Its weights have the channels innermost, and so have all maps then, as fast convolutions want them.
        """
        body = create_body(self.arch, pretrained, self.cut, self.n_in)
        return nn.Sequential(body, self._head(body)).to(memory_format=torch.channels_last)

    def _head(self, body: nn.Module) -> nn.Module:
        if self.custom_head is not None:
            return self.custom_head if isinstance(self.custom_head, nn.Module) else self.custom_head()
        nf, *spatial = output_shape(body, self.n_in)
        n_out = cast(int, self.n_out)
        return create_head(
            nf, n_out, self.lin_ftrs, self.ps, self.concat_pool, pool=bool(spatial), y_range=self.y_range
        )

    def body(self, model: nn.Sequential) -> nn.Module:
        """The part of the model that may be pretrained."""
        return model[0]

    def prepare(self, data: DataBunch) -> DataBunch:
        """`data` normalised as the weights were trained; asked by the learner for all data that it is given."""
        return normalised(data, self.normalisation)
