"""What a model gets wrong: the items with the highest losses, and the classes that it confuses.

interp = ClassificationInterpretation.from_learner(learn)
interp.plot_confusion_matrix()
interp.plot_top_losses(9)
"""

from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..data.items import take
from ..data.loaders import DeviceLoader
from ..data.show import draw_grid, show_table
from .loop import as_loader

__all__ = ["ClassificationInterpretation", "Interpretation"]


CAPTION = ["prediction", "actual", "loss", "probability"]


class Interpretation:
    """Predictions, targets and losses of every item of a set; make it with `from_learner`.

    `preds` `(n, …)` are activated (probabilities), `targs` and `decoded` `(n, …)` as the loss sees them, `losses` is
    `(n,)`; all are in the order of the set.
    """

    def __init__(self, learn: Any, dl: DeviceLoader, preds: Tensor, targs: Tensor, decoded: Tensor, losses: Tensor):
        self.learn, self.dl = learn, dl
        self.preds, self.targs, self.decoded, self.losses = preds, targs, decoded, losses

    @classmethod
    def from_learner(cls, learn: Any, split: Literal["valid", "train"] = "valid", dl: Any = None) -> "Interpretation":
        """Predict a set of the learner's data, or a labelled loader: `dl=data.test_dl(items, with_labels=True)`."""
        data = learn.data
        if dl is None or dl is data.train_dl:  # which leaves items out, and augments the others
            dl = data.valid_dl if dl is None and split == "valid" else data.train_eval_dl()
        if dl is None:
            raise ValueError(
                "There is no validation set: pass split='train', or dl=data.test_dl(items, with_labels=True)."
            )
        preds, targs, decoded, losses = learn.get_preds(dl=dl, with_loss=True, with_decoded=True)
        return cls(learn, as_loader(dl, data.device), preds, targs, decoded, losses)

    def top_losses(self, k: int | None = None, largest: bool = True) -> tuple[Tensor, Tensor]:
        """The `k` highest losses (lowest, unless `largest`; all by default) and their items' positions, both `(k,)`."""
        return self.losses.topk(len(self.losses) if k is None else min(k, len(self.losses)), largest=largest)

    def plot_top_losses(self, k: int, largest: bool = True) -> None:
        """Show the items of the `k` highest losses: "prediction / actual / loss / probability of the prediction".

        Raises ValueError for data that did not come from a `DataBlock`, or has several targets.
        """
        data = self.learn.data
        if len(data.targets) != 1 or not isinstance(self.dl.dataset, Dataset):
            raise ValueError(
                "plot_top_losses needs data from a DataBlock with one target: of other data nothing says how an item "
                "looks. top_losses() gives the positions of the items."
            )
        losses, positions = self.top_losses(k, largest)
        picked = data.test_dl(take(self.dl.dataset.items, positions.tolist()), with_labels=True)
        inputs = [sample[0] for batch in picked for sample in data.decode(batch)]
        captions = [self._caption(i, loss) for i, loss in zip(positions.tolist(), losses.tolist(), strict=True)]
        self._show(data.blocks[0], inputs, captions)

    def _caption(self, i: int, loss: float) -> list[str]:
        block, pred, answer = self.learn.data.targets[0], self.preds[i], self.decoded[i]
        probability = f"{pred[answer]:.2f}" if answer.ndim == 0 and pred.ndim == 1 and len(pred) > 1 else ""
        return [block.text(block.decode(answer)), block.text(block.decode(self.targs[i])), f"{loss:.2f}", probability]

    @staticmethod
    def _show(block: Any, inputs: list, captions: list[list[str]]) -> None:
        def draw(ax: Any, value: Any, caption: list[str]) -> None:
            block.draw(value, ax)
            ax.set_title(" / ".join(filter(None, caption)), fontsize=9)

        if block.is_picture:
            pairs = zip(inputs, captions, strict=True)
            draws = [lambda ax, v=value, c=caption: draw(ax, v, c) for value, caption in pairs]
            draw_grid(draws, size=2.8, title=" / ".join(CAPTION))
        else:
            rows = [[block.text(value), *caption] for value, caption in zip(inputs, captions, strict=True)]
            show_table(pd.DataFrame(rows, columns=["input", *CAPTION]))


