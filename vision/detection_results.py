"""What a detector finds, as a person reads it: boxes in pixels with names and scores, drawn beside what is there.

boxes, labels, scores = learn.predict("street.jpg").decoded
learn.show_results()
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..data import DataBunch
from ..data.items import take
from ..data.show import draw_grid
from ..learner import Learner
from ..learner.inference import Prediction
from .detector import Detections

__all__ = ["DetectionLearner"]


class DetectionLearner(Learner):
    """A Learner whose predictions are `Detections`; `learn.model.threshold` is the score from which on they count.

    `get_preds` gives boxes in -1…1, labels as numbers and scores of all items, filled up with zeros.
    """

    def predict(self, item: Any) -> Prediction:
        """`(decoded, index, probs)` for one raw item, with as many entries in each as there are objects.

        `decoded` are `Detections`: boxes `(n, 4)` in pixels of the image as the model sees it, names, scores. `index`
        are the labels' numbers, `probs` the scores, both `(n,)` and on the CPU.
        """
        return _as_detections(super().predict(item))

    def batch_predict(self, items: Sequence) -> list[Prediction]:
        """`predict` for many raw items, in batches."""
        return [_as_detections(prediction) for prediction in super().batch_predict(items)]

    def show_results(self, max_n: int = 9) -> None:
        """Show validation samples with their boxes and names, each beside what was found in it, with its score."""
        dataset = self.data.valid_ds
        if dataset is None or not len(dataset):
            raise ValueError("show_results needs a validation set, and this data has none.")
        n = min(max_n, len(dataset))
        picked = take(dataset.items, [i * len(dataset) // n for i in range(n)])
        samples = [s for batch in self.data.test_dl(picked, with_labels=True) for s in self.data.decode(batch)]
        found = [prediction.decoded for prediction in self.batch_predict(picked)]
        if self.ranks.rank == 0:
            draws = [draw for pair in zip(samples, found, strict=True) for draw in _pair(self.data, *pair)]
            draw_grid(draws, n_cols=2 * min(n, 2))


def _as_detections(prediction: Prediction) -> Prediction:
    boxes, names = prediction.decoded
    _, labels, scores = prediction.index
    found = labels > 0
    return Prediction(Detections(boxes, names, scores[found]), labels[found], scores[found])


def _pair(data: DataBunch, sample: tuple, found: Detections) -> list[Callable[[Any], None]]:
    """What draws a sample with its targets, and what draws it with what was found."""
    image, boxes, names = sample
    scored = [f"{name} {score:.2f}" for name, score in zip(found.labels, found.scores.tolist(), strict=True)]
    return [
        lambda ax: _draw(data, image, boxes, names, "target", ax),
        lambda ax: _draw(data, image, found.boxes, scored, "prediction", ax),
    ]


def _draw(data: DataBunch, image: Tensor, boxes: Tensor, names: Sequence, title: str, ax: Any) -> None:
    for block, value in zip(data.blocks, (image, boxes, names), strict=True):
        block.draw(value, ax)
    ax.set_title(title, fontsize=10)
