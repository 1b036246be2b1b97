"""The description of a detector, from which it is built again: one of torchvision's, or of your own, and its labels.

>>> spec = describe(DetectionModel(retinanet_resnet50_fpn_v2, n_out=4))     # JSON
>>> model = restore(spec).build()                                           # a Detector with random weights
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torchvision
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ..data import DataBunch
from ..data.portable import Portable, portable
from .boxes import BBoxBlock, BBoxLabelBlock
from .detection_results import DetectionLearner
from .detector import Detector
from .image import ImageBlock
from .normalisation import given_stats
from .parameter_groups import ParameterGroups, split_body
from .torchvision_models import downloading

__all__ = ["DetectionModel", "n_labels", "split_detector"]

BLOCKS = "blocks=(ImageBlock, BBoxBlock, BBoxLabelBlock), n_inp=1"
ZERO_EPS = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")  # COCO weights that BatchNorm adds no eps to


@dataclass
class DetectionModel(Portable):
    """A detector `arch` for `n_out` labels, of which the first is no object; it tells what it finds above `threshold`.

    `arch` is a builder of torchvision (`fcos_resnet50_fpn`) or its name, or a function of yours `(num_classes) -> net`
    that may take `pretrained`, too. Raises ValueError for a name that torchvision lacks, TypeError for a network that
    is built already.
    """

    arch: str | Callable[..., nn.Module]
    n_out: int
    threshold: float = 0.5

    learner: ClassVar[type] = DetectionLearner  # what an exported file is loaded as

    def __post_init__(self):
        self.arch = _named(self.arch)

    def build(self, pretrained: bool = False) -> Detector:
        """The detector, with random weights or with those trained on COCO, except for layers that depend on the labels.

        torchvision's see images in the size that the data has them in (an SSD brings them to its own), your own in the
        one that it says. Raises ConnectionError where the weights cannot be downloaded, ValueError where a function of
        yours has none.
        """
        if not isinstance(self.arch, str):
            return Detector(_build_own(self.arch, self.n_out, pretrained), self.threshold)
        build = torchvision.models.get_model_builder(self.arch)
        net = build(weights=None, weights_backbone=None, num_classes=self.n_out)
        if pretrained:
            _load_fitting(net, _coco_weights(self.arch))
        if not isinstance(net, SSD):
            net.transform = _as_given(net.transform)
        return Detector(net, self.threshold)

    def prepare(self, data: DataBunch) -> DataBunch:
        """`data` itself. Raises ValueError for data that this detector cannot work with."""
        if n_labels(data) != self.n_out:
            raise ValueError(
                f"The detector tells {self.n_out} labels apart, and the data has {n_labels(data)}, {data.vocab}: give "
                "its BBoxLabelBlock the vocab that the detector was made for, or make another detector."
            )
        if stats := given_stats(data):
            raise ValueError(
                f"The data is normalised by {stats}, and a detector normalises images by itself: leave Normalize out."
            )
        return data


def n_labels(data: DataBunch) -> int:
    """How many labels a detector has to know, #na# included. Raises ValueError where the data has no boxes for one."""
    _check_blocks([*data.blocks])
    return len(data.vocab or ())


@portable
def split_detector(model: Detector) -> ParameterGroups:
    """Groups of a detector: the first and the second half of its backbone's body, and what comes after that."""
    backbone = cast(nn.Module, model.net.backbone)
    body = getattr(backbone, "body", getattr(backbone, "features", backbone))
    groups = split_body(body)
    ids = {id(p) for group in groups for p in group}
    return [group for group in [*groups, [p for p in model.parameters() if id(p) not in ids]] if group]


def _named(arch: Any) -> Any:
    """torchvision's builders by their names, others as they are."""
    names = torchvision.models.list_models(module=torchvision.models.detection)
    if isinstance(arch, str):
        if arch not in names:
            raise ValueError(f"torchvision has no detector {arch!r}, but {', '.join(names)}.")
        return arch
    if isinstance(arch, nn.Module) or not callable(arch):
        raise TypeError(
            f"arch is a function that builds a detector (fcos_resnet50_fpn, not fcos_resnet50_fpn()), not {arch!r:.60}."
        )
    name = getattr(arch, "__name__", "")
    return name if name in names and torchvision.models.get_model_builder(name) is arch else arch


def _build_own(arch: Callable[..., nn.Module], n_out: int, pretrained: bool) -> nn.Module:
    name, known = getattr(arch, "__name__", arch), inspect.signature(arch).parameters
    if "num_classes" not in known:
        raise ValueError(f"{name} takes no `num_classes`: it has to build a detector for so many labels, with #na#.")
    if "pretrained" in known:
        return arch(num_classes=n_out, pretrained=pretrained)
    if pretrained:
        raise ValueError(
            f"{name} takes no `pretrained`, so pretrained=True would be ignored: pass pretrained=False (a function may "
            "well load weights by itself)."
        )
    return arch(num_classes=n_out)


def _coco_weights(name: str) -> dict[str, Tensor]:
    """The weights of the detector `name` trained on COCO, for BatchNorm layers with PyTorch's eps."""
    weights = cast(Any, torchvision.models.get_model_weights(name)).DEFAULT
    with downloading(name, weights.url):
        state = weights.get_state_dict(progress=True, check_hash=True)
    if name in ZERO_EPS:  # 1 / sqrt(var + eps) of a variance less eps is what they were trained with
        eps = nn.BatchNorm2d(1).eps
        state = {key: value - eps if key.endswith("running_var") else value for key, value in state.items()}
    return dict(state)


def _load_fitting(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what has the shape that `net` has; the layers that tell labels apart have another."""
    own = net.state_dict()
    net.load_state_dict({k: v for k, v in state.items() if k in own and v.shape == own[k].shape}, strict=False)


class _KeptSize(GeneralizedRCNNTransform):
    """Normalises images, and leaves them in their size."""

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        return image, target


def _as_given(transform: Any) -> _KeptSize:
    mean, std = transform.image_mean, transform.image_std
    return _KeptSize(transform.min_size, transform.max_size, mean, std, transform.size_divisible)


def _check_blocks(blocks: list[Any]) -> None:
    kinds = [type(block) for block in blocks]
    if len(blocks) != 3 or not all(map(issubclass, kinds, (ImageBlock, BBoxBlock, BBoxLabelBlock))):
        found = ", ".join(kind.__name__ for kind in kinds) or "none"
        raise ValueError(f"A detector needs data from a DataBlock of {BLOCKS}; the data's blocks are: {found}.")
    if blocks[0].channels not in (1, 3):
        raise ValueError(f"A detector takes images of 3 channels, or 1, not {blocks[0].channels}: ImageBlock('RGB').")
    if not blocks[2].add_na:
        raise ValueError(
            "For a detector label 0 is no object, so the vocabulary needs a place for that: leave out add_na=False."
        )
