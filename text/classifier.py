"""A text classifier: what reads a text, and a head that says what it is.

spec = TextClassifierSpec(AWD_LSTM, vocab_sz=60_000, n_out=2, drop_mult=0.5)
model = spec.build()                           # nn.Sequential(SentenceEncoder, head)
model(tokens)                                  # (64, 900) int64, padded at the ends, to (64, 2)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from ..data.portable import Portable, portable
from .config import checked_config, scaled, without
from .sentence_encoder import SentenceEncoder
from .special import PAD_ID
from .text_learner import TextLearner

__all__ = ["TextClassifierSpec", "split_classifier", "text_head"]


@dataclass
class TextClassifierSpec(Portable):
    """The description of a text classifier, from which it can be built again.

    `config` has the settings that deviate from `arch.clas_config`, and `drop_mult` multiplies all its dropouts;
    `seq_len` and `max_len` as in `SentenceEncoder`, `lin_ftrs` and `ps` as in `text_head`.
    """

    arch: Any
    vocab_sz: int
    n_out: int
    config: dict[str, Any] = field(default_factory=dict)
    drop_mult: float = 0.5
    seq_len: int = 72
    max_len: int = 1440
    pad: int = PAD_ID
    lin_ftrs: Sequence[int] = (50,)
    ps: Sequence[float] = (0.1,)

    learner: ClassVar[type] = TextLearner  # what an exported file is loaded as

    def __post_init__(self):
        self.config = checked_config(self.arch, "clas_config", self.config)

    def build(self, pretrained: bool = False) -> nn.Sequential:
        """The model with random weights; those that are pretrained are loaded into it."""
        config = scaled(self.config, self.drop_mult)
        encoder = self.arch(self.vocab_sz, **without(config, ["output_p"]))
        reads = SentenceEncoder(encoder, self.seq_len, self.max_len, self.pad)
        return nn.Sequential(
            reads, text_head(reads.n_features, self.n_out, self.lin_ftrs, [config["output_p"], *self.ps])
        )

    def encoder_of(self, model: nn.Sequential) -> Any:
        """The part that reads, which can be taken over from a language model."""
        return model[0].encoder

    def body(self, model: nn.Sequential) -> nn.Module:
        """The part before the head, which gives a vector for each text."""
        return model[0]


def text_head(
    n_in: int, n_out: int, lin_ftrs: Sequence[int] = (50,), ps: Sequence[float] = (0.4, 0.1)
) -> nn.Sequential:
    """Features `(bs, n_in)` to `(bs, n_out)`: before each linear layer BatchNorm and dropout, between two a ReLU.

    `lin_ftrs` are the sizes between, `ps` the dropouts, one for each linear layer. Raises ValueError where there are
    not as many.
    """
    sizes = [n_in, *lin_ftrs, n_out]
    if len(ps) != len(sizes) - 1:
        raise ValueError(f"{len(sizes) - 1} linear layers need as many dropouts, got {len(ps)}: change ps or lin_ftrs.")
    layers: list[nn.Module] = []
    for before, after, p in zip(sizes, sizes[1:], ps, strict=False):
        layers += [nn.BatchNorm1d(before), nn.Dropout(p), nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@portable
def split_classifier(model: nn.Sequential) -> list[list[nn.Parameter]]:
    """A layer group for the embedding, for each layer that reads, and for the head."""
    body: Any = model[0]
    return [*body.layer_groups(), list(model[1].parameters())]
