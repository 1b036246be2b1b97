"""Self-attention between the places of a map."""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SelfAttention"]


class SelfAttention(nn.Module):
    """Each place of a map looks at all others: `(bs, c, h, w)` to the same, the input plus `gamma` times what it saw.

    Zhang et al. 2018 (SAGAN, arXiv:1805.08318). `gamma` starts at zero, so that a network begins as it is without.
    Where the paper keeps the logits small by spectral normalisation, ours are divided by the root of their length, as
    in Vaswani et al. 2017. Time grows with the square of h · w: meant for small maps.
    """

    def __init__(self, n_channels: int):
        super().__init__()
        self.n_key = max(1, n_channels // 8)
        self.query_key_value = nn.Conv2d(n_channels, 2 * self.n_key + n_channels, 1, bias=False)
        self.gamma = nn.Parameter(self.query_key_value.weight.new_zeros(1))
        nn.init.xavier_normal_(self.query_key_value.weight)

    def forward(self, x: Tensor) -> Tensor:
        places = self.query_key_value(x).flatten(2).transpose(1, 2)[:, None]  # (bs, 1 head, h · w, channels)
        query, key, value = places.split([self.n_key, self.n_key, x.shape[1]], dim=-1)
        seen = F.scaled_dot_product_attention(query, key, value)
        return x + self.gamma * seen[:, 0].transpose(1, 2).reshape(x.shape)
