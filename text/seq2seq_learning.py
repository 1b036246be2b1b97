"""The learner of a model that writes texts after others: it translates.

learn = seq2seq_learner(data, metrics=BLEU())
learn.fit_one_cycle(10, 3e-3)
learn.predict("Where is the station?", beam_sz=5)
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW

from ..callbacks.evaluating import evaluating
from ..data import DataBunch
from ..data.portable import Portable
from ..data.show import show_samples
from ..learner import Learner
from ..learner.inference import picked_samples
from ..learner.optim import trainable_params
from ..learner.stages import Callbacks, as_list
from ..learner.trainer import Rate
from .seq2seq_search import beam_search
from .teacher_forcing import TeacherForcing

__all__ = ["Seq2SeqLearner"]


class Seq2SeqLearner(Learner):
    """A Learner of a `Seq2Seq` model, with the callback `TeacherForcing()` unless `cbs` holds another.

    Loss and metrics of a validation are of what the model writes by itself: it does not see the targets.
    """

    def __init__(self, data: DataBunch, model: nn.Module, loss_func: Callable | None = None,
                 opt_func: Callable = AdamW, lr: Rate = 1e-3, splitter: Callable = trainable_params,
                 cbs: Callbacks = None, metrics: Any = None, path: str | Path | None = None, wd: float | None = None,
                 model_spec: Portable | None = None):  # fmt: skip
        super().__init__(data, model, loss_func, opt_func, lr, splitter, cbs, metrics, path, wd=wd,
                         model_spec=model_spec)  # fmt: skip
        if not any(isinstance(cb, TeacherForcing) for cb in as_list(cbs)):
            self.add_cb(TeacherForcing())

    def predict(self, text: Any, beam_sz: int = 1) -> str:  # type: ignore[override]
        """The translation of a text. The likeliest token each time, or the best of a search that keeps `beam_sz`.

        Raises ItemError for what the source's block cannot read, ValueError for a `beam_sz` below 1.
        """
        model = self.model.to(self.data.device)
        with evaluating(model), torch.no_grad():
            found = beam_search(model, self.data.input_batch(text)[0], beam_sz)
        return self.data.targets[0].decode(found.cpu())

    def batch_predict(self, items: Sequence[Any]) -> list[str]:  # type: ignore[override]
        """The translations of texts, in batches: of each the likeliest token each time."""
        if not len(items):
            return []
        model, block = self.model.to(self.data.device), self.data.targets[0]
        with evaluating(model), torch.no_grad():
            batches = [model(x).argmax(-1).cpu() for (x,) in self.data.test_dl(items)]
        return [block.decode(ids) for batch in batches for ids in batch]

    def show_results(self, max_n: int = 9) -> None:
        """Show a table: source, target and translation of texts from all over the validation set."""
        items, samples = picked_samples(self, max_n)
        translations = [(text,) for text in self.batch_predict(items)]
        if self.ranks.rank == 0:
            show_samples(self.data.blocks, samples, 1, translations)
