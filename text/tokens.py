"""Many tokenised texts in little memory: each distinct token once, and numbers.

>>> tokens = Tokens.of([["a", "b"], ["b", "b", "c"]])
>>> tokens.words, tokens.ids.tolist(), tokens.ends.tolist(), tokens[1]
(['a', 'b', 'c'], [0, 1, 1, 1, 2], [2, 5], ['b', 'b', 'c'])
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Tokens"]


@dataclass(frozen=True, eq=False)
class Tokens:
    """Text i consists of `words[id]` for each of `ids[ends[i - 1]:ends[i]]`.

    `words` in the order in which they come first, `ids` int32, `ends` int64. A text without tokens could not be
    tokenised.
    """

    words: list[str]
    ids: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> "Tokens":
        """The tokens of each text."""
        number = _Numbers()
        parts = [np.fromiter(map(number.__getitem__, tokens), np.int32, len(tokens)) for tokens in texts]
        return cls(list(number), _joined(parts, np.int32), np.cumsum([len(part) for part in parts], dtype=np.int64))

    @classmethod
    def join(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """The texts of several, one after the other."""
        number = _Numbers()
        ids = []
        for part in parts:
            new = np.fromiter(map(number.__getitem__, part.words), np.int32, len(part.words))
            ids.append(new[part.ids])
        begins = np.cumsum([0, *(len(part.ids) for part in parts)])
        ends = [part.ends + begin for part, begin in zip(parts, begins, strict=False)]
        return cls(list(number), _joined(ids, np.int32), _joined(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, text: int) -> list[str]:
        return [self.words[number] for number in self.ids[self.span(text)]]

    def span(self, text: int) -> slice:
        """Where a text is among `ids`."""
        return slice(int(self.ends[text - 1]) if text else 0, int(self.ends[text]))

    def counts(self, texts: Iterable[int]) -> dict[str, int]:
        """How often each token is in these texts."""
        total = np.zeros(len(self.words), np.int64)
        for text in texts:
            np.add.at(total, self.ids[self.span(text)], 1)
        return {word: int(count) for word, count in zip(self.words, total, strict=True) if count}


class _Numbers(dict):
    """Numbers that are given in the order in which they are asked for."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype)
