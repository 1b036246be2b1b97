"""Whole texts as vectors: a network reads them piece by piece, and what it gave at each token is pooled.

    encoder = SentenceEncoder(AWD_LSTM(vocab_sz=60_000), seq_len=72, max_len=1440)
    features = encoder(tokens)                     # (64, 900) int64, padded at the ends, to (64, 1200)

Howard & Ruder 2018, arXiv:1801.06146, section 3.3: BPTT for text classification, and concat pooling. Padding is left
out of the pool, so what comes out of a text is the same in any batch.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..callbacks.nested import map_tensors
from .special import PAD_ID

__all__ = ["SentenceEncoder", "text_lengths"]


class SentenceEncoder(nn.Module):
    """Token ids `(bs, n)` padded at the ends to `(bs, 3 * emb_sz)`: the last token's output, the largest, and the mean.

    `encoder` reads `seq_len` tokens at a time, and goes on from the state that the piece before has left; gradients
    stay within a piece, unless `cuts_gradients` is False. The last `max_len` tokens of each text are pooled. What
    stands before the last `max_len` places of the batch is read without keeping anything for the backward pass: memory
    does not grow with longer texts.
    """

    def __init__(self, encoder: Any, seq_len: int = 72, max_len: int = 1440, pad: int = PAD_ID):
        super().__init__()
        if not 0 < seq_len <= max_len:
            raise ValueError(f"seq_len={seq_len}, max_len={max_len}: a piece has 1 token or more, and at most max_len.")
        self.encoder, self.seq_len, self.max_len, self.pad = encoder, seq_len, max_len, pad
        self.n_features: int = 3 * encoder.emb_sz
        self.cuts_gradients = True

    def extra_repr(self) -> str:
        return f"seq_len={self.seq_len}, max_len={self.max_len}"

    def forward(self, x: Tensor) -> Tensor:
        ends = text_lengths(x, self.pad)
        state, pooled = None, []
        for begin in range(0, x.shape[1], self.seq_len):
            output, state = self.encoder(x[:, begin : begin + self.seq_len], state)
            if begin + self.seq_len <= x.shape[1] - self.max_len:
                output = output.detach()
            state = map_tensors(Tensor.detach, state) if self.cuts_gradients else state
            pooled.append(_pooled(output, begin, ends - self.max_len, ends))
        return _joined(pooled, ends.clamp(max=self.max_len))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Those of the network that reads."""
        return self.encoder.layer_groups()


def text_lengths(x: Tensor, pad: int) -> Tensor:
    """How many of the tokens `(bs, n)` of each text there are before its padding: `(bs,)` int64, at least 1."""
    return (x != pad).sum(1).clamp(min=1)


class _Pooled(NamedTuple):
    """What the outputs of one piece add to the pool, `(bs, emb_sz)` each."""

    last: Tensor  # the output of the text's last token if it is here, else 0
    largest: Tensor  # -inf where no token of the text is here
    total: Tensor


def _pooled(output: Tensor, begin: int, starts: Tensor, ends: Tensor) -> _Pooled:
    """Outputs `(bs, seq, emb_sz)` of the tokens from `begin` on; of a text those from its start to its end count."""
    places = begin + torch.arange(output.shape[1], device=output.device)
    counts = (places >= starts[:, None]) & (places < ends[:, None])
    is_last = places == ends[:, None] - 1
    last, total = (torch.stack([is_last, counts], 1).to(output.dtype) @ output).unbind(1)
    return _Pooled(last, output.masked_fill(~counts[..., None], -torch.inf).amax(1), total)


def _joined(pooled: list[_Pooled], lengths: Tensor) -> Tensor:
    """The pool of all pieces, `(bs, 3 * emb_sz)`."""
    last, largest, total = (torch.stack(parts) for parts in zip(*pooled, strict=True))
    return torch.cat([last.sum(0), largest.amax(0), total.sum(0) / lengths[:, None]], 1)
