"""What a segmentation model gets wrong: classes taken for others, counted in pixels, and where in the images.

interp = SegmentationInterpretation.from_learner(learn)
interp.per_class()                               # IoU, Dice, accuracy … of each class
interp.most_confused()[:5]
interp.plot_top_losses(4)                        # image, mask, prediction, and what of it is wrong
"""

from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..callbacks import Callback
from ..data.loaders import DeviceLoader
from ..learner.confusion import confusion_of, draw_confusion, most_confused
from ..learner.inference import answers
from ..learner.interpretation import Interpretation, Shown
from .image import show_image
from .masks import MaskBlock

__all__ = ["SegmentationInterpretation"]

WRONG, VOID = (1.0, 0.05, 0.2, 0.85), (0.5, 0.5, 0.5, 0.85)  # red, green, blue and opacity over an image


class SegmentationInterpretation(Interpretation):
    """For a mask per image: which classes are taken for which, counted over all pixels but void.

    The pixels are counted on the device batch by batch, so that a set of any size fits in memory. Raises TypeError for
    other targets than one `MaskBlock`.
    """

    counts: Tensor

    def __init__(self, learn: Any, dl: DeviceLoader, losses: Tensor, outputs: Any = None, targs: Any = None):
        super().__init__(learn, dl, losses, outputs, targs)
        self.block = _mask_block(learn)

    @classmethod
    def from_learner(
        cls, learn: Any, split: Literal["valid", "train"] = "valid", dl: Any = None
    ) -> "SegmentationInterpretation":
        """Predict a set of the learner's data, or a labelled loader: `dl=data.test_dl(items, with_labels=True)`."""
        pixels = _CountPixels(_mask_block(learn).ignore_index)
        with learn.added_cbs(pixels):
            interp = super().from_learner(learn, split, dl)
        interp.counts = pixels.total(learn.ranks)
        return interp

    @property
    def vocab(self) -> list:
        """The names of the classes."""
        return [self.block.code(number) for number in range(len(self.counts))]

    def confusion_matrix(self) -> np.ndarray:
        """`(c, c)` numbers of pixels: rows are the actual classes, columns the predicted ones.

        Pixels whose target is void are not counted: where void is a class its row is 0, and its column has the pixels
        that were taken for it.
        """
        return self.counts.numpy()

    def plot_confusion_matrix(self, normalize: bool = True) -> None:
        """Draw the confusion matrix, as shares of each actual class, or without `normalize` as numbers of pixels."""
        draw_confusion(self.confusion_matrix(), self.vocab, normalize)

    def most_confused(self, min_val: int = 1) -> list[tuple[Any, Any, int]]:
        """`(actual, predicted, pixels)` of each pair of classes confused in so many pixels, most often first."""
        return most_confused(self.confusion_matrix(), self.vocab, min_val)

    def per_class(self) -> pd.DataFrame:
        """A row for each class but void: `iou`, `dice`, `accuracy` (the share of its pixels that is found), `precision`
        (of the pixels said to be it, those that are), and its `pixels`; NaN where there are none to divide by.
        """
        counts = self.confusion_matrix().astype(float)
        right, actual, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is meant
            columns = {
                "iou": right / (actual + predicted - right),
                "dice": 2 * right / (actual + predicted),
                "accuracy": right / actual,
                "precision": right / predicted,
            }
        table = pd.DataFrame({**columns, "pixels": actual.astype(int)}, index=pd.Index(self.vocab))
        kept = [number for number in range(len(counts)) if number != self.block.ignore_index]
        return table.iloc[kept]

    def accuracy(self) -> float:
        """The share of pixels whose class is right, without void."""
        return float(self.counts.diag().sum() / self.counts.sum())

    def _show(self, shown: list[Shown]) -> None:
        """A row for each image: itself, its mask, what was predicted, and in red where that is wrong."""
        from matplotlib import pyplot as plt

        names = ["image", "target", "prediction", "wrong in red, void in grey"]
        _, axes = plt.subplots(len(shown), 4, figsize=(12, 2.9 * len(shown)), squeeze=False, layout="compressed")
        for row, item in zip(axes, shown, strict=True):
            for ax, name in zip(row, names, strict=True):
                show_image(item.sample[0], ax, name)
            self._draw_row(row, item)

    def _draw_row(self, row: Any, shown: Shown) -> None:
        target, answer = shown.sample[-1], shown.prediction.decoded
        void = torch.zeros_like(target, dtype=torch.bool) if (v := self.block.ignore_index) is None else target == v
        wrong = (answer != target) & ~void
        share = wrong.sum() / (~void).sum().clamp(min=1)
        row[0].set_title(f"loss {shown.loss:.2f}, {share:.0%} wrong", fontsize=10)
        self.block.draw(target, row[1])
        self.block.draw(answer, row[2])
        pixels = np.zeros((*target.shape, 4))
        pixels[wrong.numpy()], pixels[void.numpy()] = WRONG, VOID
        row[3].imshow(pixels, extent=row[3].images[0].get_extent(), interpolation="nearest")


def _mask_block(learn: Any) -> MaskBlock:
    targets = learn.data.targets
    if len(targets) != 1 or not isinstance(targets[0], MaskBlock):
        names = [type(block).__name__ for block in targets]
        raise TypeError(
            f"SegmentationInterpretation needs data from a DataBlock with one MaskBlock as target, not {names}: for "
            "other targets use Interpretation."
        )
    return targets[0]


class _CountPixels(Callback):
    """Counts in a validation which classes are taken for which, on the device."""

    def __init__(self, ignore_index: int | None):
        self.ignore_index = ignore_index
        self.counts: Tensor | None = None

    def after_batch(self, learn: Any) -> None:
        if not learn.yb:
            return
        answer, targ = answers(learn, learn.pred), learn.yb[0]
        if answer.shape != targ.shape:
            raise ValueError(
                f"The model's answers {tuple(answer.shape)} are no masks {tuple(targ.shape)}, as the targets are: is "
                "the output (bs, c, h, w), and does the loss decode it to classes, as CrossEntropyLoss(axis=1) does?"
            )
        counts = confusion_of(targ, answer, learn.pred.shape[1], self.ignore_index)
        self.counts = counts if self.counts is None else self.counts + counts

    def total(self, ranks: Any) -> Tensor:
        """The counts of all processes, on the CPU."""
        parts = [part for part in ranks.gather(None if self.counts is None else self.counts.cpu()) if part is not None]
        return torch.stack(parts).sum(0)
