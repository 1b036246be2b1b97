"""From texts to texts: translation, and whatever is like it.

block = DataBlock((TextBlock, TextBlock), get_x=ColReader("english"), get_y=ColReader("french"))
data = block.databunch(df, bs=64)
learn = seq2seq_learner(data, metrics=BLEU(), cbs=TeacherForcing(end_epoch=5))
learn.fit_one_cycle(10, 3e-3)
learn.predict("Where is the station?", beam_sz=5)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.optim import AdamW

from ..data import DataBunch
from ..learner.stages import Callbacks
from ..learner.trainer import Rate
from .blocks import TextBlock
from .seq2seq import Seq2SeqSpec
from .seq2seq_learning import Seq2SeqLearner
from .seq2seq_loss import Seq2SeqLoss

__all__ = ["seq2seq_learner"]


def seq2seq_learner(data: DataBunch, emb_sz: int = 256, n_hid: int = 512, n_layers: int = 2, drop_p: float = 0.2,
                    tie_weights: bool = True, max_len: int | None = None, metrics: Any = None,
                    loss_func: Callable | None = None, opt_func: Callable = AdamW, lr: Rate = 1e-3,
                    cbs: Callbacks = None, wd: float | None = None,
                    path: str | Path | None = None) -> Seq2SeqLearner:  # fmt: skip
    """A Learner that writes a target text for each source, of `data` with the blocks `(TextBlock, TextBlock)`.

    Each has a vocabulary of its own. Sizes and `drop_p` are those of `Seq2SeqSpec`; a translation has at most `max_len`
    tokens, by default half as many again as the longest target for training. `loss_func` is `Seq2SeqLoss` by default.

    Training reads the true tokens of a target (teacher forcing); `cbs=TeacherForcing(end_epoch=…)` lets the model read
    more and more of what it has written itself, step by step, and so more slowly. Raises ValueError for other blocks,
    and for a tokenizer that does not begin every target with the same token.
    """
    source, target = _text_blocks(data)
    targets = [target.encode(value) for value in data.train_ds.values(1)]
    begins = {int(ids[0]) for ids in targets}
    if len(begins) > 1:
        raise ValueError(
            "The targets begin with different tokens, so with which is a translation to begin? Take a WordTokenizer, "
            "or a SubwordTokenizer that you have trained, for the target's TextBlock, and not backwards=True."
        )
    spec = Seq2SeqSpec(
        source.n_out or 0, target.n_out or 0, emb_sz, n_hid, n_layers, drop_p, tie_weights, begins.pop(),
        source.pad_id, target.pad_id, max_len or 3 * max(map(len, targets)) // 2,
    )  # fmt: skip
    loss_func = loss_func or Seq2SeqLoss(target.pad_id)
    return Seq2SeqLearner(data, spec.build(), loss_func, opt_func, lr, cbs=cbs, metrics=metrics, path=path, wd=wd,
                          model_spec=spec)  # fmt: skip


def _text_blocks(data: DataBunch) -> tuple[TextBlock, TextBlock]:
    texts = [block for block in data.blocks if isinstance(block, TextBlock) and not block.is_lm]
    if len(texts) != 2 or len(data.blocks) != 2:
        names = ", ".join(type(block).__name__ for block in data.blocks) or "none"
        raise ValueError(
            f"seq2seq_learner needs data from DataBlock((TextBlock, TextBlock), …), whose blocks are not {names}, nor "
            "of a language model (is_lm=True)."
        )
    return texts[0], texts[1]
