"""Texts as words and back, with regular expressions alone: quick, and without a language model to install.

>>> WordTokenizer()("The movie wasn't GREAT!!!!")
['xxmaj', 'the', 'movie', 'was', "n't", 'xxup', 'great', 'xxrep', '4', '!']
>>> WordTokenizer().decode(_)
"The movie wasn't GREAT!!!!"
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from ..data.portable import Portable
from .detokenize import detokenize
from .rules import RULES
from .special import MAJ, UP

__all__ = ["Tokenizer", "WordTokenizer"]

Tokenizer = Callable[[str], list[str]]  # and what it may have: decode(tokens) -> text, vocab: its tokens by number

CLITICS = "s|re|ve|ll|d|m"  # of he's, they're, I've, we'll, she'd, I'm: tokens of their own
ABBREVIATIONS = "mr|mrs|ms|dr|prof|st|jr|sr|vs|etc"  # whose dot ends no sentence
_NOT = re.compile(r"(?<=\w)(?=n['’]t(?!\w))", re.IGNORECASE)  # where was|n't is parted


@dataclass
class WordTokenizer(Portable):
    """Words and punctuation of a text in a language that writes spaces; for any other take a `SubwordTokenizer`.

    First `rules` tidy the text, then one regular expression parts it: words in which combining marks stay together,
    numbers with their points, contractions as spaCy and the Penn treebank part them (`is n't`, `it 's`), abbreviations,
    and every other character for itself. With `lower` words are written small, and what was large is said by a token
    before: `xxup` for GREAT, `xxmaj` for Great. Mixed case (`iPhone`) is lost, as is the number of spaces.

    `decode` writes tokens as a text again. It is exact but for those two, and for punctuation in unusual places.
    """

    rules: Sequence[Callable[[str], str]] = field(default=RULES, repr=False)
    lower: bool = True

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text. Raises TypeError for anything else."""
        if not isinstance(text, str):
            raise TypeError(f"WordTokenizer takes a text, got {text!r} ({type(text).__name__}).")
        for rule in self.rules:
            text = rule(text)
        words = _pattern().findall(_NOT.sub(" ", text))
        return _lowered(words) if self.lower else words

    def decode(self, tokens: Sequence[str]) -> str:
        """Tokens as a text that a person reads."""
        return detokenize(tokens)


def _lowered(words: list[str]) -> list[str]:
    """The words in small letters, with a token before those that were not."""
    tokens: list[str] = []
    for word in words:
        small = word.lower()
        if small != word:
            if word[1:] == small[1:]:
                tokens.append(MAJ)
            elif word.isupper():
                tokens.append(UP)
        tokens.append(small)
    return tokens


@cache
def _pattern() -> re.Pattern[str]:
    """What a token is: the first of these that fits. Where one is rare, a look at its first characters comes before."""
    marks = rf"(?![\x00-\u02ff])[{_marks()}]+"
    word = rf"\w+(?:{marks}\w*)*"
    clitic = rf"['’](?i:{CLITICS})(?!\w)"
    return re.compile(
        rf"""
          (?=\d)\d+(?:[.,:]\d+)+(?!\w)                          # 3.5  1,000  10:30
        | (?=\w\.)(?:[^\W\d_]\.){{2,}}                           # U.S.  e.g.
        | (?=[MDPSJVEmdpsjve]\w)(?i:{ABBREVIATIONS})\.(?=\s)     # Mr.  etc.
        | {word}(?:(?!{clitic})['’]{word})*                      # also o'clock, and the n't that _NOT parted
        | {clitic}
        | [:;]-?[()]                                            # :-)
        | --+
        | \S
        """,
        re.VERBOSE,
    )


def _marks() -> str:
    """Marks that combine with the letter before them, and joiners: `\\w` leaves them out, and Hindi is full of them."""
    marks = (chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code)).startswith("M"))
    return re.escape("".join(marks)) + "\u200c\u200d"
