"""The dropouts of AWD-LSTM: of weights, of words, and of features for a whole sequence.

    rnn = WeightDropLSTM(400, 1152, weight_p=0.2)
    output, (h, c) = rnn(RNNDropout(0.25)(embedded))            # (bs, seq, 400) to (bs, seq, 1152)

Merity, Keskar, Socher 2017, "Regularizing and optimizing LSTM language models", arXiv:1708.02182.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["EmbeddingDropout", "RNNDropout", "WeightDropLSTM"]


class RNNDropout(nn.Module):
    """Drops the same features at all places of a sequence `(bs, seq, n)`; which ones, differs from row to row.

    Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks",
    arXiv:1512.05287, called variational or locked.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.p)


class EmbeddingDropout(nn.Embedding):
    """An embedding that drops whole words: all places of a batch where a dropped word stands are zero.

    The words' vectors are scaled after they were looked up, so that the cost does not grow with the vocabulary.
    """

    def __init__(self, vocab_sz: int, emb_sz: int, embed_p: float):
        super().__init__(vocab_sz, emb_sz)
        self.embed_p = embed_p

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, embed_p={self.embed_p}"

    def forward(self, input: Tensor) -> Tensor:
        embedded = super().forward(input)
        if not self.training or not self.embed_p:
            return embedded
        kept = F.dropout(self.weight.new_ones(self.num_embeddings, 1), self.embed_p)
        return embedded * F.embedding(input, kept)


class WeightDropLSTM(nn.LSTM):
    """One LSTM layer that drops weights from hidden state to hidden state (DropConnect), the same for a whole sequence.

    `(bs, seq, n_in)` to `(bs, seq, n_out)`. It is computed by the same fused kernel as `nn.LSTM`; cuDNN's gets all
    weights in one piece of memory, as it wants them. Within autocast to a dtype for which this CPU has no such kernel
    it stays with float32, where `nn.LSTM` raises an error.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, n_in: int, n_out: int, weight_p: float):
        super().__init__(n_in, n_out, batch_first=True)
        self.weight_p = weight_p

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight_p={self.weight_p}"

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if _must_stay_with_float32(input.device.type):
            with torch.autocast("cpu", enabled=False):
                return self._forward(input.float(), None if hx is None else (hx[0].float(), hx[1].float()))
        return self._forward(input, hx)

    def _forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not self.training or not self.weight_p:
            return super().forward(input, hx)
        if hx is None:
            zeros = input.new_zeros(1, len(input), self.hidden_size)
            hx = (zeros, zeros)
        output, h, c = torch.lstm(input, hx, self._dropped(), True, 1, 0.0, True, False, True)  # type: ignore[arg-type]
        return output, (h, c)

    def _dropped(self) -> list[Tensor]:
        """The layer's weights in the order of the kernel, those from hidden to hidden dropped."""
        dropped = F.dropout(self.weight_hh_l0, self.weight_p)
        weights = [self.weight_ih_l0, dropped, self.bias_ih_l0, self.bias_hh_l0]
        return _in_one_piece(weights) if dropped.is_cuda else weights


def _in_one_piece(weights: list[Tensor]) -> list[Tensor]:
    """The same weights one after the other in memory."""
    parts = torch.cat([w.flatten() for w in weights]).split([w.numel() for w in weights])
    return [part.view_as(w) for part, w in zip(parts, weights, strict=True)]


def _must_stay_with_float32(device: str) -> bool:
    return device == "cpu" and torch.is_autocast_enabled("cpu") and not _has_kernel(torch.get_autocast_dtype("cpu"))


@lru_cache
def _has_kernel(dtype: torch.dtype) -> bool:
    """Whether this CPU trains an LSTM in `dtype`, found by asking it for the smallest one."""
    zeros, state = torch.zeros(4, 1), torch.zeros(1, 1, 1)
    weights = [zeros, zeros, zeros[:, 0], zeros[:, 0]]
    try:
        with torch.autocast("cpu", dtype):
            torch.lstm(state, [state, state], weights, True, 1, 0.0, True, False, True)
    except RuntimeError:
        return False
    return True
