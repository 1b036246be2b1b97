"""Predictions as training goes on."""

from collections.abc import Iterable
from typing import Any, Literal

from .core import Callback

__all__ = ["FetchPreds"]


class FetchPreds(Callback):
    """Keeps in `preds` what `learn.get_preds` gives at the end of each epoch, or `per="fit"` when a fit has ended.

    The arguments are those of `get_preds`: `split` chooses the set, or `dl` any loader; `with_input, with_loss,
    with_decoded` add columns. Another callback finds the epoch's predictions in its own `after_epoch`.
    """

    real_runs_only = True
    order = 62  # when a fit has ended, after SaveModel, which loads the best weights

    def __init__(self, split: Literal["valid", "train"] = "valid", dl: Iterable | None = None,
                 per: Literal["epoch", "fit"] = "epoch", with_input: bool = False, with_loss: bool = False,
                 with_decoded: bool = False):  # fmt: skip
        if per not in ("epoch", "fit"):
            raise ValueError(f"per={per!r}: predictions are fetched per 'epoch' or per 'fit'.")
        self.split, self.dl, self.per = split, dl, per
        self.with_input, self.with_loss, self.with_decoded = with_input, with_loss, with_decoded
        self.preds: tuple = ()

    def after_epoch(self, learn: Any) -> None:
        if self.per == "epoch":
            self._fetch(learn)

    def after_fit(self, learn: Any) -> None:
        if self.per == "fit":
            self._fetch(learn)

    def _fetch(self, learn: Any) -> None:
        self.preds = learn.get_preds(self.split, self.dl, self.with_input, self.with_loss, self.with_decoded)
