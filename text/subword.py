"""Texts as parts of words, by the package tokenizers (an extra): for any language, and for pretrained transformers.

tokenizer = SubwordTokenizer.train(texts, "unigram", vocab_size=8000)
tokenizer.save("tokenizer.json")
tokenizer = SubwordTokenizer.load("tokenizer.json")       # also one of the Hugging Face hub
TextBlock(tokenizer=AutoTokenizer.from_pretrained("bert-base-uncased"))      # becomes one by itself
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from ..data.portable import Portable
from ..learner.files import save_text
from .special import PAD, SPECIAL, UNK

__all__ = ["SubwordTokenizer"]

MODELS = ("bpe", "unigram", "wordpiece")
PADS = (PAD, "[PAD]", "<pad>")  # what tokenizers call the token that fills up a batch


@dataclass
class SubwordTokenizer(Portable):
    """A tokenizer of the package tokenizers, with a vocabulary of its own.

    `json` is the content of its tokenizer.json. `pad_token` fills up batches; in `vocab` it is called `xxpad`, where it
    has the same number. Of a text no more than `max_len` tokens are read. Raises ImportError without the extra.
    """

    json: str = field(repr=False)
    pad_token: str = PAD
    max_len: int | None = None

    @classmethod
    def train(cls, texts: Iterable[str], model: str = "unigram", vocab_size: int = 8000) -> "SubwordTokenizer":
        """One that has learned a vocabulary of (at most) `vocab_size` from `texts`, with our special tokens first.

        `model`: "bpe" on bytes (Sennrich et al. 2016, arXiv:1508.07909), which knows every text; "unigram" (Kudo 2018,
        arXiv:1804.10959); "wordpiece" (Schuster & Nakajima 2012). Capitals stay, `<br />` becomes a space.
        """
        if model not in MODELS:
            raise ValueError(f"model={model!r} is none of {', '.join(MODELS)}.")
        tokenizer, trainer = _untrained(_package(), model, vocab_size)
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    @classmethod
    def load(cls, file: str | Path, pad_token: str | None = None, max_len: int | None = None) -> "SubwordTokenizer":
        """One from a tokenizer.json. `pad_token` is looked for where it is not given."""
        text = Path(file).read_text(encoding="utf-8")
        try:
            _package().Tokenizer.from_str(text)
        except Exception as error:  # the package raises a plain Exception
            raise ValueError(f"{file} is no tokenizer.json: {error}") from None
        return cls(text, pad_token or _pad_token(text, str(file)), max_len)

    @classmethod
    def of(cls, tokenizer: Any, max_len: int | None = None) -> "SubwordTokenizer":
        """One that does what a tokenizer of the packages transformers or tokenizers does.

        Raises TypeError for one of transformers that is written in Python, and so has no tokenizer.json.
        """
        fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(fast, "to_str"):
            raise TypeError(
                f"{type(tokenizer).__name__} is a slow tokenizer: take the fast one, "
                "AutoTokenizer.from_pretrained(name, use_fast=True), or pass a function from a text to a list of texts."
            )
        text = fast.to_str()
        pad_token = getattr(tokenizer, "pad_token", None)
        return cls(text, pad_token or _pad_token(text, type(tokenizer).__name__), max_len)

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text, with those that the tokenizer itself puts around it (`[CLS]`, say)."""
        return self.batch([text])[0]

    def batch(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of several texts, in the threads of the package."""
        found = self._tokenizer.encode_batch(list(texts))
        return [[self._ours(token) for token in encoding.tokens] for encoding in found]

    def of_words(self, words: Sequence[str]) -> tuple[list[str], list[int | None]]:
        """The tokens of a text that is parted into words already, and which word each is of; None for special ones."""
        spaced = [f" {word}" if i and self._has_spaces else word for i, word in enumerate(words)]
        encoding = self._tokenizer.encode(spaced, is_pretokenized=True)
        return [self._ours(token) for token in encoding.tokens], list(encoding.word_ids)

    def decode(self, tokens: Sequence[str]) -> str:
        """Tokens as a text, without special ones."""
        ids = (self._tokenizer.token_to_id(token) for token in tokens if token != PAD)
        return self._tokenizer.decode([i for i in ids if i is not None], skip_special_tokens=True)

    @cached_property
    def vocab(self) -> list[str]:
        """The tokens by number; a number that none has is filled with a name of its own."""
        numbers = self._tokenizer.get_vocab(with_added_tokens=True)
        vocab = [f"xxnone{i}" for i in range(max(numbers.values()) + 1)]
        for token, number in numbers.items():
            vocab[number] = self._ours(token)
        return vocab

    @cached_property
    def around(self) -> tuple[int, int]:
        """How many tokens the tokenizer puts before and after those of a text: BERT's `[CLS]` and `[SEP]`, one each."""
        is_special = self._tokenizer.encode("a").special_tokens_mask
        own = [i for i, special in enumerate(is_special) if not special] or [len(is_special)]
        return own[0], len(is_special) - 1 - own[-1]

    def save(self, file: str | Path) -> Path:
        """Write the tokenizer.json."""
        return save_text(self.json, file)

    def _ours(self, token: str) -> str:
        return PAD if token == self.pad_token else token

    @cached_property
    def _has_spaces(self) -> bool:
        """Whether the space before a word is part of its tokens, as in BPE on bytes."""
        before = json.loads(self.json).get("pre_tokenizer") or {}
        return any(part.get("type") == "ByteLevel" for part in (before, *before.get("pretokenizers", [])))

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = _package().Tokenizer.from_str(self.json)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if self.max_len is not None:
            tokenizer.enable_truncation(self.max_len)
        return tokenizer

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_tokenizer"}


def _package() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError('Parts of words come with an extra: `pip install "warmstart[text]"` (tokenizers).') from error
    return tokenizers


def _untrained(package: ModuleType, model: str, vocab_size: int) -> tuple[Any, Any]:
    """A tokenizer that knows no words yet, and what trains it."""
    models, trainers, before, decoders = package.models, package.trainers, package.pre_tokenizers, package.decoders
    options: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": SPECIAL, "show_progress": False}
    if model == "bpe":
        tokenizer = package.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = before.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=before.ByteLevel.alphabet(), **options)
    elif model == "unigram":
        tokenizer = package.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = before.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token=UNK, **options)
    else:
        tokenizer = package.Tokenizer(models.WordPiece(unk_token=UNK))
        tokenizer.pre_tokenizer, tokenizer.decoder = before.BertPreTokenizer(), decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**options)
    line_break = package.normalizers.Replace(package.Regex(r"<br\s*/?>"), " ")
    tokenizer.normalizer = package.normalizers.Sequence([line_break, package.normalizers.NFC()])
    return tokenizer, trainer


def _pad_token(text: str, where: str) -> str:
    """The name of the token that fills up batches, from a tokenizer.json. ValueError where nothing says it."""
    found = json.loads(text)
    if found.get("padding"):
        return found["padding"]["pad_token"]
    added = [token["content"] for token in found.get("added_tokens") or []]
    known = next((pad for pad in PADS if pad in added), None)
    if known is None:
        raise ValueError(
            f"{where} has no token that fills up batches, such as [PAD]: say which one may, pad_token='…'."
        )
    return known
