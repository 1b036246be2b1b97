"""The learner of a classifier of words."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..callbacks.evaluating import evaluating
from ..data.show import show_samples
from ..learner.inference import picked_samples
from .text_learner import TextLearner

__all__ = ["TokenLearner"]


class TokenLearner(TextLearner):
    """A Learner that gives each word a label."""

    def predict(self, item: Any) -> list[tuple[str, Any]]:  # type: ignore[override]
        """The words of a sentence, a list of them or a text, each with its label.

        Raises ItemError for what the block cannot read.
        """
        return self.batch_predict([item])[0]

    def batch_predict(self, items: Sequence[Any]) -> list[list[tuple[str, Any]]]:  # type: ignore[override]
        """What `predict` makes of each sentence, in batches."""
        if not len(items):
            return []
        dataset, model = self.data.test_dataset(items), self.model.to(self.data.device)
        with evaluating(model), torch.no_grad():
            rows = [row for (x,) in self.data.test_dl(items) for row in model(x).argmax(-1).cpu()]
        return [self._labelled(dataset.raws(i)[0], row) for i, row in enumerate(rows)]

    def show_results(self, max_n: int = 9) -> None:
        """Show a table: sentences from all over the validation set, their labels, and those that are predicted."""
        items, samples = picked_samples(self, max_n)
        preds = [([label for _, label in pairs],) for pairs in self.batch_predict(items)]
        if self.ranks.rank == 0:
            show_samples(self.data.blocks, samples, 1, preds)

    def _labelled(self, value: Any, row: Tensor) -> list[tuple[str, Any]]:
        """The words of a raw value with the labels at the tokens that bear them; `row` has one for each token."""
        block: Any = self.data.blocks[0]
        marks = block.encode(value)[:, 1]
        labels = self.data.targets[0].decode(row[: len(marks)][marks >= 0])
        return list(zip(block.words(value), labels, strict=True))
