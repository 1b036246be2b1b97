"""What a model gets wrong: the items with the highest losses, and the classes that it confuses."""

from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.dataset import take
from ..data.loaders import DeviceLoader
from ..data.show import draw_grid, show_table

__all__ = ["ClassificationInterpretation", "Interpretation"]


class Interpretation:
    """Predictions, targets and losses of every item of a set; make it with `from_learner`.

    `preds` `(n, …)` are activated (probabilities), `targs` and `decoded` `(n, …)` as the loss sees them, `losses` `(n,)`.
    """

    def __init__(self, learn: Any, dl: DeviceLoader, preds: Tensor, targs: Tensor, decoded: Tensor, losses: Tensor):
        self.learn, self.dl = learn, dl
        self.preds, self.targs, self.decoded, self.losses = preds, targs, decoded, losses

    @classmethod
    def from_learner(cls, learn: Any, split: Literal["valid", "train"] = "valid", dl: Any = None) -> "Interpretation":
        """Predict a set of the learner's data, or the labelled loader `dl` (`data.test_dl(items, with_labels=True)`)."""
        dl = dl if dl is not None else learn.data.valid_dl if split == "valid" else learn.data.train_eval_dl()
        if dl is None:
            raise ValueError("There is no validation set: pass split='train', or dl=data.test_dl(items, with_labels=True).")
        preds, targs, decoded, losses = learn.get_preds(dl=dl, with_loss=True, with_decoded=True)
        if targs is None:
            raise ValueError("These items have no labels: pass dl=data.test_dl(items, with_labels=True).")
        return cls(learn, dl, preds, targs, decoded, losses)

    def top_losses(self, k: int | None = None, largest: bool = True) -> tuple[Tensor, Tensor]:
        """The `k` highest losses (lowest, unless `largest`; all by default) and the positions of their items, both `(k,)`."""
        return self.losses.topk(len(self.losses) if k is None else min(k, len(self.losses)), largest=largest)

    def plot_top_losses(self, k: int, largest: bool = True) -> None:
        """Show the items of the `k` highest losses: "prediction / actual / loss / probability of the prediction"."""
        losses, positions = self.top_losses(k, largest)
        data, block = self.learn.data, self.learn.data.targets[0]
        picked = data.test_dl(take(self.dl.dataset.items, positions.tolist()), with_labels=True)
        samples = [sample for batch in picked for sample in data.decode(batch)]
        captions = [self._caption(block, int(i), float(loss)) for i, loss in zip(positions, losses, strict=True)]
        if data.blocks[0].is_picture:
            draw_grid([lambda ax, s=s, c=c: self._draw(data.blocks[0], s[0], c, ax) for s, c in zip(samples, captions, strict=True)], size=2.8)
        else:
            rows = [[data.blocks[0].text(sample[0]), *caption] for sample, caption in zip(samples, captions, strict=True)]
            show_table(pd.DataFrame(rows, columns=["input", "prediction", "actual", "loss", "probability"]))

    def _caption(self, block: Any, i: int, loss: float) -> list[str]:
        pred, targ = block.text(block.decode(self.decoded[i])), block.text(block.decode(self.targs[i]))
        single = self.decoded[i].ndim == 0 and self.preds[i].ndim == 1
        return [pred, targ, f"{loss:.2f}", f"{self.preds[i][self.decoded[i]]:.2f}" if single else ""]

    @staticmethod
    def _draw(block: Any, value: Any, caption: list[str], ax: Any) -> None:
        block.draw(value, ax)
        ax.set_title(" / ".join(filter(None, caption)), fontsize=9)


class ClassificationInterpretation(Interpretation):
    """For one label per item: which classes are taken for which. Raises TypeError for other targets."""

    def __init__(self, learn: Any, dl: DeviceLoader, preds: Tensor, targs: Tensor, decoded: Tensor, losses: Tensor):
        super().__init__(learn, dl, preds, targs, decoded, losses)
        if targs.ndim != 1 or targs.is_floating_point():
            raise TypeError("ClassificationInterpretation needs one class per item; for other targets use Interpretation.")
        self.vocab = list(learn.data.vocab or range(preds.shape[1]))

    def confusion_matrix(self) -> np.ndarray:
        """`(c, c)` counts: rows are the actual classes, columns the predicted ones."""
        c = len(self.vocab)
        return torch.bincount(self.targs * c + self.decoded, minlength=c * c).view(c, c).numpy()

    def plot_confusion_matrix(self, normalize: bool = False) -> None:
        """Draw the confusion matrix; with `normalize` as shares of each actual class."""
        from matplotlib import pyplot as plt

        counts = self.confusion_matrix()
        values = counts / counts.sum(1, keepdims=True).clip(1) if normalize else counts
        size = min(14.0, max(3.5, 0.45 * len(self.vocab) + 2))
        _, ax = plt.subplots(figsize=(size, size), layout="constrained")
        ax.imshow(values, cmap="Blues")
        ax.set(xlabel="predicted", ylabel="actual", title="Confusion matrix")
        names = [str(name) for name in self.vocab]
        ax.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        ax.set_yticks(range(len(names)), names)
        for (row, col), value in np.ndenumerate(values) if len(names) <= 30 else ():
            text = f"{value:.2f}" if normalize else str(value)
            ax.text(col, row, text, ha="center", va="center", fontsize=9, color="white" if value > values.max() / 2 else "black")

    def most_confused(self, min_val: int = 1) -> list[tuple[Any, Any, int]]:
        """`(actual, predicted, count)` for each pair of classes confused at least `min_val` times, most often first."""
        counts = self.confusion_matrix()
        np.fill_diagonal(counts, 0)
        pairs = [(self.vocab[i], self.vocab[j], int(counts[i, j])) for i, j in zip(*np.nonzero(counts >= max(1, min_val)), strict=True)]
        return sorted(pairs, key=lambda pair: -pair[2])

    def classification_report(self) -> pd.DataFrame:
        """Precision, recall, f1 and support of each class, then their accuracy, average, and average weighted by support."""
        counts = self.confusion_matrix()
        right, actual, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        precision, recall = right / predicted.clip(1), right / actual.clip(1)
        f1 = 2 * right / (actual + predicted).clip(1)
        table = pd.DataFrame({"precision": precision, "recall": recall, "f1": f1}, index=[str(name) for name in self.vocab])
        table.loc["accuracy"] = [right.sum() / counts.sum()] * 3
        table.loc["macro avg"] = [precision.mean(), recall.mean(), f1.mean()]
        table.loc["weighted avg"] = [np.average(values, weights=actual) for values in (precision, recall, f1)]
        return table.assign(support=[*actual, *[counts.sum()] * 3])

    def print_classification_report(self) -> None:
        """Print `classification_report`."""
        print(self.classification_report().to_string(float_format="{:.3f}".format))
