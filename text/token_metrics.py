"""How right labels of words are. Tokens without a label count for nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..learner.metrics import StatefulMetric
from ..learner.metrics_confusion import divide
from .token_blocks import NO_LABEL

__all__ = ["EntityF1", "TokenAccuracy", "entities"]

NO_ENTITY = "O"


@dataclass(eq=False)
class TokenAccuracy(StatefulMetric):
    """Share of labels that are right, of logits `(bs, n, c)` and labels `(bs, n)`, -100 where there is none."""

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        counts = targ != NO_LABEL
        return torch.stack([((pred.argmax(-1) == targ) & counts).sum(), counts.sum()])

    def score(self, state: Tensor) -> Tensor:
        return divide(*state)


@dataclass(eq=False)
class EntityF1(StatefulMetric):
    """F1 score of whole entities, right where kind, begin and end are (Tjong Kim Sang & De Meulder 2003, CoNLL).

    Shapes as in `TokenAccuracy`. `vocab` has the labels by number, `data.vocab`: `O` for no entity, `B-PER` where a
    person's name begins, `I-PER` where it goes on. 0 where no entity is right, nan where there is none to find.
    """

    vocab: Sequence[Any]

    def measure(self, pred: Tensor, targ: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(pred.argmax(-1), targ.clone())]  # read at the end: a batch does not wait for the device

    def score(self, state: list[tuple[Tensor, Tensor]]) -> Tensor:
        right = total = 0
        for guesses, targs in state:
            for guess, targ in zip(guesses.cpu(), targs.cpu(), strict=True):
                found, there = (entities(self._labels(ids[targ != NO_LABEL])) for ids in (guess, targ))
                right, total = right + 2 * len(found & there), total + len(found) + len(there)
        return torch.tensor(right / total if total else torch.nan)

    def _labels(self, ids: Tensor) -> list[str]:
        return [str(self.vocab[i]) for i in ids.tolist()]


def entities(labels: Sequence[str]) -> set[tuple[str, int, int]]:
    """Entities as (kind, begin, end), the end excluded, of the labels of a sentence.

    One begins with `B-`, or where an `I-` follows on something else. A label without a dash is a kind by itself.

    >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC"]))
    [('LOC', 3, 4), ('PER', 0, 2)]
    """
    found, begin, kind = set(), 0, NO_ENTITY
    for place, label in enumerate([*labels, NO_ENTITY]):
        prefix, _, rest = label.partition("-") if "-" in label else ("", "", label)
        if prefix == "B" or rest != kind:
            found |= {(kind, begin, place)} if kind != NO_ENTITY else set()
            begin, kind = place, rest
    return found
