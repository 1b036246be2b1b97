"""Recipe for a label for each word: names of people and places, parts of speech, and whatever else a word may be.

block = DataBlock((WordsBlock(hf_tokenizer(name)), TokenCategoryBlock))
data = block.databunch(read_conll("train.txt"))
learn = token_classifier_learner(data, name, metrics=[TokenAccuracy(), EntityF1(data.vocab)])
learn.fine_tune(3)
learn.predict("Ada Lovelace was born in London.")         # [("Ada", "B-PER"), ("Lovelace", "I-PER"), …]
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import AdamW

from ..data import DataBunch, Dataset
from ..data.items import short
from ..learner.stages import Callbacks
from ..learner.trainer import Rate
from .classifier import split_classifier
from .hub import HubClassifierSpec
from .lm_learner import check_has_weights
from .pretrained import load_pretrained
from .special import PAD
from .token_blocks import TokenCategoryBlock, WordsBlock
from .token_classifier import HubTokenClassifierSpec, TokenClassifierSpec
from .token_learner import TokenLearner

__all__ = ["token_classifier_learner"]


def token_classifier_learner(data: DataBunch, arch: Callable[..., nn.Module] | str | Path,
                             config: dict[str, Any] | None = None, drop_mult: float = 0.5,
                             pretrained: bool | str | Path = True, metrics: Any = None, max_len: int = 512,
                             loss_func: Callable | None = None, opt_func: Callable = AdamW, lr: Rate = 1e-3,
                             cbs: Callbacks = None, wd: float | None = None,
                             path: str | Path | None = None) -> TokenLearner:  # fmt: skip
    """A Learner of a classifier of words, for data with the blocks `(WordsBlock, TokenCategoryBlock)`.

    `arch` is the name or folder of a model of the Hugging Face hub, for data made with its tokenizer,
    `WordsBlock(tokenizer=hf_tokenizer(arch))`: it sees what stands before and after each word, `max_len` tokens at a
    time, and so is the natural choice. `AWD_LSTM`, `TransformerLM` or a class of your own read from left to right: what
    a word is has to be told by itself and what stands before it. They may take over what a language model has learned,
    by `load_encoder`, for data made with its vocabulary.

    `config`, `drop_mult` and `pretrained` are as in `text_classifier_learner`, and so are the layer groups; with a
    pretrained encoder all but the head start frozen. Raises ValueError for other blocks.
    """
    _check_blocks(data)
    words: Any = data.blocks[0]
    if isinstance(arch, (str, Path)):
        pad = words.vocab.index(PAD)
        spec = HubTokenClassifierSpec(HubClassifierSpec.of(arch, data.c, config or {}, drop_mult, pad, max_len))
        model = spec.build(pretrained=bool(pretrained))
    else:
        spec = TokenClassifierSpec(arch, len(words.vocab), data.c, config or {}, drop_mult)
        model = spec.build()
        if pretrained:
            check_has_weights(arch, pretrained)
            load_pretrained(spec.encoder_of(model), words.vocab, pretrained, False)
    _check_lengths(data.train_ds, "training")
    if data.valid_ds is not None:
        _check_lengths(data.valid_ds, "validation")
    learn = TokenLearner(data, model, loss_func, opt_func, lr, split_classifier, cbs, metrics, path, wd=wd,
                         model_spec=spec)  # fmt: skip
    if pretrained:
        learn.freeze()
    return learn


def _check_lengths(dataset: Dataset, name: str) -> None:
    """Raise ValueError for an item that has not as many labels as words."""
    for i in range(len(dataset)):
        words, labels = dataset.raws(i)
        if (n := len(dataset.blocks[0].words(words))) != len(labels):  # type: ignore[attr-defined]
            raise ValueError(
                f"item {i} of the {name} set has {n} words and {len(labels)} labels: each word has one. Its words: "
                f"{short(words)}"
            )


def _check_blocks(data: DataBunch) -> None:
    kinds = [type(block).__name__ for block in data.blocks]
    if kinds != [WordsBlock.__name__, TokenCategoryBlock.__name__]:
        raise ValueError(
            "token_classifier_learner needs data from DataBlock((WordsBlock, TokenCategoryBlock), …), "
            f"whose blocks are not {', '.join(kinds) or 'none'}."
        )
