"""Words with a label each: what kind of name, or which part of speech, every word of a sentence is.

    block = DataBlock((WordsBlock, TokenCategoryBlock), splitter=RandomSplitter(0.2, seed=0))
    data = block.databunch(read_conll("train.txt"))           # [(["Bob", "lives", …], ["B-PER", "O", …]), …]
    x, y = data.one_batch()                                   # (64, n) int64 each; y is -100 where no label is

A tokenizer may part a word into several tokens. The label is that of the first (Devlin et al. 2019, arXiv:1810.04805,
section 5.3); others, padding and special tokens have -100, which `CrossEntropyLoss` ignores.
"""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data import Block, CategoryBlock, Transform
from .blocks import as_tokenizer, shortened
from .numericalize import Numericalize
from .special import BOS, EOS, PAD, SPECIAL
from .tokenizer import WordTokenizer

__all__ = ["NO_LABEL", "AlignLabels", "TokenCategoryBlock", "WordsBlock"]

NO_LABEL = -100
_LISTS = (list, tuple, np.ndarray)  # as a cell of a table may hold an array
_TO_PART = WordTokenizer(rules=(), lower=False)  # a text that is not parted into words


@dataclass
class WordsBlock(Block):
    """A sentence parted into words, encoded as a row for each token, `(n, 2)` int64: its number, and its word's.

    The word's number stands at the token that has its label, at others -1. Batches are of tokens alone, `(bs, n)`,
    padded at the end. The raw value is a list of words; a text is parted into words and punctuation.

    `tokenizer` parts words further, and `vocab`, `min_freq` and `max_vocab` are as in `TextBlock`.
    """

    tokenizer: Any = None
    vocab: list[str] | None = field(default=None, repr=False)
    min_freq: int = 3
    max_vocab: int = 60_000

    is_sequence: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    def __post_init__(self):
        self.tokenizer = as_tokenizer(self.tokenizer)
        own = getattr(self.tokenizer, "vocab", None)
        self.vocab = Numericalize(self.vocab or own, own_vocab=own is not None).vocab
        self._known: dict[str, list[str]] = {}  # words and their tokens

    def read_ahead(self, values: Sequence[Any], n_workers: int | None = None) -> "WordsBlock":
        """A copy that has parted all words of `values` into tokens, unless the tokenizer takes whole sentences."""
        block = replace(self)
        block._known = dict(self._known)
        if not self._is_of_sentences:
            for word in {word: None for value in values for word in _words_or_none(value) if word not in self._known}:
                with contextlib.suppress(Exception):  # of the tokenizer, which `encode` meets again and reports
                    block._known[word] = _pieces(self.tokenizer, word)
        return block

    def setup(self, values: Sequence[Any]) -> "WordsBlock":
        """A copy that has learned the vocabulary of the training sentences."""
        if self.vocab is not None:
            return self
        known = self.read_ahead(values)._known
        words = (word for value in values for word in _words_or_none(value))
        counts = Counter(token for word in words for token in known.get(word, []))
        block = replace(self, vocab=Numericalize(None, self.min_freq, self.max_vocab).setup(counts).vocab)
        block._known = known
        return block

    @property
    def n_out(self) -> int | None:
        """The size of the vocabulary."""
        return None if self.vocab is None else len(self.vocab)

    @property
    def pad_id(self) -> int:
        """The number of `xxpad`."""
        return self._numericalize.number(PAD)

    def words(self, value: Any) -> list[str]:
        """The words of a raw value. Raises TypeError for what is none, ValueError where there are none."""
        words = _TO_PART(value) if isinstance(value, str) else value
        if not isinstance(words, _LISTS) or not all(isinstance(word, str) for word in words):
            raise TypeError(f"WordsBlock needs a list of words, or a text, got {str(value)[:60]!r}.")
        if not len(words):
            raise ValueError("the sentence has no words: leave such items out.")
        return list(words)

    def encode(self, value: Any) -> Tensor:
        """Raises TypeError for what is no list of words, ValueError for an empty one, and a word without a token."""
        words = self.words(value)
        tokens, owners = self._tokens(words)
        bearers = _bearers(tokens, owners)
        if lost := [i for i in range(len(words)) if i not in bearers]:
            raise ValueError(
                f"the tokenizer gives no token for word {lost[0]}, {words[lost[0]]!r}: leave such words out"
                + (", or raise its max_len." if getattr(self.tokenizer, "max_len", None) else ".")
            )
        marks = torch.full((len(tokens),), -1)
        marks[list(bearers.values())] = torch.tensor(list(bearers))
        return torch.stack([self._numericalize.encode(tokens), marks], 1)

    def collate(self, values: Sequence[Tensor]) -> Tensor:
        """`(bs, n)` int64: the tokens' numbers, padded at the end to the longest."""
        return pad_sequence([value[:, 0] for value in values], batch_first=True, padding_value=self.pad_id)

    def decode(self, encoded: Tensor) -> str:
        """The text of token numbers `(n,)`, of padded ones too, or of what `encode` gives."""
        numbers = encoded[:, 0] if encoded.ndim == 2 else encoded
        tokens = self._numericalize.decode(numbers[numbers != self.pad_id])
        if hasattr(self.tokenizer, "decode"):
            return self.tokenizer.decode(tokens)
        return " ".join(token for token in tokens if token not in (BOS, EOS))

    def text(self, value: str) -> str:
        return shortened(value)

    @property
    def _is_of_sentences(self) -> bool:
        """Whether the tokenizer parts all words of a sentence at once, as those of pretrained transformers do."""
        return hasattr(self.tokenizer, "of_words")

    def _tokens(self, words: list[str]) -> tuple[list[str], list[int | None]]:
        """The tokens of a sentence, and of which word each is; None for special ones around."""
        tokens: list[str]
        owners: list[int | None]
        if self._is_of_sentences:
            found = zip(*self.tokenizer.of_words(words), strict=True)
            tokens, owners = map(list, zip(*(pair for pair in found if pair[0] != PAD), strict=True))
        else:
            pieces = [self._pieces(word) for word in words]
            tokens, owners = list(chain(*pieces)), [i for i, parts in enumerate(pieces) for _ in parts]
        is_begun = not self._has_bos or tokens[:1] == [BOS]
        return (tokens, owners) if is_begun else ([BOS, *tokens], [None, *owners])

    def _pieces(self, word: str) -> list[str]:
        return self._known[word] if word in self._known else _pieces(self.tokenizer, word)

    @cached_property
    def _has_bos(self) -> bool:
        return BOS in (self.vocab or [])

    @cached_property
    def _numericalize(self) -> Numericalize:
        return Numericalize(self.vocab, own_vocab=getattr(self.tokenizer, "vocab", None) is not None)


