"""A detector of torchvision as a system: it says itself what a training step is, a validation step, and a prediction.

    model = Detector(fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4))
    boxes, labels, scores = model.eval()(images)       # (bs, n, 4) in -1…1, (bs, n), (bs, n)

Boxes go in and come out as `BBoxBlock` has them, labels as `BBoxLabelBlock` has them: 0 is no object.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD

from ..data.randomness import seeded_generators
from .positions import Canvas, is_empty, to_pixels, to_relative

__all__ = ["Detections", "Detector"]

NETWORKS = (FCOS, GeneralizedRCNN, RetinaNet, SSD)
PARTS = (*NETWORKS, RegionProposalNetwork, RoIHeads)  # which ask their own `training` whether to compute losses
Found = dict[str, Tensor]  # of an image, as torchvision has it: "boxes" (n, 4) in pixels, "labels" (n,), "scores" (n,)


class Detections(NamedTuple):
    """What was found, likeliest first: `boxes` `(n, 4)`, `labels` `(n,)` and `scores` `(n,)`, from 0 to 1.

    Of a batch they are `(bs, n, …)`, n what the network finds at most, filled up with zeros.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


class Detector(nn.Module):
    """Wraps `net`, an FCOS, Faster R-CNN, RetinaNet or SSD, also one of your own that derives from these.

    Called with images `(bs, 3, h, w)` in [0, 1] in evaluation mode, it gives the `Detections` whose score is above
    `threshold`. In validation all that `net` finds is returned, since a precision-recall curve needs the unlikely ones.

    Raises TypeError for another network, ValueError for one that wants masks or key points, too.
    """

    log_dict: Callable[[dict[str, Tensor]], None]  # lent by the learner

    def __init__(self, net: nn.Module, threshold: float = 0.5):
        super().__init__()
        _check_network(net)
        self.net, self.threshold = net, threshold

    def forward(self, images: Tensor) -> Detections:
        return self._batched(self.net([*images]), images.shape[-2:], self.threshold)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, boxes, labels = batch
        losses = self.net([*images], _targets(boxes, labels, images.shape[-2:]))
        return torch.stack([*losses.values()]).sum()

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> dict:
        """The loss and all `Detections` under "preds". The loss's parts are logged, `valid_bbox_regression` say.

        Losses are computed as in training, but for BatchNorm and dropout, which evaluate. Where a network draws
        examples at random, it draws the same ones in each validation.
        """
        images, boxes, labels = batch
        listed, targets = [*images], _targets(boxes, labels, images.shape[-2:])
        with _one_backbone_pass(self.net):
            with _giving_losses(self.net), seeded_generators(0, images.device):
                losses = self.net(listed, targets)
            found = self.net(listed)
        self.log_dict({f"valid_{name.removeprefix('loss_')}": value for name, value in losses.items()})
        preds = self._batched(found, images.shape[-2:], threshold=0.0)
        return {"loss": torch.stack([*losses.values()]).sum(), "preds": preds}

    def _batched(self, found: Sequence[Found], canvas: Sequence[int], threshold: float) -> Detections:
        """What is likely enough, in as many rows for every batch, so that batches can be joined."""
        n_rows: Any = getattr(self.net, "roi_heads", self.net).detections_per_img
        kept = [_relative(_kept(one, threshold), canvas) for one in found]
        columns = zip(*kept, strict=True)
        return Detections(*(torch.stack([_filled_up(rows, n_rows) for rows in column]) for column in columns))


def _check_network(net: nn.Module) -> None:
    if not isinstance(net, NETWORKS):
        names = ", ".join(kind.__name__ for kind in NETWORKS)
        raise TypeError(
            f"A detector is one of torchvision's, or derives from one of them ({names}); got {type(net).__name__}. "
            "Give any other network a training_step, and it trains with a Learner by itself."
        )
    heads = getattr(net, "roi_heads", None)
    if getattr(heads, "has_mask", bool)() or getattr(heads, "has_keypoint", bool)():
        raise ValueError(f"{type(net).__name__} is trained with masks or key points, too: take a Faster R-CNN.")


def _targets(boxes: Tensor, labels: Tensor, canvas: Sequence[int]) -> list[Found]:
    """The boxes and labels of each image, those that are some."""
    pixels, there = to_pixels(boxes, _canvas(canvas)), ~is_empty(boxes)
    rows = zip(pixels, labels, there, strict=True)
    return [{"boxes": box[mask], "labels": label[mask]} for box, label, mask in rows]


def _canvas(size: Sequence[int]) -> Canvas:
    return size[0], size[1]


@contextmanager
def _giving_losses(net: nn.Module) -> Iterator[None]:
    """Inside, a network in evaluation mode computes losses; its layers evaluate all the same."""
    parts = [module for module in net.modules() if isinstance(module, PARTS)]
    for part in parts:
        part.training = True
    try:
        yield
    finally:
        for part in parts:
            part.training = False


@contextmanager
def _one_backbone_pass(net: nn.Module) -> Iterator[None]:
    """Inside, the backbone computes the features of one batch, once, however often it is asked."""
    backbone = cast(nn.Module, net.backbone)
    compute, features = backbone.forward, []

    def remembered(images: Tensor) -> object:
        features[:] = features or [compute(images)]
        return features[0]

    backbone.forward = remembered
    try:
        yield
    finally:
        del backbone.forward


def _kept(found: Found, threshold: float) -> Found:
    """What is likely enough, is an object and has an area."""
    kept = (found["scores"] > threshold) & (found["labels"] > 0) & ~is_empty(found["boxes"])
    return {name: found[name][kept] for name in Detections._fields}


def _relative(found: Found, canvas: Sequence[int]) -> Detections:
    return Detections(to_relative(found["boxes"], _canvas(canvas)), found["labels"], found["scores"])


def _filled_up(rows: Tensor, n: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(n - len(rows), *rows.shape[1:])])
