"""Metrics of generated text."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .metrics import StatefulMetric
from .metrics_confusion import divide
from .tensors import double_precision

__all__ = ["CorpusBLEU"]

MAX_N = 4


@dataclass(eq=False)
class CorpusBLEU(StatefulMetric):
    """BLEU-4 of token ids over all sentences together, one reference for each (Papineni et al. 2002); 0 to 1.

    `pred` holds logits `(bs, seq, vocab)` with the vocabulary on `axis`, or ids `(bs, seq)`; `targ` ids `(bs, seq)`,
    whose length may be another. Tokens `pad_idx` are left out of both. 0 if no four words in a row are right. A batch
    takes memory for `bs · seq²` truth values. Raises ValueError if there is not one prediction for each sentence.
    """

    pad_idx: int = 1
    axis: int = -1

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        guess = pred.argmax(self.axis) if pred.is_floating_point() else pred
        if guess.ndim != 2 or targ.ndim != 2 or len(guess) != len(targ):
            raise ValueError(
                f"CorpusBLEU compares token ids (bs, seq), found predictions of shape {tuple(pred.shape)} and targets "
                f"of shape {tuple(targ.shape)}: a row is one sentence."
            )
        lengths = torch.stack([(ids != self.pad_idx).sum(1) for ids in (guess, targ)])
        possible = [(lengths[0] - n).clamp_min(0).sum() for n in range(MAX_N)]
        found = _clipped_matches(self._padding_last(guess, -1), self._padding_last(targ, -2))
        return torch.stack([*found, *possible, *lengths.sum(1)])

    def score(self, state: Tensor) -> Tensor:
        found, possible, (n_guess, n_targ) = double_precision(state).split([MAX_N, MAX_N, 2])
        too_short = (1 - divide(n_targ, n_guess)).clamp_max(0)
        return (divide(found, possible).log().mean() + too_short).exp()

    def _padding_last(self, ids: Tensor, pad: int) -> Tensor:
        """Each row's tokens, then its padding, which becomes the number `pad`: one that no token has."""
        padded = ids == self.pad_idx
        order = padded.to(torch.uint8).sort(dim=1, stable=True).indices
        return ids.masked_fill(padded, pad).gather(1, order)


def _clipped_matches(guess: Tensor, targ: Tensor) -> list[Tensor]:
    """For n = 1…4, how many runs of n words of `guess` are in `targ`, each at most as often as it is there.

    Both are ids `(bs, seq)`. Two runs are the same where they begin with the same word and go on as the same run, so
    truth values for all pairs of places follow from those for n − 1, without a dictionary and without waiting.
    """
    own = own_words = guess[:, :, None] == guess[:, None]
    other = other_words = guess[:, :, None] == targ[:, None]
    matches = []
    for n in range(MAX_N):
        if n:
            own = own[:, :-1, :-1] & own_words[:, n:, n:]
            other = other[:, :-1, :-1] & other_words[:, n:, n:]
        is_first = ~own.tril(-1).any(-1)
        matches.append((torch.minimum(own.sum(-1), other.sum(-1)) * is_first).sum())
    return matches
