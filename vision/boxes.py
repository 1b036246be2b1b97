"""Boxes in an image and their labels: any number for each image, padded in a batch, drawn with their names.

block = DataBlock((ImageBlock, BBoxBlock, BBoxLabelBlock), get_items=get_image_files,
                  get_y=[boxes_of, labels_of],                      # [[x1, y1, x2, y2], …] and ["cat", …]
                  item_tfms=Resize(224, "pad"), batch_tfms=aug_transforms())
learn = Learner(data, detector, loss_func=my_loss)                  # my_loss(pred, boxes, labels)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.tv_tensors import BoundingBoxes

from ..data.blocks import NA, Block, CategoryBlock
from ..data.randomness import Randomness
from ..data.transforms import Transform
from .drawing import PRED, TARGET, legend
from .positions import as_boxes, is_empty
from .targets import LEAST, PlaceOnImage, SetCanvas, ToRelative, labels_of_boxes

__all__ = ["BBoxBlock", "BBoxLabelBlock", "BlankLabels", "DropVanished"]

NO_LABEL = -100  # fills up the labels of a batch where there is no #na#: losses ignore it


@dataclass
class DropVanished(Transform):
    """Leave out boxes of which augmentation left less than a pixel's width or height, and their labels; for an item."""

    order: ClassVar[int] = 1000

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        values = list(sample)
        labels = dict(labels_of_boxes(sample))
        for number, boxes in enumerate(sample):
            if isinstance(boxes, BoundingBoxes) and (gone := is_empty(boxes, LEAST)).any():
                values[number] = as_boxes(boxes.as_subclass(Tensor)[~gone], boxes.canvas_size)
                if number in labels:
                    values[labels[number]] = sample[labels[number]][~gone]
        return tuple(values)


@dataclass
class BlankLabels(Transform):
    """Labels of a batch where there is no box, be it that it vanished in augmentation, become `label`."""

    label: int

    order: ClassVar[int] = 201  # after ToRelative, which makes such boxes zeros

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        values = list(sample)
        for boxes, labels in labels_of_boxes(sample):
            values[labels] = sample[labels].masked_fill(is_empty(sample[boxes]), self.label)
        return tuple(values)

    def decode(self, sample: tuple) -> tuple:
        """Boxes whose label says that they are none (as a model may predict) made zeros."""
        values = list(sample)
        for boxes, labels in labels_of_boxes(sample):
            is_none = (sample[labels] == self.label)[..., None]
            values[boxes] = as_boxes(sample[boxes].as_subclass(Tensor).masked_fill(is_none, 0), (0, 0))
        return tuple(values)


