"""Learners of text models: what they read can be saved by itself, and a language model goes on writing.

learn = language_model_learner(data, AWD_LSTM, pretrained=False)
learn.fit_one_cycle(5, 5e-3)
learn.predict("I liked this movie because", n_words=40, temperature=0.75)
learn.save_encoder("reviews")                           # text_classifier_learner(…).load_encoder("reviews")
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ..callbacks.evaluating import evaluating
from ..data import DataBunch
from ..data.portable import Portable
from ..data.show import show_samples
from ..learner import Learner, weights
from ..learner.optim import trainable_params
from ..learner.stages import Callbacks, as_list
from ..learner.trainer import Rate
from .encoder_files import check_vocab, load_encoder, save_encoder, vocab_of
from .generation import beam_search, generate
from .marking import Marking
from .regularizer import RNNRegularizer
from .resetter import ModelResetter
from .special import PAD, UNK

__all__ = ["LMLearner", "TextLearner", "vocabulary"]

T = TypeVar("T", bound="TextLearner")


def vocabulary(data: DataBunch) -> list[str]:
    """The words of the texts in `data`, by number. Raises ValueError for data without them."""
    block = data.blocks[0] if data.blocks else None
    vocab = getattr(block, "vocab", None)
    if not vocab:
        raise ValueError(
            "This data has no vocabulary of texts: make it with a TextBlock as its first block, or TextDataBunch."
        )
    return vocab


class TextLearner(Learner):
    """A Learner of a model that reads texts; the part that reads may be saved, and loaded into another model."""

    @property
    def encoder(self) -> nn.Module:
        """The part of the model that reads."""
        find = getattr(self.model_spec, "encoder_of", None)
        if find is None:
            raise ValueError("Which part of this model reads? A model of a text recipe knows: this one has no spec.")
        return find(self.model)

    def save(self, name: str | Path, with_opt: bool = True) -> Path:
        """As `Learner.save`, with the vocabulary, by which `load` sees whether the weights are of the same words."""
        return weights.save(self, self.weights_file(name), with_opt, vocab_of(self))

    def load(self: T, name: str | Path, with_opt: bool = True) -> T:
        """As `Learner.load`. Raises ValueError also for weights of another vocabulary."""
        file = self.weights_file(name)
        return weights.load(self, file, with_opt, lambda vocab: check_vocab(self, vocab, file))

    def save_encoder(self, name: str | Path) -> Path:
        """Write the part that reads, and its vocabulary, to `path/model_dir/name.pth`; returns the file."""
        return save_encoder(self, self.weights_file(name))

    def load_encoder(self: T, name: str | Path) -> T:
        """Read what `save_encoder` wrote and freeze all layer groups but the last. Returns the learner.

        Raises FileNotFoundError, FileError for a damaged or unsafe file, ValueError for one of another vocabulary or
        architecture.
        """
        load_encoder(self, self.weights_file(name))
        self.freeze()
        return self


class LMLearner(TextLearner):
    """A Learner of a language model: it writes, rather than predict labels.

    One of a recurrent model, which remembers from batch to batch, has the callbacks `ModelResetter` and, unless `cbs`
    holds another, `RNNRegularizer(alpha=2, beta=1)`.
    """

    def __init__(self, data: DataBunch, model: nn.Module, loss_func: Callable | None = None,
                 opt_func: Callable = AdamW, lr: Rate = 1e-3, splitter: Callable = trainable_params,
                 cbs: Callbacks = None, metrics: Any = None, path: str | Path | None = None, wd: float | None = None,
                 model_spec: Portable | None = None):  # fmt: skip
        super().__init__(data, model, loss_func, opt_func, lr, splitter, cbs, metrics, path, wd=wd,
                         model_spec=model_spec)  # fmt: skip
        if model.encoder.is_recurrent:  # type: ignore[union-attr]
            self.add_cb(ModelResetter())
            given = any(isinstance(cb, RNNRegularizer) for cb in as_list(cbs))
            self.add_cbs([] if given else RNNRegularizer(alpha=2, beta=1))

    def predict(self, text: str, n_words: int = 1, temperature: float = 1.0, top_k: int | None = None,
                top_p: float | None = None) -> str:  # fmt: skip
        """`text` and the `n_words` tokens that follow, drawn one after the other by how likely the model finds them.

        Logits are divided by `temperature`: below 1 likely words get likelier, 0 always takes the likeliest. `top_k`
        leaves that many words to choose from, `top_p` the fewest that together have this probability. Padding and
        unknown words never come, unless there is nothing else. An empty `text` lets it begin one. The same after
        `set_seed`.

        Raises ValueError for an argument out of its range, and where a model that reads backwards has no word to go on
        after.
        """
        return self._continued(
            text, lambda prompt, banned: generate(self.model, prompt, n_words, temperature, top_k, top_p, banned)
        )

    def batch_predict(self, items: Sequence[str]) -> list[str]:  # type: ignore[override]
        """What `predict` makes of each text, with one word more."""
        return [self.predict(text) for text in items]

    def beam_search(self, text: str, n_words: int, beam_sz: int = 200) -> str:
        """`text` and the likeliest `n_words` tokens to follow that are found by keeping `beam_sz` beginnings."""
        return self._continued(text, lambda prompt, banned: beam_search(self.model, prompt, n_words, beam_sz, banned))

    def show_results(self, max_n: int = 9) -> None:
        """Show a table: pieces of the validation texts, the tokens after each of theirs, and the likeliest there."""
        if self.data.valid_dl is None:
            raise ValueError("show_results needs a validation set.")
        x, y = next(iter(self.data.valid_dl))
        with self._reading() as model:
            answers = model.decoder(model.encoder(x)[0]).argmax(-1).cpu()
        if self.ranks.rank == 0:
            samples = self.data.decode((x, y), max_n)
            preds = [(self.data.targets[0].decode(row),) for row in answers[: len(samples)]]
            show_samples(self.data.blocks, samples, 1, preds)

    def _continued(self, text: str, more: Callable[[Tensor, list[int]], Tensor]) -> str:
        """`text` with the ids that `more(prompt, banned)` gives, as a person reads it."""
        vocab, block = vocabulary(self.data), self.data.blocks[0]
        banned = [number for number, word in enumerate(vocab) if word in (PAD, UNK)]
        before, after = Marking(getattr(block, "tokenizer", None)).around
        prompt = block.encode(text)  # without what ends every text, after which nothing comes
        prompt = prompt[: len(prompt) - (before if getattr(block, "backwards", False) else after)]
        with self._reading():
            found = more(prompt.to(self.data.device), banned).cpu()
        return block.decode(torch.cat([prompt, found]))

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """Inside, the model is on the data's device, in evaluation mode, and without gradients."""
        model = self.model.to(self.data.device)
        with evaluating(model), torch.no_grad():
            yield model
