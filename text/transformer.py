"""A small GPT of our own: what reads the text in a language model or classifier, in place of `AWD_LSTM`.

    encoder = TransformerLM(vocab_sz=10_000, emb_sz=384, n_layers=6, n_heads=6)
    output, state = encoder(tokens)                # (64, 256) int64 to (64, 256, 384)
    output, state = encoder(next_tokens, state)    # sees what was read before

Radford et al. 2019, "Language models are unsupervised multitask learners" (GPT-2), for the layers, their order and
their first weights; places are told by rotation (Su et al. 2021, arXiv:2104.09864), and so have no table.
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from ..data.portable import portable
from .attention import CausalAttention, rotations
from .awd_lstm import State

__all__ = ["TransformerLM"]

_SIZES = {"emb_sz": 384, "n_layers": 6, "n_heads": 6, "n_hid": 1536, "ctx_len": 512}


@portable
class TransformerLM(nn.Module):
    """Token ids `(bs, seq)` int64 to outputs `(bs, seq, emb_sz)`, and the state after them, from which it can go on.

    `n_layers` blocks of attention with `n_heads` and a network of `n_hid` units. `embed_p` drops features of embedded
    words, `resid_p` those that a layer adds, `attn_p` attention. `state` holds keys and values of the last `ctx_len`
    tokens, `(bs, n_heads, n, emb_sz / n_heads)` of each layer; None begins with nothing. Let `ctx_len` be no more than
    the windows of text that it is trained with, or it looks back over distances that it has never seen.

    `lm_config` and `clas_config` are the settings of a language model and of a classifier, from which those given as
    `config=` deviate; their `output_p` is a dropout after this network.
    """

    lm_config: ClassVar[dict[str, Any]] = {
        **_SIZES, "embed_p": 0.1, "resid_p": 0.1, "attn_p": 0.1, "output_p": 0.0, "tie_weights": True,
        "out_bias": False,
    }  # fmt: skip
    clas_config: ClassVar[dict[str, Any]] = {**_SIZES, "embed_p": 0.2, "resid_p": 0.2, "attn_p": 0.2, "output_p": 0.4}
    is_recurrent: ClassVar[bool] = False  # a language model begins each batch anew

    def __init__(self, vocab_sz: int, emb_sz: int = 384, n_layers: int = 6, n_heads: int = 6, n_hid: int = 1536,
                 ctx_len: int = 512, embed_p: float = 0.1, resid_p: float = 0.1, attn_p: float = 0.1):  # fmt: skip
        super().__init__()
        self.emb_sz, self.ctx_len, self.head_sz = emb_sz, ctx_len, emb_sz // n_heads
        self.embedding, self.dropout = nn.Embedding(vocab_sz, emb_sz), nn.Dropout(embed_p)
        self.blocks = nn.ModuleList(_Block(emb_sz, n_heads, n_hid, resid_p, attn_p) for _ in range(n_layers))
        self.norm = nn.LayerNorm(emb_sz)
        self._initialise(n_layers)

    def _initialise(self, n_layers: int) -> None:
        """GPT-2's first weights: what is added to the residual stream is the smaller, the more layers add to it."""
        for name, p in self.named_parameters():
            if p.ndim > 1:
                adds = name.endswith(("attention.output.weight", "mlp.2.weight"))
                nn.init.normal_(p, std=0.02 / (2 * n_layers) ** 0.5 if adds else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        n_past = state[0][0].shape[2] if state else 0
        rotation = rotations(n_past + x.shape[1], self.head_sz, x.device)
        output, after = self.dropout(self.embedding(x)), []
        for block, past in zip(self.blocks, state or [None] * len(self.blocks), strict=True):
            output, (k, v) = block(output, rotation, past)
            after.append((k[:, :, -self.ctx_len :], v[:, :, -self.ctx_len :]))
        return self.norm(output), after

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The parameters of the embedding and of each block after it; the last has those of the norm, too."""
        groups = [list(module.parameters()) for module in (self.embedding, *self.blocks)]
        groups[-1] += self.norm.parameters()
        return groups


class _Block(nn.Module):
    """Attention, then two linear layers, each of normalised input and added to what came in."""

    def __init__(self, emb_sz: int, n_heads: int, n_hid: int, resid_p: float, attn_p: float):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(emb_sz), nn.LayerNorm(emb_sz)])
        self.attention = CausalAttention(emb_sz, n_heads, attn_p)
        self.mlp = nn.Sequential(nn.Linear(emb_sz, n_hid), nn.GELU(), nn.Linear(n_hid, emb_sz))
        self.dropout = nn.Dropout(resid_p)

    def forward(self, x: Tensor, rotation: Tensor,
                past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
        attended, seen = self.attention(self.norms[0](x), rotation, past)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.norms[1](x))), seen
