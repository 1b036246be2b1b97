"""A classifier of words: what reads a sentence, and a linear layer that says what each token is.

spec = TokenClassifierSpec(AWD_LSTM, vocab_sz=60_000, n_out=9)
model = spec.build()                           # nn.Sequential(TokenEncoder, head)
model(tokens)                                  # (64, 30) int64, padded at the ends, to (64, 30, 9)
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..data.portable import Portable
from .config import checked_config, scaled, without
from .hub import HubClassifierSpec, HubEncoder
from .token_learner import TokenLearner

__all__ = ["HubTokenClassifierSpec", "HubTokenEncoder", "TokenClassifierSpec", "TokenEncoder"]


@dataclass
class TokenClassifierSpec(Portable):
    """The description of a classifier of words, from which it can be built again.

    `config` has the settings that deviate from `arch.clas_config`, and `drop_mult` multiplies all its dropouts.
    """

    arch: Any
    vocab_sz: int
    n_out: int
    config: dict[str, Any] = field(default_factory=dict)
    drop_mult: float = 0.5

    learner: ClassVar[type] = TokenLearner  # what an exported file is loaded as

    def __post_init__(self):
        self.config = checked_config(self.arch, "clas_config", self.config)

    def build(self, pretrained: bool = False) -> nn.Sequential:
        """The model with random weights; those that are pretrained are loaded into it."""
        config = scaled(self.config, self.drop_mult)
        encoder = self.arch(self.vocab_sz, **without(config, ["output_p"]))
        head = nn.Sequential(nn.Dropout(config["output_p"]), nn.Linear(encoder.emb_sz, self.n_out))
        return nn.Sequential(TokenEncoder(encoder), head)

    def encoder_of(self, model: nn.Sequential) -> Any:
        """The part that reads, which can be taken over from a language model."""
        return model[0].encoder


class TokenEncoder(nn.Module):
    """Token ids `(bs, n)` to what `encoder`, a network of a language model, gives at each: `(bs, n, emb_sz)`."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)[0]

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Those of the network."""
        return self.encoder.layer_groups()


@dataclass
class HubTokenClassifierSpec(Portable):
    """The description of a classifier of words: but for its pooling the one of texts that `of_texts` describes."""

    of_texts: HubClassifierSpec

    learner: ClassVar[type] = TokenLearner

    def build(self, pretrained: bool = False) -> nn.Sequential:
        """`nn.Sequential(HubTokenEncoder, head)`: token ids `(bs, n)`, padded at the ends, to `(bs, n, n_out)`."""
        encoder, head = self.of_texts.build(pretrained)
        return nn.Sequential(HubTokenEncoder(encoder.model, self.of_texts.pad, self.of_texts.max_len), head)

    def encoder_of(self, model: nn.Sequential) -> Any:
        """The part that reads."""
        return model[0].model


class HubTokenEncoder(HubEncoder):
    """Token ids `(bs, n)` padded at the ends to what the last layer gives at each token: `(bs, n, n_features)`.

    Of longer texts pieces of `max_len` tokens are read, each for itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._piece(piece) for piece in x.split(self.max_len, 1)], 1)

    def _piece(self, x: Tensor) -> Tensor:
        is_first = torch.arange(x.shape[1], device=x.device) == 0  # a text that has ended needs one to attend to
        return self.model(input_ids=x, attention_mask=((x != self.pad) | is_first).long()).last_hidden_state