def _pieces(tokenizer: Any, word: str) -> list[str]:
    """The tokens of a word; padding is none."""
    return [token for token in tokenizer(word) if token != PAD]


def _words_or_none(value: Any) -> list[str]:
    """The words of a raw value; none of one that `encode` will report."""
    words = _TO_PART(value) if isinstance(value, str) else value
    return [word for word in words if isinstance(word, str)] if isinstance(words, _LISTS) else []


def _bearers(tokens: list[str], owners: list[int | None]) -> dict[int, int]:
    """For each word the place of the token that has its label: the first that is a part of it, not a mark before it."""
    bearers: dict[int, int] = {}
    for place, (token, owner) in enumerate(zip(tokens, owners, strict=True)):
        is_first = owner not in bearers or (tokens[bearers[owner]] in SPECIAL and token not in SPECIAL)
        if owner is not None and is_first:
            bearers[owner] = place
    return bearers


@dataclass(frozen=True)
class AlignLabels(Transform):
    """Moves the labels of a sample `(words, labels)` to the tokens that bear them; others get -100."""

    def __call__(self, sample: tuple, rand: Any) -> tuple:
        if len(sample) != 2:
            return sample
        words, labels = sample
        marks = words[:, 1]
        if len(labels) != (n := int(marks.max()) + 1):
            raise ValueError(f"there are {len(labels)} labels for {n} words: each word has one.")
        return words, labels[marks.clamp(min=0)].where(marks >= 0, NO_LABEL)


@dataclass
class TokenCategoryBlock(Block):
    """A label for each word of a `WordsBlock`, encoded as its place in the vocabulary: `(n_words,)` int64.

    In a batch they stand at the tokens that bear them, and -100 at all others. `vocab` is learned from the training
    items where it is not given, sorted.
    """

    vocab: list | None = None

    loss: ClassVar = "CrossEntropyLoss"
    learns: ClassVar[bool] = True
    item_tfms: ClassVar = (AlignLabels(),)

    def setup(self, values: Sequence[Any]) -> "TokenCategoryBlock":
        if self.vocab is not None:
            return self
        return replace(self, vocab=CategoryBlock().setup([label for v in values for label in _labels(v)]).vocab)

    @property
    def n_out(self) -> int | None:
        return None if self.vocab is None else len(self.vocab)

    def encode(self, value: Any) -> Tensor:
        """Raises TypeError for what is no list of labels, ValueError for one that is not in the vocabulary."""
        return torch.stack([self._one.encode(label) for label in _labels(value)])

    def collate(self, values: Sequence[Tensor]) -> Tensor:
        """`(bs, n)` int64, padded at the end with -100."""
        return pad_sequence(list(values), batch_first=True, padding_value=NO_LABEL)

    def decode(self, encoded: Tensor) -> list:
        """The labels, one for each word."""
        return [self._one.decode(number) for number in encoded[encoded >= 0]]

    def text(self, value: Sequence) -> str:
        return shortened(" ".join(map(str, value)))

    @cached_property
    def _one(self) -> CategoryBlock:
        return CategoryBlock(self.vocab)


def _labels(value: Any) -> Any:
    if isinstance(value, _LISTS) and len(value):
        return value
    raise TypeError(f"TokenCategoryBlock needs a list of labels, one for each word, got {str(value)[:60]!r}.")
