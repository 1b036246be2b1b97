"""How good detections are: COCO's mean average precision.

learn = detection_learner(data, fcos_resnet50_fpn, metrics=MeanAveragePrecision(data.vocab))
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..learner.metrics import StatefulMetric
from .positions import is_empty

__all__ = ["MeanAveragePrecision"]

MISSING = 'MeanAveragePrecision needs torchmetrics and pycocotools: pip install "warmstart[detection]".'


@dataclass(eq=False)
class MeanAveragePrecision(StatefulMetric):
    """Area under the precision-recall curve, averaged over labels: `map` (IoU 0.5 to 0.95), `map_50` and `map_75`.

    As COCO computes it (Lin et al. 2014, arXiv:1405.0312; at most 100 boxes for an image), by torchmetrics. With
    `vocab`, the data's labels, there is one more number for each label that occurs, `map_cat` say. Nothing depends on
    the size of images, so that boxes are compared in -1…1. A label that no target has does not count; without any
    target the value is nan.

    Raises ImportError where torchmetrics or pycocotools is missing.
    """

    vocab: Sequence[Any] | None = None
    iou_thresholds: Sequence[float] | None = None

    def __post_init__(self):
        super().__post_init__()
        if not all(map(importlib.util.find_spec, ("torchmetrics", "pycocotools"))):
            raise ImportError(MISSING)

    @torch.no_grad()
    def update(self, pred: Any, boxes: Tensor, labels: Tensor) -> None:  # type: ignore[override]  # two targets
        """Take in a batch: `Detections`, or what holds them under "preds", target boxes `(bs, n, 4)` and labels."""
        super().update(pred["preds"] if isinstance(pred, Mapping) else pred, (boxes, labels))  # type: ignore[arg-type]

    def measure(self, pred: Sequence[Tensor], targ: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """The batch as it is: to leave out what fills it up would mean to wait for the device."""
        return [tuple(value.detach().clone() for value in (*pred, *targ))]

    def score(self, state: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:  # type: ignore[override]  # several numbers
        from torchmetrics.detection import MeanAveragePrecision as Theirs

        metric = Theirs(iou_thresholds=_as_list(self.iou_thresholds), class_metrics=self.vocab is not None)
        metric.warn_on_many_detections = False
        for boxes, labels, scores, *targ in state:
            found = _by_image(boxes=boxes, labels=labels, scores=scores)
            metric.update(found, _by_image(**dict(zip(("boxes", "labels"), targ, strict=True))))
        result = metric.compute()
        means = {name: _or_nan(result[name]) for name in ("map", "map_50", "map_75")}
        return means | self._by_label(result)

    def _by_label(self, result: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.vocab is None:
            return {}
        values = zip(result["classes"].reshape(-1).tolist(), result["map_per_class"].reshape(-1), strict=True)
        return {f"map_{self.vocab[label]}": value for label, value in values if value >= 0}


def _as_list(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [*values]


def _or_nan(value: Tensor) -> Tensor:
    return value.where(value >= 0, torch.nan)  # -1 stands for none


def _by_image(**columns: Tensor) -> list[dict[str, Tensor]]:
    """The values of each image by name, without what fills up the batch."""
    there = ~is_empty(columns["boxes"])
    return [{name: values[i][mask] for name, values in columns.items()} for i, mask in enumerate(there)]
