"""Causal self-attention with rotary positions, over the tokens of now and those that were read before.

    attention = CausalAttention(emb_sz=384, n_heads=6, drop_p=0.1)
    output, (keys, values) = attention(x, rotations(x.shape[1], 64, x.device))

Keys and values of earlier tokens are handed in as `past`: to go on reading costs no more than the new tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CausalAttention", "rotations"]


def rotations(n: int, head_sz: int, device: torch.device) -> Tensor:
    """Cosines and sines `(2, n, head_sz / 2)` by which places 0 … n − 1 are told apart (Su et al. 2021).

    RoFormer, arXiv:2104.09864: the attention of two tokens depends on the distance of their places alone.
    """
    speeds = 10_000 ** (-torch.arange(0, head_sz, 2, device=device) / head_sz)
    angles = torch.outer(torch.arange(n, device=device), speeds)
    return torch.stack([angles.cos(), angles.sin()])


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Queries or keys `(bs, n_heads, n, head_sz)` turned by their places, in pairs half a head apart."""
    cos, sin = rotation
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).type_as(x)


class CausalAttention(nn.Module):
    """Each token attends to itself and those before it: `(bs, seq, emb_sz)` to the same, and keys and values.

    `drop_p` drops attention. `past` is what an earlier call returned besides the output, `(bs, n_heads, n_past,
    head_sz)` each, or None. Keys are kept unturned: `rotation` is that of all places from the first of `past` on.
    """

    def __init__(self, emb_sz: int, n_heads: int, drop_p: float):
        super().__init__()
        if emb_sz % (2 * n_heads):
            raise ValueError(f"emb_sz={emb_sz} does not part into {n_heads} heads of an even size: change n_heads.")
        self.n_heads, self.drop_p = n_heads, drop_p
        self.inputs, self.output = nn.Linear(emb_sz, 3 * emb_sz), nn.Linear(emb_sz, emb_sz)

    def forward(self, x: Tensor, rotation: Tensor,
                past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
        q, k, v = self.inputs(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0].type_as(k), k], 2), torch.cat([past[1].type_as(v), v], 2)
        n, n_all = q.shape[2], k.shape[2]
        is_whole = n == n_all
        found = F.scaled_dot_product_attention(
            _rotated(q, rotation[:, n_all - n :]), _rotated(k, rotation), v,
            attn_mask=None if is_whole or n == 1 else _not_later(n, n_all, x.device),
            dropout_p=self.drop_p if self.training else 0.0, is_causal=is_whole,
        )  # fmt: skip
        return self.output(found.transpose(1, 2).flatten(2)), (k, v)


def _not_later(n: int, n_all: int, device: torch.device) -> Tensor:
    """Which of `n_all` tokens the last `n` of them may see: a bool mask `(n, n_all)`."""
    return torch.ones(n, n_all, dtype=torch.bool, device=device).tril(n_all - n)
