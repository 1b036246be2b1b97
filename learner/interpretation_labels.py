"""What a classifier gets wrong: which classes it takes for which, and which of several labels it misses.

interp = ClassificationInterpretation.from_learner(learn)       # one label per item
interp.plot_confusion_matrix()
interp.plot_top_losses(9)

MultiLabelInterpretation.from_learner(learn).report()           # several labels per item
"""

from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ..data.loaders import DeviceLoader
from .confusion import confusion_of, draw_confusion, most_confused
from .interpretation import Interpretation
from .metrics import accuracy, accuracy_multi

__all__ = ["ClassificationInterpretation", "MultiLabelInterpretation"]


class ClassificationInterpretation(Interpretation):
    """For one label per item: which classes are taken for which. Raises TypeError for other targets."""

    def __init__(self, learn: Any, dl: DeviceLoader, losses: Tensor, outputs: Any = None, targs: Any = None):
        super().__init__(learn, dl, losses, outputs, targs)
        if not isinstance(targs, Tensor) or targs.ndim != 1 or targs.is_floating_point():
            raise TypeError(
                "ClassificationInterpretation needs one class per item; for other targets use Interpretation, or "
                "MultiLabelInterpretation where an item has several labels."
            )
        if self.decoded.shape != targs.shape:  # the loss did not say how to read the outputs
            self.decoded = self.preds.argmax(-1)
        vocab = list(learn.data.vocab or [])
        self.vocab = vocab + list(range(len(vocab), self.preds.shape[-1]))  # a model may have more outputs

    def confusion_matrix(self) -> np.ndarray:
        """`(c, c)` counts: rows are the actual classes, columns the predicted ones."""
        return confusion_of(self.targs, self.decoded, len(self.vocab)).numpy()

    def plot_confusion_matrix(self, normalize: bool = False, figsize: tuple[float, float] | None = None) -> None:
        """Draw the confusion matrix; with `normalize` as shares of each actual class; `figsize` in inches."""
        draw_confusion(self.confusion_matrix(), self.vocab, normalize, figsize)

    def most_confused(self, min_val: int = 1) -> list[tuple[Any, Any, int]]:
        """`(actual, predicted, count)` of each pair of classes confused at least `min_val` times, most often first."""
        return most_confused(self.confusion_matrix(), self.vocab, min_val)

    def classification_report(self) -> pd.DataFrame:
        """Precision, recall, f1 and support of each class, then their accuracy, average, and average by support.

        Where a class was never predicted, or there is none of it, what cannot be computed counts as 0.
        """
        counts = self.confusion_matrix()
        right, actual, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        scores = _scores(right, actual, predicted)
        n = max(1, int(counts.sum()))
        summary = [[right.sum() / n] * 3, scores.mean(1), scores @ actual / n]
        rows = [*scores.T, *summary]
        names = [*map(str, self.vocab), "accuracy", "macro avg", "weighted avg"]
        table = pd.DataFrame(rows, columns=["precision", "recall", "f1"], index=names)
        return table.assign(support=[*actual, *[counts.sum()] * 3])

    def print_classification_report(self) -> None:
        """Print `classification_report`."""
        print(self.classification_report().to_string(float_format="{:.3f}".format))

    def _default_metrics(self) -> list:
        return self.learn.metrics or [accuracy]


class MultiLabelInterpretation(Interpretation):
    """For any number of labels per item: how often each is found, missed, or seen where it is not.

    Raises TypeError for other targets.
    """

    def __init__(self, learn: Any, dl: DeviceLoader, losses: Tensor, outputs: Any = None, targs: Any = None):
        super().__init__(learn, dl, losses, outputs, targs)
        if not isinstance(targs, Tensor) or targs.ndim != 2 or self.decoded.shape != targs.shape:
            raise TypeError(
                "MultiLabelInterpretation needs a 0 or 1 for each label and item, as MultiCategoryBlock gives. For one "
                "class per item use ClassificationInterpretation, for other targets Interpretation."
            )
        self.vocab = list(learn.data.vocab or range(targs.shape[-1]))

    def report(self) -> pd.DataFrame:
        """A row for each label: items where it was rightly seen (`tp`), wrongly seen (`fp`), missed (`fn`) and rightly
        not seen (`tn`); precision, recall and f1, 0 where they cannot be computed.
        """
        said, true = self.decoded > 0.5, self.targs > 0.5
        tp, fp, fn, tn = (pair.sum(0).numpy() for pair in (said & true, said & ~true, ~said & true, ~said & ~true))
        precision, recall, f1 = _scores(tp, tp + fn, tp + fp)
        columns = {"tp": tp, "fp": fp, "fn": fn, "tn": tn, "precision": precision, "recall": recall, "f1": f1}
        return pd.DataFrame(columns, index=pd.Index(self.vocab))

    def _default_metrics(self) -> list:
        return self.learn.metrics or [accuracy_multi]


def _scores(right: np.ndarray, actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Precision, recall and f1 of each class `(3, c)`, from how often it was right, true and predicted."""
    return np.stack([right / predicted.clip(1), right / actual.clip(1), 2 * right / (actual + predicted).clip(1)])
