"""The description of a whole vision model, from which it can be built again without the code that trained it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..data.portable import Portable
from .architecture import Arch, as_architecture
from .body import Cut, create_body, output_shape
from .head import create_head
from .parameter_groups import ParameterGroups, split_model

__all__ = ["VisionModel"]


@dataclass
class VisionModel(Portable):
    """A body from `arch` and fast.ai's head on it; the fields are the arguments of `create_body` and `create_head`.

    >>> spec = describe(VisionModel(resnet34, n_out=2))    # JSON; a `cut` or `arch` of the user's own is named in it
    >>> model = restore(spec).build()                      # nn.Sequential(body, head), with random weights
    """

    arch: Arch
    n_out: int
    n_in: int = 3
    cut: Cut = None
    lin_ftrs: Sequence[int] | None = None
    ps: float | Sequence[float] = 0.5
    concat_pool: bool = True

    def __post_init__(self):
        self.arch = as_architecture(self.arch)

    def build(self, pretrained: bool = False) -> nn.Sequential:
        """`nn.Sequential(body, head)`: (bs, n_in, h, w) to (bs, n_out). Only the body is ever pretrained."""
        body = create_body(self.arch, pretrained, self.cut, self.n_in)
        nf, *spatial = output_shape(body, self.n_in)
        head = create_head(nf, self.n_out, self.lin_ftrs, self.ps, self.concat_pool, pool=bool(spatial))
        return nn.Sequential(body, head)

    def split(self, model: nn.Sequential) -> ParameterGroups:
        """The parameter groups of a model that was built here: the architecture's own, else three by depth."""
        splitter = as_architecture(self.arch).split or split_model
        return splitter(model)
