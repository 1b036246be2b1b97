"""A language model: a network that reads, and a decoder that says how likely each word is to come next.

    model = get_language_model(AWD_LSTM, vocab_size=60_000, drop_mult=0.3)
    logits = model(tokens)                         # (64, 72) int64 to (64, 72, 60000)

`arch` is `AWD_LSTM`, `TransformerLM`, or a class of your own that is called, and built, as these are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from ..callbacks.nested import map_tensors
from ..data.portable import Portable, portable
from .awd_lstm import State
from .config import checked_config, scaled, without
from .dropouts import RNNDropout
from .text_learner import LMLearner

__all__ = ["LanguageModel", "LanguageModelSpec", "get_language_model", "split_language_model"]

_OF_DECODER = ("output_p", "tie_weights", "out_bias")


def get_language_model(arch: Callable[..., nn.Module], vocab_size: int, config: dict[str, Any] | None = None,
                       drop_mult: float = 1.0) -> "LanguageModel":  # fmt: skip
    """A language model of `vocab_size` words with random weights.

    `config` has the settings that deviate from `arch.lm_config`; `drop_mult` multiplies all its dropouts. Raises
    ValueError for a setting that `arch` does not have.
    """
    return LanguageModelSpec(arch, vocab_size, config or {}, drop_mult).build()


@dataclass
class LanguageModelSpec(Portable):
    """The description of a language model, from which it can be built again; the arguments of `get_language_model`."""

    arch: Any
    vocab_sz: int
    config: dict[str, Any] = field(default_factory=dict)
    drop_mult: float = 1.0

    learner: ClassVar[type] = LMLearner  # what an exported file is loaded as

    def __post_init__(self):
        self.config = checked_config(self.arch, "lm_config", self.config)

    def build(self, pretrained: bool = False) -> "LanguageModel":
        """The model with random weights; those that are pretrained are loaded into it."""
        config = scaled(self.config, self.drop_mult)
        encoder = self.arch(self.vocab_sz, **without(config, _OF_DECODER))
        return LanguageModel(encoder, Decoder(encoder, self.vocab_sz, **{name: config[name] for name in _OF_DECODER}))

    def encoder_of(self, model: "LanguageModel") -> nn.Module:
        """The part that reads, which a classifier can take over."""
        return model.encoder


class LanguageModel(nn.Module):
    """Token ids `(bs, seq)` int64 to logits `(bs, seq, vocab_sz)` of the tokens that follow each.

    A recurrent network goes on reading where the batch before it ended, as language-model data is laid out; gradients
    stay within a batch. `reset()` lets it forget, which it also does before a batch of another size.
    """

    def __init__(self, encoder: nn.Module, decoder: "Decoder"):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.state: State | None = None

    def forward(self, x: Tensor) -> Tensor:
        output, state = self.encoder(x, self.state if self._fits(x) else None)
        if self.encoder.is_recurrent:
            self.state = map_tensors(Tensor.detach, state)
        return self.decoder(output)

    def _fits(self, x: Tensor) -> bool:
        return self.state is not None and len(self.state[0][0]) == len(x) and self.state[0][0].device == x.device

    def reset(self) -> None:
        """Forget what was read."""
        self.state = None


class Decoder(nn.Module):
    """Outputs `(bs, seq, emb_sz)` of a network to logits `(bs, seq, vocab_sz)`, by the weights of its embedding.

    Press & Wolf 2017, arXiv:1608.05859; without `tie_weights` they are weights of its own. `output_p` drops features.
    """

    def __init__(self, encoder: Any, vocab_sz: int, output_p: float, tie_weights: bool, out_bias: bool):
        super().__init__()
        self.dropout, self.linear = RNNDropout(output_p), nn.Linear(encoder.emb_sz, vocab_sz, out_bias)
        if out_bias:
            nn.init.zeros_(self.linear.bias)
        if tie_weights:
            self.linear.weight = encoder.embedding.weight
        else:
            nn.init.uniform_(self.linear.weight, -0.1, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(x))


@portable
def split_language_model(model: LanguageModel) -> list[list[nn.Parameter]]:
    """A layer group for each layer that reads, then one of the embedding and the decoder, which know the words."""
    embedding, *layers = model.encoder.layer_groups()  # type: ignore[operator]
    words = {id(p): p for p in [*embedding, *model.decoder.parameters()]}
    return [*layers, list(words.values())]