@dataclass
class BBoxBlock(Block):
    """Boxes x1, y1, x2, y2 of the image before it, in pixels, encoded as `tv_tensors.BoundingBoxes` float32 `(n, 4)`.

    (0, 0) is the image's upper left corner and (w, h) its lower right one. A batch is `(bs, n, 4)`, -1…1 of the image,
    filled up with boxes of zeros: that is no box. A turned box becomes the one around its corners; what leaves the
    image is cut off, and boxes of less than a pixel are left out (in a batch, made zeros) together with their labels.
    A model needs a loss of yours, `loss(pred, boxes)` or `loss(pred, boxes, labels)`.

    Raises ValueError for boxes whose x2 or y2 is not larger than x1 or y1, and for boxes outside of their image.
    """

    learns: ClassVar[bool] = True  # nothing, but so all boxes are checked before training
    is_spatial: ClassVar[bool] = True
    item_tfms: ClassVar[Sequence[Transform]] = (PlaceOnImage(), DropVanished())
    batch_tfms: ClassVar[Sequence[Transform]] = (SetCanvas(), ToRelative())

    def encode(self, value: Any) -> BoundingBoxes:
        try:
            boxes = torch.as_tensor(np.asarray(value, np.float32))
        except (TypeError, ValueError):
            raise TypeError(f"BBoxBlock needs a list of boxes [[x1, y1, x2, y2], …], got {value!r}") from None
        boxes = boxes.reshape(-1, 4) if not boxes.numel() or boxes.shape == (4,) else boxes
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes are (n, 4), x1, y1, x2, y2 of each; got {tuple(boxes.shape)}")
        if (wrong := is_empty(boxes) | ~boxes.isfinite().all(-1)).any():
            which = int(wrong.nonzero()[0])
            numbers = ", ".join(f"{number:g}" for number in boxes[which].tolist())
            raise ValueError(
                f"box {which} ({numbers}) has no width or height: boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2. "
                "Of x, y, width, height make x, y, x + width, y + height in get_y; leave out boxes without an area."
            )
        return as_boxes(boxes, (0, 0))

    def collate(self, values: Sequence[Tensor]) -> Tensor:
        """`(bs, n, 4)`, n of the most boxes, the rest zeros."""
        return pad_sequence([value.as_subclass(Tensor) for value in values], batch_first=True)

    def wrap(self, batch: Tensor) -> BoundingBoxes:
        return as_boxes(batch, (0, 0))

    def decode(self, encoded: Tensor) -> Tensor:
        """The boxes `(n, 4)` that are some, in pixels of the image as the model sees it."""
        return encoded[(encoded[:, :2] != encoded[:, 2:]).any(-1)]

    def text(self, value: Tensor) -> str:
        return " ".join("(" + ", ".join(f"{x:.4g}" for x in box) + ")" for box in value.tolist())

    def draw(self, value: Tensor, ax: Any) -> None:
        """Draw boxes, in pixels of the image that `ax` has."""
        self._rectangles(value, ax, TARGET, "target")

    def draw_result(self, target: Tensor, pred: Tensor, ax: Any) -> None:
        """Draw target and prediction in two colours."""
        self._rectangles(target, ax, TARGET, "target")
        self._rectangles(pred, ax, PRED, "prediction")
        legend(ax, _one_of_each(ax.patches))

    @staticmethod
    def _rectangles(boxes: Tensor, ax: Any, colour: str, label: str) -> None:
        from matplotlib.patches import Rectangle

        for x1, y1, x2, y2 in boxes.tolist():  # matplotlib has the middle of the first pixel at (0, 0)
            place = (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1
            ax.add_patch(Rectangle(*place, fill=False, edgecolor=colour, linewidth=1.2, label=label))


def _one_of_each(patches: Iterable[Any]) -> list[Any]:
    """The first patch of each label."""
    return list({patch.get_label(): patch for patch in reversed(list(patches))}.values())[::-1]


@dataclass
class BBoxLabelBlock(Block):
    """A label for each of the boxes of the `BBoxBlock` right before it, encoded as indices, int64 `(n,)`.

    `vocab` is learned from the training items where it is not given. With `add_na` index 0 is '#na#', which fills up
    the labels of a batch `(bs, n)` and stands for boxes that vanished; without, that is -100, which losses ignore.
    Raises ValueError for a label outside of the vocabulary, and for more or fewer labels than boxes.
    """

    vocab: list | None = None
    add_na: bool = True

    learns: ClassVar[bool] = True

    def __post_init__(self):
        if self.vocab is not None:
            self.vocab = CategoryBlock(self.vocab, add_na=self.add_na).vocab

    @property
    def batch_tfms(self) -> Sequence[Transform]:  # type: ignore[override]  # which depends on `add_na`
        return (BlankLabels(self._no_label),)

    @property
    def _no_label(self) -> int:
        return 0 if self.add_na else NO_LABEL

    @property
    def n_out(self) -> int | None:
        return None if self.vocab is None else len(self.vocab)

    def setup(self, values: Sequence[Any]) -> "BBoxLabelBlock":
        if self.vocab is not None:
            return self
        learned = CategoryBlock(add_na=self.add_na).setup([label for value in values for label in _as_list(value)])
        return replace(self, vocab=learned.vocab)

    def encode(self, value: Any) -> Tensor:
        labels, category = _as_list(value), CategoryBlock(self.vocab or [])
        if missing := [number for number, label in enumerate(labels) if label == NA or category.is_missing(label)]:
            raise ValueError(f"box {missing[0]} has no label: name it, or leave it out of the boxes and labels.")
        return torch.tensor([int(category.encode(label)) for label in labels], dtype=torch.int64)

    def collate(self, values: Sequence[Tensor]) -> Tensor:
        """`(bs, n)`, n of the most labels, the rest '#na#' or -100."""
        return pad_sequence([*values], batch_first=True, padding_value=self._no_label)

    def wrap(self, batch: Tensor) -> Tensor:
        """The indices `(bs, n)`; of predicted scores `(bs, n, c)`, those of the likeliest labels."""
        return batch.argmax(-1) if batch.ndim == 3 else batch

    def decode(self, encoded: Tensor) -> list:
        """The names of the labels that are some."""
        return [self._name(number) for number in encoded.tolist() if number != self._no_label]

    def _name(self, number: int) -> Any:
        vocab = self.vocab or []
        return vocab[number] if 0 <= number < len(vocab) else number

    def text(self, value: Sequence) -> str:
        return ";".join(map(str, value))

    def draw(self, value: Sequence, ax: Any) -> None:
        """Write the labels at the boxes that `ax` has."""
        self._write(value, ax, "target")

    def draw_result(self, target: Sequence, pred: Sequence, ax: Any) -> None:
        """Write both at their boxes."""
        self._write(target, ax, "target")
        self._write(pred, ax, "prediction")

    @staticmethod
    def _write(names: Sequence, ax: Any, what: str) -> None:
        boxes = [patch for patch in ax.patches if patch.get_label() == what][-len(names) :]
        low, high = sorted(ax.get_ylim())
        for box, name in zip(boxes, names, strict=False):
            has_room = box.get_y() > low + (high - low) / 15  # above the box
            ax.text(
                box.get_x(), box.get_y(), str(name), fontsize=6, clip_on=True, va="bottom" if has_room else "top",
                bbox={"facecolor": box.get_edgecolor(), "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
            )  # fmt: skip


def _as_list(value: Any) -> list:
    """The labels of an item's boxes. Raises TypeError for what is no list."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"BBoxLabelBlock needs a list with a label for each box, got {value!r}")
    return list(value)
