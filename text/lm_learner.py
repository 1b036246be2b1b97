"""Language models: trained, or fine-tuned from one that has read Wikipedia.

data = TextDataBunch.from_df(df, is_lm=True)
learn = language_model_learner(data, AWD_LSTM, drop_mult=0.3, metrics=[accuracy, Perplexity()])
learn.fine_tune(4, 1e-2)
learn.predict("The food was", n_words=20)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import AdamW

from ..data import DataBunch
from ..learner import CrossEntropyLoss
from ..learner.stages import Callbacks
from ..learner.trainer import Rate
from .awd_lstm import AWD_LSTM
from .blocks import TextBlock
from .language_model import LanguageModelSpec, split_language_model
from .pretrained import load_pretrained
from .text_learner import LMLearner, vocabulary
from .token_blocks import WordsBlock

__all__ = ["check_has_weights", "language_model_learner"]


def language_model_learner(data: DataBunch, arch: Callable[..., nn.Module], config: dict[str, Any] | None = None,
                           drop_mult: float = 1.0, pretrained: bool | str | Path = True, metrics: Any = None,
                           loss_func: Callable | None = None, opt_func: Callable = AdamW, lr: Rate = 1e-3,
                           cbs: Callbacks = None, wd: float | None = None,
                           path: str | Path | None = None) -> LMLearner:  # fmt: skip
    """A Learner of a language model for the vocabulary of `data`; a pretrained one starts frozen.

    `arch` is `AWD_LSTM`, `TransformerLM` or a class of your own that is called, and built, as these are; `config` holds
    settings that deviate from `arch.lm_config`, `drop_mult` multiplies all dropouts. `pretrained` weights are fast.ai's
    of WikiText-103, or those of an archive's address or a folder, see `load_pretrained`; there are none for
    `TransformerLM`. Layer groups are the layers that read, and last the embedding with the decoder. `loss_func` is by
    default cross-entropy over all tokens.

    Gradients are not clipped; `cbs=GradientClip(0.25)` does. Raises ValueError for data of another task.
    """
    vocab = vocabulary(data)
    _check_is_lm(data)
    spec = LanguageModelSpec(arch, len(vocab), config or {}, drop_mult)
    model = spec.build()
    if pretrained:
        check_has_weights(arch, pretrained)
        load_pretrained(model, vocab, pretrained, getattr(data.blocks[0], "backwards", False))
    learn = LMLearner(data, model, loss_func or CrossEntropyLoss(), opt_func, lr, split_language_model, cbs, metrics,
                      path, wd, spec)  # fmt: skip
    if pretrained:
        learn.freeze()
    return learn


def _check_is_lm(data: DataBunch) -> None:
    """Raise ValueError where batches are no windows of texts."""
    text = data.blocks[0]
    if isinstance(text, (TextBlock, WordsBlock)) and not getattr(text, "is_lm", False):
        names = ", ".join(type(block).__name__ for block in data.blocks)
        raise ValueError(
            f"language_model_learner needs windows of texts, and this data has items of the blocks {names}: make it "
            "with TextDataBunch.from_df(df, is_lm=True) or DataBlock(TextBlock(is_lm=True)), or take "
            "text_classifier_learner for labels."
        )


def check_has_weights(arch: Any, pretrained: bool | str | Path) -> None:
    """Raise ValueError where an architecture has no published weights."""
    if pretrained and arch is not AWD_LSTM:
        raise ValueError(f"There are no published weights of {arch.__name__}: pass pretrained=False.")
