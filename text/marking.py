"""From the fields of an item to the tokens of its text, with those that mark where it, and each field, begins.

>>> Marking(str.split)(("a title", "the text"))
['xxbos', 'xxfld', '1', 'a', 'title', 'xxfld', '2', 'the', 'text']
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from .special import BOS, FLD, PAD

__all__ = ["Marking"]


@dataclass(frozen=True)
class Marking:
    """Tokenises fields, one or several, as one text that begins with `xxbos`, and its fields with `xxfld n`.

    A tokenizer with a vocabulary that lacks these tokens, as one of a pretrained transformer, gets the fields as one
    text, and writes the tokens of its own.
    """

    tokenizer: Any

    def __call__(self, fields: Sequence[str]) -> list[str]:
        """The tokens. Raises TypeError where the tokenizer gives anything but a list of texts."""
        return self.batch([fields])[0]

    def batch(self, texts: Sequence[Sequence[str]]) -> list[list[str]]:
        """The tokens of several texts."""
        if not self._marks:
            return self._tokens([" ".join(fields) for fields in texts])
        parts = iter(self._tokens([part for fields in texts for part in _parts(fields)]))
        return [self._marked([next(parts) for _ in _parts(fields)]) for fields in texts]

    @property
    def around(self) -> tuple[int, int]:
        """How many tokens stand before and after those of the text itself, in every text."""
        before, after = getattr(self.tokenizer, "around", (0, 0))  # of its own
        return before + self._marks, after

    @property
    def _marks(self) -> bool:
        vocab = getattr(self.tokenizer, "vocab", None)
        return vocab is None or BOS in vocab

    def _marked(self, parts: list[list[str]]) -> list[str]:
        if len(parts) == 1:
            return [BOS, *parts[0]]
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [BOS, *chain.from_iterable([FLD, *number, *tokens] for number, tokens in pairs)]

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        if hasattr(self.tokenizer, "batch"):
            return [_without_padding(tokens) for tokens in self.tokenizer.batch(texts)]
        return [_without_padding(_checked(self.tokenizer(text), text)) for text in texts]


def _parts(fields: Sequence[str]) -> list[str]:
    """A single field; of several the number of each, and then itself."""
    if len(fields) == 1:
        return [fields[0]]
    return [part for number, field in enumerate(fields, 1) for part in (str(number), field)]


def _without_padding(tokens: list[str]) -> list[str]:
    """The tokens but for padding: by that a model knows where a text ends, and somebody may have written it in one."""
    return [token for token in tokens if token != PAD] if PAD in tokens else tokens


def _checked(tokens: Any, text: str) -> list[str]:
    if isinstance(tokens, (list, tuple)) and all(isinstance(token, str) for token in tokens):
        return list(tokens)
    raise TypeError(f"the tokenizer gave {str(tokens)[:60]!r} for {text[:40]!r}: it returns a list of texts.")
