"""Texts: read from tables or files, tokenised once, numbered by a vocabulary that is learned, written out again."""

import codecs
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data import Block, ColReader, Dataset, Transform
from ..data.columns import Columns
from .kept_texts import KeptTexts
from .lm_data import LMLoader, lm_loader
from .marking import Marking
from .numericalize import Numericalize
from .special import BOS, EOS, PAD
from .subword import SubwordTokenizer
from .tokenizer import WordTokenizer

__all__ = ["TextBlock", "as_tokenizer", "shortened"]

SHOWN = 150  # characters of a text in a table
EMPTY = ("",)  # the fields of a text in which nothing is written


@dataclass
class TextBlock(Block):
    """A text, encoded as the numbers of its tokens: `(n,)` int64.

    The raw value is a text, several (fields, each marked by `xxfld n`), a row of which `text_cols` are read, or a
    `Path`, of a file below `folder` in `encoding`. `tokenizer` is a `WordTokenizer` by default, a `SubwordTokenizer`,
    one of Hugging Face, or a function from a text to a list of texts. `vocab` is learned from the training texts where
    it is not given and the tokenizer has none: tokens that are there `min_freq` times, at most `max_vocab` (see
    `Numericalize`). With `backwards` texts are read from their end.

    Texts of a batch are padded at the end with `xxpad`, which has the number 1 in every vocabulary of ours.

    An empty text counts as missing in training data, which is an error. To predict, it is `xxbos` alone, so that each
    item has its prediction; or `xxpad`, where the tokenizer has no token for it.

    `is_lm` is for language models, whose batches are windows of `seq_len` tokens of all texts one after the other.
    Otherwise texts of about the same length are in a batch.
    """

    tokenizer: Any = None
    vocab: list[str] | None = field(default=None, repr=False)
    is_lm: bool = False
    seq_len: int = 72
    min_freq: int = 3
    max_vocab: int = 60_000
    backwards: bool = False
    text_cols: Columns | None = None
    folder: Path | None = None
    encoding: str = "utf-8"

    loss: ClassVar = "CrossEntropyLoss"  # as the target of a language model
    is_sequence: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    def __post_init__(self):
        self.tokenizer = as_tokenizer(self.tokenizer)
        if self.seq_len < 1:
            raise ValueError(f"seq_len={self.seq_len}: a window holds at least one token.")
        codecs.lookup(self.encoding)  # which says so where there is none of that name
        own = getattr(self.tokenizer, "vocab", None)
        self.vocab = Numericalize(self.vocab or own, own_vocab=own is not None).vocab
        self._kept = KeptTexts()

    @classmethod
    def from_df(cls, text_cols: Columns, tokenizer: Any = None, vocab: list[str] | None = None, is_lm: bool = False,
                seq_len: int = 72, min_freq: int = 3, max_vocab: int = 60_000,
                backwards: bool = False) -> "TextBlock":  # fmt: skip
        """Of rows: one text column, or several, which are marked by `xxfld 1`, `xxfld 2`, …"""
        return cls(tokenizer, vocab, is_lm, seq_len, min_freq, max_vocab, backwards, text_cols)

    @classmethod
    def from_folder(cls, path: str | Path, tokenizer: Any = None, vocab: list[str] | None = None, is_lm: bool = False,
                    seq_len: int = 72, min_freq: int = 3, max_vocab: int = 60_000, backwards: bool = False,
                    encoding: str = "utf-8") -> "TextBlock":  # fmt: skip
        """Of files: a `Path` that is relative is below `path`. Raises NotADirectoryError where that is no folder."""
        if not Path(path).is_dir():
            raise NotADirectoryError(f"{path} is not a folder: TextBlock.from_folder reads the files below it.")
        return cls(tokenizer, vocab, is_lm, seq_len, min_freq, max_vocab, backwards, None, Path(path), encoding)

    # ---- learning

    def setup(self, values: Sequence[Any]) -> "TextBlock":
        """A copy that has tokenised the training texts, and learned their vocabulary."""
        block = self.read_ahead(values)
        if block.vocab is not None:
            return block
        counts = block._kept.counts(block._good_texts(values))
        vocab = Numericalize(None, self.min_freq, self.max_vocab).setup(counts).vocab
        return replace(block, vocab=vocab)._with_kept(block._kept)

    def read_ahead(self, values: Sequence[Any], n_workers: int | None = None) -> "TextBlock":
        """A copy that has tokenised the texts of `values` in `n_workers` processes, by default one for each core.

        A value that is no usable text is left for `encode`, which says why.
        """
        return self._with_kept(self._kept.adding(self._good_texts(values), self.tokenizer, n_workers))

    def own_loader(self, dataset: Dataset, bs: int, device: torch.device, batch_tfms: Sequence[Transform],
                   training: bool, shuffle: bool) -> LMLoader | None:  # fmt: skip
        """For a language model, windows of the texts."""
        return lm_loader(dataset, bs, device, training, shuffle, batch_tfms) if self.is_lm else None

    def _with_kept(self, kept: KeptTexts) -> "TextBlock":
        block = copy.copy(self)
        block.__dict__.pop("_numbers", None)  # which follow from it
        block._kept = kept
        return block

    def _good_texts(self, values: Sequence[Any]) -> Iterator[tuple[str, ...]]:
        for value in values:
            try:
                yield self._fields(value)
            except (TypeError, ValueError, LookupError, OSError):  # reported with its item by `encode`
                continue

    # ---- one text

    @property
    def n_out(self) -> int | None:
        """The size of the vocabulary."""
        return None if self.vocab is None else len(self.vocab)

    @property
    def pad_id(self) -> int:
        """The number of `xxpad`: 1, but in the vocabulary of a pretrained tokenizer what that says."""
        return self._numericalize.number(PAD)

    def is_missing(self, value: Any) -> bool:
        """Whether there is no text, or an empty one: from neither is anything learned."""
        parts = self._columns(value)
        if any(Block.is_missing(self, part) for part in (parts if isinstance(parts, (list, tuple)) else [parts])):
            return True
        return any(fields == EMPTY for fields in self._good_texts([value]))

    def encode(self, value: Any) -> Tensor:
        """Raises TypeError for what is no text, ValueError for one that is not in the block's encoding."""
        return torch.from_numpy(self.numbers(value).astype(np.int64))

    def numbers(self, value: Any) -> np.ndarray:
        """As `encode`, `(n,)` int32."""
        fields = self._fields(value)
        kept = self._kept.ids(fields, self._numbers)
        if kept is None:
            numbers = self._numericalize.encode(Marking(self.tokenizer)(fields)).to(torch.int32).numpy()
        else:
            numbers = kept
        if not len(numbers) and fields == EMPTY:
            return np.array([self.pad_id], np.int32)
        if not len(numbers):
            raise ValueError(f"the tokenizer found no token in {fields[0][:40]!r}: leave such texts out.")
        return numbers[::-1] if self.backwards else numbers

    def collate(self, values: Sequence[Tensor]) -> Tensor:
        """`(bs, n)` int64: the texts padded at the end to the longest."""
        if self.is_lm and len(values) > 1:
            raise ValueError(
                "The batches of a language model run through all texts: DataBlock(TextBlock(is_lm=True)).databunch() "
                "makes them, or TextDataBunch.from_df(df, is_lm=True)."
            )
        return pad_sequence(list(values), batch_first=True, padding_value=self.pad_id)

    def decode(self, encoded: Tensor) -> str:
        """The text of token numbers, of padded ones too."""
        tokens = self.tokens(encoded)
        if hasattr(self.tokenizer, "decode"):
            return self.tokenizer.decode(tokens)
        return " ".join(token for token in tokens if token not in (BOS, EOS))

    def tokens(self, encoded: Tensor) -> list[str]:
        """The tokens in reading order, without padding."""
        numbers = encoded[encoded != self.pad_id].tolist()
        return self._numericalize.decode(numbers[::-1] if self.backwards else numbers)

    def text(self, value: str) -> str:
        return shortened(value)

    @cached_property
    def _numericalize(self) -> Numericalize:
        return Numericalize(self.vocab, own_vocab=getattr(self.tokenizer, "vocab", None) is not None)

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The numbers of the words of the texts that are kept."""
        return np.array([self._numericalize.number(word) for word in self._kept.tokens.words], np.int32)

    # ---- reading

    def _columns(self, value: Any) -> Any:
        """What the text columns of a row hold; anything else as it is."""
        is_row = isinstance(value, (pd.Series, Mapping)) or hasattr(value, "_fields")
        return ColReader(self.text_cols)(value) if is_row and self.text_cols is not None else value

    def _fields(self, value: Any) -> tuple[str, ...]:
        """The fields of a raw value, `EMPTY` where nothing is in any. Raises TypeError or ValueError for no text."""
        value = self._columns(value)
        if isinstance(value, Path):
            value = self._read(value)
        parts: tuple[Any, ...] = tuple(value) if isinstance(value, (list, tuple)) and len(value) else (value,)
        if wrong := [part for part in parts if not isinstance(part, str)]:
            raise _no_text(wrong[0])
        return tuple(map(str, parts)) if "".join(parts).strip() else EMPTY

    def _read(self, file: Path) -> str:
        file = file if self.folder is None else self.folder / file
        content = file.read_bytes()
        try:
            return content.decode(self.encoding)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file} is not {self.encoding}: byte 0x{content[error.start]:02x} at position {error.start}. Say "
                "which encoding it has (encoding='latin-1', say), or write it anew in UTF-8."
            ) from None


def shortened(text: str) -> str:
    """A text as one line of a table, no longer than 150 characters."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def as_tokenizer(tokenizer: Any) -> Any:
    """What takes a text and gives its tokens."""
    if tokenizer is None:
        return WordTokenizer()
    if isinstance(tokenizer, type):
        raise TypeError(f"tokenizer={tokenizer.__name__} is a class: pass an instance, {tokenizer.__name__}(…).")
    if hasattr(tokenizer, "encode") and hasattr(tokenizer, "decode"):  # of Hugging Face, in either package
        return SubwordTokenizer.of(tokenizer)
    if not callable(tokenizer):
        raise TypeError(
            f"tokenizer={tokenizer!r} is neither a tokenizer nor a function from a text to a list of texts; "
            "hf_tokenizer(name) brings one of the Hugging Face hub, SubwordTokenizer.load(file) a tokenizer.json."
        )
    return tokenizer


def _no_text(value: Any) -> TypeError:
    found = f"got {str(value)[:60]!r} ({type(value).__name__})"
    if isinstance(value, (pd.Series, Mapping)):
        return TypeError(f"TextBlock needs a text, {found}: say which columns, TextBlock.from_df('text').")
    fix = "turn numbers into texts, df[col].astype(str), if they are meant as words"
    return TypeError(f"TextBlock needs a text, a list of texts or a Path, {found}: is it the right column? Else {fix}.")
