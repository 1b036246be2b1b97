"""Text from a language model: the next words, drawn at random or searched for.

    ids = generate(model, prompt, n_words=40, temperature=0.8, top_p=0.9)       # prompt (n,) int64 to (40,)
    ids = beam_search(model, prompt, n_words=40, beam_sz=50)

The model reads each word once: what it remembers is handed on from word to word.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..callbacks.nested import map_tensors

__all__ = ["beam_search", "generate", "likely"]


def generate(model: Any, prompt: Tensor, n_words: int, temperature: float = 1.0, top_k: int | None = None,
             top_p: float | None = None, banned: Sequence[int] = ()) -> Tensor:  # fmt: skip
    """`(n_words,)` ids that go on after `prompt`, `(n,)` int64, each drawn by its probability after those before it.

    Logits are divided by `temperature`: below 1 likely words get likelier, 0 always takes the likeliest. `top_k` and
    `top_p` narrow the choice, see `likely`. Ids in `banned` never come, unless there are no others. Numbers are drawn
    from torch's global generator. Raises ValueError for an argument out of its range.
    """
    _check_drawing(n_words, temperature, top_k, top_p)
    x, state, found = _as_batch(model, prompt), None, []
    for _ in range(n_words):
        logits, state = _next_logits(model, x, state, banned)
        x = _drawn(logits, temperature, top_k, top_p)
        found.append(x)
    return torch.cat(found, 1)[0] if found else prompt[:0]


def beam_search(model: Any, prompt: Tensor, n_words: int, beam_sz: int = 200, banned: Sequence[int] = ()) -> Tensor:
    """`(n_words,)` ids that go on after `prompt`, `(n,)` int64: the likeliest text that the search finds.

    The `beam_sz` likeliest beginnings are kept after each word; with a `beam_sz` of 1 that is the likeliest word each
    time. Raises ValueError for an argument out of its range.
    """
    if beam_sz < 1:
        raise ValueError(f"beam_sz={beam_sz}: the number of beginnings to keep, 1 or more.")
    _check_n_words(n_words)
    texts, state, x = prompt.new_empty(1, 0), None, _as_batch(model, prompt)
    scores = torch.zeros(1, device=prompt.device)
    for _ in range(n_words):
        logits, state = _next_logits(model, x, state, banned)
        totals = scores[:, None] + logits.log_softmax(-1)
        scores, places = totals.flatten().topk(min(beam_sz, totals.numel()))
        rows, x = places // totals.shape[1], (places % totals.shape[1])[:, None]
        texts, state = torch.cat([texts[rows], x], 1), _rows(state, rows)
    return texts[0]


def likely(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """`logits` `(…, vocab_sz)` with -inf for all words but the likely ones.

    `top_k` keeps that many, `top_p` the fewest whose probabilities together reach it (nucleus sampling, Holtzman et al.
    2020, arXiv:1904.09751). The likeliest always stays.
    """
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        ordered, order = logits.sort(descending=True)
        probs = ordered.softmax(-1)
        is_late = probs.cumsum(-1) - probs >= top_p
        is_late[..., 0] = False
        logits = logits.masked_fill(is_late.gather(-1, order.argsort(-1)), -torch.inf)
    return logits


def _as_batch(model: Any, prompt: Tensor) -> Tensor:
    """`prompt` as a batch of one, cut to what the model can look back upon."""
    if not len(prompt):
        raise ValueError("There is no word to go on after: begin with one.")
    ctx_len = getattr(model.encoder, "ctx_len", None)
    return prompt[None] if ctx_len is None else prompt[None, -ctx_len:]


def _next_logits(model: Any, x: Tensor, state: Any, banned: Sequence[int]) -> tuple[Tensor, Any]:
    """Logits `(bs, vocab_sz)` float32 of the word after `x`, `(bs, n)`, and the state to go on from."""
    output, state = model.encoder(x, state)
    logits = model.decoder(output[:, -1:])[:, -1].float()
    if 0 < len(banned) < logits.shape[-1]:
        logits[:, list(banned)] = -torch.inf
    return logits, state


def _rows(state: Any, rows: Tensor) -> Any:
    """The state of a batch of these rows of the batch that `state` is of."""
    return map_tensors(lambda t: t[rows], state)


def _drawn(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """One id for each row, `(bs, 1)`."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return likely(logits / temperature, top_k, top_p).softmax(-1).multinomial(1)


def _check_drawing(n_words: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    _check_n_words(n_words)
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature}: 0, which always takes the likeliest word, or more.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}: the number of words to choose from, 1 or more.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: the probability that the words to choose from have together, above 0 to 1.")


def _check_n_words(n_words: int) -> None:
    if n_words < 0:
        raise ValueError(f"n_words={n_words}: the number of words to add, 0 or more.")
