"""Tokens as numbers and back.

>>> numericalize = Numericalize(min_freq=2).setup({"the": 5, "film": 2, "rare": 1})
>>> numericalize.vocab[-2:], numericalize.encode(["the", "rare"]).tolist()
(['the', 'film'], [9, 0])
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.portable import Portable
from ..learner.files import save_text
from .special import PAD, PAD_ID, SPECIAL, UNK

__all__ = ["Numericalize", "make_vocab"]


def make_vocab(counts: Mapping[str, int], min_freq: int = 3, max_vocab: int = 60_000) -> list[str]:
    """The special tokens, then those that are there `min_freq` times or more, the most frequent first.

    Of equally frequent ones the alphabet decides, so that the same texts give the same numbers. At most `max_vocab` in
    all.
    """
    if max_vocab <= len(SPECIAL):
        raise ValueError(f"max_vocab={max_vocab} leaves no place for a word beside the {len(SPECIAL)} special tokens.")
    frequent = ((-count, token) for token, count in counts.items() if count >= min_freq and token not in SPECIAL)
    return [*SPECIAL, *(token for _, token in sorted(frequent))][:max_vocab]


@dataclass
class Numericalize(Portable):
    """Tokens as their places in a vocabulary; one that is not in it as that of `xxunk`.

    `setup` learns the vocabulary where none is given. A list of words is given the special tokens in front, unless it
    has them: `xxunk`, and `xxpad` with the number 1. `own_vocab` says that it is that of a tokenizer with special
    tokens of its own. Raises ValueError for a vocabulary that has a token twice, or `xxpad` elsewhere.
    """

    vocab: list[str] | None = field(default=None, repr=False)
    min_freq: int = 3
    max_vocab: int = 60_000
    own_vocab: bool = False

    def __post_init__(self):
        if self.vocab is not None:
            self.vocab = list(self.vocab) if self.own_vocab else _completed(list(self.vocab))
            _check(self.vocab)

    def setup(self, tokens: Mapping[str, int] | Iterable[Sequence[str]]) -> "Numericalize":
        """A copy that has learned its vocabulary from texts' tokens, or from how often each is there."""
        if self.vocab is not None:
            return self
        counts: Any = tokens if isinstance(tokens, Mapping) else Counter(token for text in tokens for token in text)
        return replace(self, vocab=make_vocab(counts, self.min_freq, self.max_vocab))

    def encode(self, tokens: Sequence[str]) -> Tensor:
        """`(n,)` int64."""
        return torch.tensor([self.number(token) for token in tokens], dtype=torch.int64)

    def number(self, token: str) -> int:
        """The place of a token in the vocabulary."""
        return self._index.get(token, self._unknown)

    def decode(self, ids: Tensor | Sequence[int]) -> list[str]:
        """The tokens of numbers. Raises IndexError for a number that no token has."""
        vocab = self.vocab or []
        return [vocab[i] for i in (ids.tolist() if isinstance(ids, Tensor) else ids)]

    def save(self, file: str | Path) -> Path:
        """Write the vocabulary as a JSON list."""
        return save_text(json.dumps(self.vocab, ensure_ascii=False, indent=0), file)

    @classmethod
    def load(cls, file: str | Path) -> "Numericalize":
        """The vocabulary of `save`, or any JSON list of tokens."""
        vocab = json.loads(Path(file).read_text(encoding="utf-8"))
        if not isinstance(vocab, list):
            raise ValueError(f"{file} holds no list of tokens, but a {type(vocab).__name__}.")
        return cls(vocab)

    @cached_property
    def _index(self) -> dict[str, int]:
        if self.vocab is None:
            raise ValueError("There is no vocabulary yet: setup(texts) learns one, or give vocab=[…].")
        return {token: i for i, token in enumerate(self.vocab)}

    @cached_property
    def _unknown(self) -> int:
        return self._index.get(UNK, 0)


def _completed(vocab: list[str]) -> list[str]:
    """The vocabulary with the special tokens that every text may hold."""
    if PAD not in vocab and UNK not in vocab:
        return [*SPECIAL, *(token for token in vocab if token not in SPECIAL)]
    if len(vocab) <= PAD_ID or vocab[PAD_ID] != PAD or UNK not in vocab:
        raise ValueError(
            f"The vocabulary begins with {vocab[:3]}: it needs {UNK!r}, and {PAD!r} as number {PAD_ID}, by which "
            "models know padding. Leave both out, and they are put in front."
        )
    return vocab


def _check(vocab: list[Any]) -> None:
    if wrong := [token for token in vocab if not isinstance(token, str)]:
        raise ValueError(f"The vocabulary holds {wrong[0]!r} ({type(wrong[0]).__name__}): it is a list of texts.")
    if len(set(vocab)) < len(vocab):
        twice = next(token for token, count in Counter(vocab).items() if count > 1)
        raise ValueError(f"The vocabulary holds {twice!r} more than once: each token has one number.")
