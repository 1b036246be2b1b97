"""Object detection: torchvision's detectors in a Learner.

data = DataBlock((ImageBlock, BBoxBlock, BBoxLabelBlock), get_items=get_image_files, n_inp=1,
                 get_y=[boxes_of, labels_of], item_tfms=Resize(512, "pad")).databunch(path, bs=8)
learn = detection_learner(data, fcos_resnet50_fpn, metrics=MeanAveragePrecision())
learn.fine_tune(5)
boxes, labels, scores = learn.predict("street.jpg").decoded
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import AdamW

from ..callbacks import BnFreeze, Callback
from ..data import DataBunch
from .detection_model import DetectionModel, n_labels, split_detector
from .detection_results import DetectionLearner

__all__ = ["detection_learner"]


def detection_learner(data: DataBunch, arch: str | Callable[..., nn.Module], metrics: Any = None,
                      pretrained: bool = True, threshold: float = 0.5, splitter: Callable = split_detector,
                      opt_func: Callable = AdamW, lr: float = 1e-3,
                      cbs: Callback | Iterable[Callback] | None = None, wd: float | None = None,
                      path: str | Path | None = None, bn_freeze: bool = True) -> DetectionLearner:  # fmt: skip
    """A Learner of a detector for the data's labels; pretrained ones have seen COCO, and their backbone starts frozen.

    `data` is from a `DataBlock((ImageBlock, BBoxBlock, BBoxLabelBlock), n_inp=1, …)`. `arch` is a builder of
    `torchvision.models.detection` (Faster R-CNN, RetinaNet, FCOS, SSD), its name, or a function of yours `(num_classes)
    -> net` that returns one of these and may take `pretrained`, too. Detectors normalise images by themselves.
    Validation gives the loss, its parts, and `metrics`, such as `MeanAveragePrecision()`. `threshold` is the score from
    which on an object is told. With `bn_freeze` a pretrained backbone keeps the statistics of its BatchNorm layers,
    which those of a few big images would replace (see `BnFreeze`).

    torchvision's weights were trained on images of 800 pixels, so the smaller yours are, the more there is to learn;
    the SSDs bring any image to 300 or 320.
    """
    spec = DetectionModel(arch, n_labels(data), threshold)
    model = spec.build(pretrained)
    learn = DetectionLearner(data, model, None, opt_func, lr, splitter, cbs, path=path, wd=wd, model_spec=spec)
    learn.metrics = metrics
    if pretrained:
        learn.freeze()
    if pretrained and bn_freeze:
        learn.add_cb(BnFreeze(model.net.backbone))  # type: ignore[arg-type]
    return learn
