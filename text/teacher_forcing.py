"""What a decoder reads while it is trained: true tokens, or its own."""

from typing import Any

from ..callbacks import Callback

__all__ = ["TeacherForcing"]


class TeacherForcing(Callback):
    """Gives a seq2seq model the targets in training: at first it reads true tokens, later what it has itself written.

    The probability of the true one falls in a line from 1 to `end` in the first `end_epoch` epochs of a fit; without
    `end_epoch` it stays 1, which is fast: all tokens are computed at once. In validation a model never sees a target.
    Of several the one that was added last acts, so that `fit(…, cbs=TeacherForcing(…))` is heard.

    Williams & Zipser 1989; that it falls is scheduled sampling, Bengio et al. 2015, arXiv:1506.03099.
    """

    def __init__(self, end_epoch: float | None = None, end: float = 0.0):
        if (end_epoch is not None and end_epoch <= 0) or not 0 <= end <= 1:
            raise ValueError(
                f"TeacherForcing(end_epoch={end_epoch}, end={end}): end_epoch is a number of epochs above 0, and end a "
                "probability."
            )
        self.end_epoch, self.end = end_epoch, end
        self.acts = True  # and not one that was added later

    def __repr__(self) -> str:
        return f"TeacherForcing(end_epoch={self.end_epoch}, end={self.end})"

    def before_fit(self, learn: Any) -> None:
        self.acts = [cb for cb in learn.cbs if isinstance(cb, TeacherForcing)][-1] is self

    def before_batch(self, learn: Any) -> None:
        if learn.training and self.acts:
            learn.xb = (*learn.xb, *learn.yb, self.probability(learn.pct_train * learn.n_epoch))

    def probability(self, epochs_done: float) -> float:
        """That of a true token, so many epochs into a fit."""
        if self.end_epoch is None:
            return 1.0
        return 1 - (1 - self.end) * min(1.0, epochs_done / self.end_epoch)
