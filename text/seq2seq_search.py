"""The likeliest translation that a search finds, rather than the likeliest token each time."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["beam_search"]


def beam_search(model: Any, x: Tensor, beam_sz: int, length_power: float = 1.0) -> Tensor:
    """`(n,)` ids that a `Seq2Seq` model writes for a source `x`, `(1, n)` int64, without the first token and the end.

    After each token the `beam_sz` likeliest beginnings are kept; with 1 that is the likeliest token each time. Of those
    that end, the one wins whose log-probability divided by `length ** length_power` is largest, so that short ones have
    no advantage (Wu et al. 2016, arXiv:1609.08144, section 7, with a simpler divisor). Raises ValueError for a
    `beam_sz` below 1.
    """
    if beam_sz < 1:
        raise ValueError(f"beam_sz={beam_sz}: the number of beginnings to keep, 1 or more.")
    memory, state = model.read(x)
    texts, scores = x.new_full((1, 1), model.begin), torch.zeros(1, device=x.device)
    ended: list[tuple[float, Tensor]] = []
    for length in range(1, model.max_len + 1):
        logits, state = model.decoder(texts[:, -1:], state, memory)
        totals = scores[:, None] + logits[:, -1].float().log_softmax(-1)
        scores, places = totals.flatten().topk(min(beam_sz, totals.numel()))
        rows, tokens = places // totals.shape[1], places % totals.shape[1]
        texts, state = torch.cat([texts[rows], tokens[:, None]], 1), state[:, rows]
        is_end = tokens == model.pad
        ended += [(scores[i].item() / length**length_power, texts[i, 1:-1]) for i in is_end.nonzero()[:, 0].tolist()]
        if len(ended) >= beam_sz or is_end.all():
            break
        texts, scores, state = texts[~is_end], scores[~is_end], state[:, ~is_end]
    return max(ended, key=lambda pair: pair[0])[1] if ended else texts[scores.argmax(), 1:]
