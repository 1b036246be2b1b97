"""How right a translation is: a loss for training, and BLEU."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ..data.portable import Portable
from ..learner.losses import CrossEntropyLoss
from ..learner.metrics_text import CorpusBLEU
from .special import PAD_ID

__all__ = ["BLEU", "Seq2SeqLoss"]

NOTHING = -100  # where no token is expected


@dataclass
class Seq2SeqLoss(Portable):
    """Cross-entropy of logits `(bs, n, c)` of what is written, and targets `(bs, n_targ)` from their first token on.

    The model is to write a target's second token, and so on to its last, and then padding, `ignore_index`, once: the
    end. What it writes after that counts for nothing; where it has written too little, it has guessed, all tokens with
    the same probability. `reduction` and `label_smoothing` are those of `CrossEntropyLoss`.
    """

    ignore_index: int = PAD_ID
    reduction: str = "mean"
    label_smoothing: float = 0.0

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        return self._loss(_fitted(pred, targ.shape[1]), self._expected(targ))

    def activation(self, pred: Tensor) -> Tensor:
        """Probabilities, in the shape of `pred`."""
        return self._loss.activation(pred)

    def decodes(self, pred: Tensor) -> Tensor:
        """The likeliest tokens, `(bs, n)` int64."""
        return pred.argmax(-1)

    def check(self, pred: Tensor, targ: Tensor) -> None:
        """Raise ValueError for targets that are no tokens of the model, or predictions of another shape."""
        if pred.ndim != 3 or targ.ndim != 2:
            raise ValueError(
                f"Logits (bs, n, c) and token ids (bs, n) are needed, found shapes {tuple(pred.shape)} and "
                f"{tuple(targ.shape)}: is the model one of seq2seq_learner, and the target block a TextBlock?"
            )
        self._loss.check(_fitted(pred, targ.shape[1]), self._expected(targ))

    @property
    def _loss(self) -> CrossEntropyLoss:
        return CrossEntropyLoss(None, NOTHING, self.reduction, self.label_smoothing)

    def _expected(self, targ: Tensor) -> Tensor:
        """What is to be written after each token of the targets."""
        following = F.pad(targ[:, 1:], (0, 1), value=self.ignore_index)
        return following.masked_fill(targ == self.ignore_index, NOTHING)


def _fitted(pred: Tensor, n: int) -> Tensor:
    """Logits of exactly `n` tokens; those that are missing say nothing."""
    return F.pad(pred, (0, 0, 0, max(0, n - pred.shape[1])))[:, :n]


@dataclass(eq=False)
class BLEU(CorpusBLEU):
    """BLEU-4 of what a seq2seq model writes, in tokens, see `CorpusBLEU`; targets without the token that begins them.

    `pad_idx` is the target block's `pad_id`, 1 but for a pretrained tokenizer.
    """

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        return super().measure(pred, targ[:, 1:])
