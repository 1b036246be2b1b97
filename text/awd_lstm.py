"""AWD-LSTM, the language model that ULMFiT is built on: LSTM layers with dropout of every kind.

    encoder = AWD_LSTM(vocab_sz=60_000, emb_sz=400, n_hid=1152, n_layers=3)
    output, state = encoder(tokens)                # (64, 72) int64 to (64, 72, 400)
    output, state = encoder(next_tokens, state)    # goes on reading

Merity, Keskar, Socher 2017, arXiv:1708.02182; Howard & Ruder 2018, arXiv:1801.06146.
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from ..data.portable import portable
from .dropouts import EmbeddingDropout, RNNDropout, WeightDropLSTM

__all__ = ["AWD_LSTM", "State"]

State = list[tuple[Tensor, Tensor]]  # what a network remembers, two tensors (bs, …) for each layer

_SIZES = {"emb_sz": 400, "n_hid": 1152, "n_layers": 3}


@portable
class AWD_LSTM(nn.Module):
    """Token ids `(bs, seq)` int64 to outputs `(bs, seq, emb_sz)`, and the state after them, from which it can go on.

    Layers have `n_hid` units, the last has `emb_sz`, so that a decoder can share the embedding's weights. `input_p`
    drops features of embedded words, `hidden_p` those between layers, `weight_p` weights from hidden to hidden state,
    `embed_p` words. `state` holds hidden and cell state `(bs, n)` of each layer; None begins with zeros.

    `lm_config` and `clas_config` are the settings of a language model and of a classifier, from which those given as
    `config=` deviate; their `output_p` is a dropout after this network.
    """

    lm_config: ClassVar[dict[str, Any]] = {
        **_SIZES, "input_p": 0.25, "hidden_p": 0.15, "weight_p": 0.2, "embed_p": 0.02, "output_p": 0.1,
        "tie_weights": True, "out_bias": True,
    }  # fmt: skip
    clas_config: ClassVar[dict[str, Any]] = {
        **_SIZES, "input_p": 0.4, "hidden_p": 0.3, "weight_p": 0.5, "embed_p": 0.05, "output_p": 0.4,
    }  # fmt: skip
    is_recurrent: ClassVar[bool] = True  # so a language model goes on reading from one batch to the next

    def __init__(self, vocab_sz: int, emb_sz: int = 400, n_hid: int = 1152, n_layers: int = 3, input_p: float = 0.25,
                 hidden_p: float = 0.15, weight_p: float = 0.2, embed_p: float = 0.02):  # fmt: skip
        super().__init__()
        self.emb_sz = emb_sz
        self.embedding = EmbeddingDropout(vocab_sz, emb_sz, embed_p)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        sizes = [emb_sz, *[n_hid] * (n_layers - 1), emb_sz]
        self.rnns = nn.ModuleList(WeightDropLSTM(sizes[i], sizes[i + 1], weight_p) for i in range(n_layers))
        self.dropouts = nn.ModuleList(RNNDropout(hidden_p if i else input_p) for i in range(n_layers))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        output, after = self.embedding(x), []
        for dropout, rnn, before in zip(self.dropouts, self.rnns, state or [None] * len(self.rnns), strict=True):
            hx = before and tuple(t[None].type_as(output) for t in before)  # the state may be in half precision
            output, (h, c) = rnn(dropout(output), hx)
            after.append((h[0], c[0]))
        return output, after

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The parameters of the embedding and of each layer after it."""
        return [list(module.parameters()) for module in (self.embedding, *self.rnns)]