class ClassificationInterpretation(Interpretation):
    """For one label per item: which classes are taken for which. Raises TypeError for other targets."""

    def __init__(self, learn: Any, dl: DeviceLoader, preds: Tensor, targs: Tensor, decoded: Tensor, losses: Tensor):
        super().__init__(learn, dl, preds, targs, decoded, losses)
        if not isinstance(targs, Tensor) or targs.ndim != 1 or targs.is_floating_point():
            raise TypeError(
                "ClassificationInterpretation needs one class per item; for other targets use Interpretation."
            )
        if decoded.shape != targs.shape:  # the loss did not say how to read the outputs
            self.decoded = preds.argmax(-1)
        self.vocab = list(learn.data.vocab or range(preds.shape[-1]))

    def confusion_matrix(self) -> np.ndarray:
        """`(c, c)` counts: rows are the actual classes, columns the predicted ones."""
        c, known = len(self.vocab), self.targs >= 0  # a loss may ignore targets, such as -100
        pairs = self.targs[known] * c + self.decoded[known]
        return torch.bincount(pairs, minlength=c * c).view(c, c).numpy()

    def plot_confusion_matrix(self, normalize: bool = False) -> None:
        """Draw the confusion matrix; with `normalize` as shares of each actual class."""
        from matplotlib import pyplot as plt

        counts = self.confusion_matrix()
        values = counts / counts.sum(1, keepdims=True).clip(1) if normalize else counts
        names = [str(name) for name in self.vocab]
        size = min(14.0, max(3.5, 0.45 * len(names) + 2))
        _, ax = plt.subplots(figsize=(size, size), layout="constrained")
        ax.imshow(values, cmap="Blues")
        ax.set(xlabel="predicted", ylabel="actual", title="Confusion matrix")
        ax.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        ax.set_yticks(range(len(names)), names)
        if len(names) <= 30:  # more numbers could not be read
            self._write_values(ax, values, "{:.2f}" if normalize else "{}")

    @staticmethod
    def _write_values(ax: Any, values: np.ndarray, template: str) -> None:
        for (row, col), value in np.ndenumerate(values):
            color = "white" if value > values.max() / 2 else "black"
            ax.text(col, row, template.format(value), ha="center", va="center", fontsize=9, color=color)

    def most_confused(self, min_val: int = 1) -> list[tuple[Any, Any, int]]:
        """`(actual, predicted, count)` of each pair of classes confused at least `min_val` times, most often first."""
        counts = self.confusion_matrix()
        np.fill_diagonal(counts, 0)
        pairs = zip(*np.nonzero(counts >= max(1, min_val)), strict=True)
        return sorted(((self.vocab[i], self.vocab[j], int(counts[i, j])) for i, j in pairs), key=lambda pair: -pair[2])

    def classification_report(self) -> pd.DataFrame:
        """Precision, recall, f1 and support of each class, then their accuracy, average, and average by support.

        Where a class was never predicted, or there is none of it, what cannot be computed counts as 0.
        """
        counts = self.confusion_matrix()
        right, actual, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        scores = np.stack([right / predicted.clip(1), right / actual.clip(1), 2 * right / (actual + predicted).clip(1)])
        n = max(1, int(counts.sum()))
        summary = [[right.sum() / n] * 3, scores.mean(1), scores @ actual / n]
        rows = [*scores.T, *summary]
        names = [*map(str, self.vocab), "accuracy", "macro avg", "weighted avg"]
        table = pd.DataFrame(rows, columns=["precision", "recall", "f1"], index=names)
        return table.assign(support=[*actual, *[counts.sum()] * 3])

    def print_classification_report(self) -> None:
        """Print `classification_report`."""
        print(self.classification_report().to_string(float_format="{:.3f}".format))
