"""Texts that have been tokenised, found again by their content: each is tokenised once, however often it is read.

The numbers of all texts are in one array, which the processes that read data share.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .tokenize_all import tokenize_all
from .tokens import Tokens

__all__ = ["KeptTexts"]


class KeptTexts:
    """Texts – tuples of one or several fields – and their tokens."""

    def __init__(self, tokens: Tokens | None = None, positions: dict[bytes, int] | None = None):
        self.tokens = tokens or Tokens.of([])
        self.positions = positions or {}  # by a hash of the text

    def __len__(self) -> int:
        return len(self.positions)

    def adding(self, texts: Iterable[tuple[str, ...]], tokenizer: Any, n_workers: int | None) -> "KeptTexts":
        """These and further texts; those that the tokenizer fails on are not kept."""
        new = {key: fields for fields in texts if (key := _key(fields)) not in self.positions}
        if not new:
            return self
        tokens = Tokens.join([self.tokens, tokenize_all(list(new.values()), tokenizer, n_workers)])
        n_before = len(self.tokens)
        lengths = np.diff(tokens.ends, prepend=0)
        positions = {key: n_before + i for i, key in enumerate(new) if lengths[n_before + i]}
        return KeptTexts(tokens, {**self.positions, **positions})

    def counts(self, texts: Iterable[tuple[str, ...]]) -> dict[str, int]:
        """How often each token is in `texts`, of those that are kept."""
        return self.tokens.counts(self.positions[key] for key in map(_key, texts) if key in self.positions)

    def ids(self, fields: Sequence[str], numbers: np.ndarray) -> np.ndarray | None:
        """The tokens of a text, of which word i has the number `numbers[i]`; None for one that is not kept."""
        position = self.positions.get(_key(fields))
        return None if position is None else numbers[self.tokens.ids[self.tokens.span(position)]]


def _key(fields: Sequence[str]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for field in fields:
        text = field.encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.digest()
