"""Text classifiers: ULMFiT, from a language model to what a text is; or an encoder of the Hugging Face hub.

    learn = text_classifier_learner(data, AWD_LSTM, pretrained=False, metrics=accuracy).load_encoder("reviews")
    learn.fit_one_cycle(1, 2e-2)
    learn.freeze_to(-2)
    learn.fit_one_cycle(1, slice(1e-2 / 2.6**4, 1e-2))
    learn.unfreeze()
    learn.fit_one_cycle(2, slice(2e-3 / 2.6**4, 2e-3))

Howard & Ruder 2018, "Universal language model fine-tuning for text classification", arXiv:1801.06146.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import AdamW

from ..data import DataBunch
from ..learner.stages import Callbacks
from ..learner.trainer import Rate
from .blocks import TextBlock
from .classifier import TextClassifierSpec, split_classifier
from .hub import HubClassifierSpec
from .lm_learner import check_has_weights
from .pretrained import load_pretrained
from .special import PAD, PAD_ID
from .text_learner import TextLearner, vocabulary
from .token_blocks import TokenCategoryBlock

__all__ = ["text_classifier_learner"]


def text_classifier_learner(data: DataBunch, arch: Callable[..., nn.Module] | str | Path,
                            config: dict[str, Any] | None = None, drop_mult: float = 0.5,
                            pretrained: bool | str | Path = True, metrics: Any = None, seq_len: int = 72,
                            max_len: int = 1440, loss_func: Callable | None = None, opt_func: Callable = AdamW,
                            lr: Rate = 1e-3, cbs: Callbacks = None, wd: float | None = None,
                            path: str | Path | None = None) -> TextLearner:  # fmt: skip
    """A Learner of a classifier for the texts of `data`; with a pretrained encoder it starts frozen.

    `arch` is `AWD_LSTM`, `TransformerLM` or a class of your own that is called, and built, as these are: it reads
    `seq_len` tokens at a time, and what it gives at the last `max_len` is pooled, see `SentenceEncoder`. `config` holds
    settings that deviate from `arch.clas_config`, `drop_mult` multiplies all dropouts. `pretrained` is as in
    `language_model_learner`: False where `load_encoder` brings a language model's.

    Or `arch` is the name or folder of a model of the Hugging Face hub, for data made with its tokenizer,
    `TextBlock(tokenizer=hf_tokenizer(arch))`. It reads the first `max_len` tokens at once, or as many as it can, and
    their mean goes into a linear layer; `config` changes settings of its own, `drop_mult` multiplies the dropout before
    that layer, 0.2, and `pretrained` is True or False.

    Layer groups are the embedding, each layer that reads, and the head. Raises ValueError for targets that are texts
    themselves, or labels of words.
    """
    vocab = vocabulary(data)
    _check_targets(data)
    pad = vocab.index(PAD) if PAD in vocab else PAD_ID
    if isinstance(arch, (str, Path)):
        spec = HubClassifierSpec.of(arch, data.c, config or {}, drop_mult, pad, max_len)
        model = spec.build(pretrained=bool(pretrained))
    else:
        spec = TextClassifierSpec(arch, len(vocab), data.c, config or {}, drop_mult, seq_len, max_len, pad)
        model = spec.build()
        if pretrained:
            check_has_weights(arch, pretrained)
            load_pretrained(spec.encoder_of(model), vocab, pretrained, getattr(data.blocks[0], "backwards", False))
    learn = TextLearner(data, model, loss_func, opt_func, lr, split_classifier, cbs, metrics, path, wd=wd,
                        model_spec=spec)  # fmt: skip
    if pretrained:
        learn.freeze()
    return learn


def _check_targets(data: DataBunch) -> None:
    """Raise ValueError where a target is not of a whole text."""
    wrong = next((block for block in data.targets if isinstance(block, (TextBlock, TokenCategoryBlock))), None)
    if wrong is None:
        return
    if isinstance(wrong, TokenCategoryBlock):
        found, fitting = "a label for each word", "token_classifier_learner"
    elif wrong.is_lm:
        found, fitting = "windows of a language model (is_lm=True)", "language_model_learner"
    else:
        found, fitting = "a text as target", "seq2seq_learner"
    raise ValueError(
        f"text_classifier_learner needs data with a label for each text, and this has {found}: make it of texts and "
        f"labels, as TextDataBunch.from_df(df, label_col='label'), or take {fitting}."
    )
