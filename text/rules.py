"""Rules that tidy a text before it is parted into words; each takes a text and returns one.

Those of fast.ai, in their order. Give `WordTokenizer(rules=[…])` another list, or functions of your own.

>>> replace_repeats("so gooood, I'd see it again again again again!!!!")
"so g xxrep 4 o d, I'd see it  xxwrep 4 again  xxrep 4 ! "
"""

import html
import re

from ..data.portable import portable
from .special import REP, UNK, WREP

__all__ = ["RULES", "fix_html", "replace_repeats", "space_symbols"]

# what becomes of HTML that went through several hands: the remains of entities, line breaks, WikiText's separators
REMAINS = {"#39;": "'", "amp;": "&", "#146;": "'", "nbsp;": " ", "#36;": "$", "quot;": "'", "\\n": "\n", '\\"': '"',
           " @.@ ": ".", " @-@ ": "-", " @,@ ": ",", "<unk>": UNK}  # fmt: skip
_REMAINS = re.compile(r"(?:#39|amp|#146|nbsp|#36|quot);|\\n|\\\"| @[.,-]@ |<unk>")
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_DOTS = re.compile(r"(?<!\.)\.\.\.(?!\.)")
_CHARACTERS = re.compile(r"([^\s\d])\1{3,}")
_WORDS = re.compile(rf"(?<!\w)(?:{REP} \d+ \S|([^\W\d]\w*)(?:\s+\1(?!\w)){{2,}})")  # no word, or one and again
_SYMBOLS = re.compile(r"([/#\\])")


@portable
def fix_html(text: str) -> str:
    """Entities as the characters that they stand for, `<br />` as a line break, three dots as one character."""
    if "&" in text:
        text = html.unescape(text)
    text = _LINE_BREAK.sub("\n", text)
    text = _REMAINS.sub(lambda found: REMAINS[found[0]], text)
    return _DOTS.sub(" … ", text)


@portable
def replace_repeats(text: str) -> str:
    """A character four times or more as `xxrep 4 c`, a word three times or more as `xxwrep 3 w`; digits stay."""
    text = _CHARACTERS.sub(lambda run: f" {REP} {len(run[0])} {run[1]} ", text)
    return _WORDS.sub(lambda run: f" {WREP} {len(run[0].split())} {run[1]} " if run[1] else run[0], text)


@portable
def space_symbols(text: str) -> str:
    """Spaces around `/`, `#` and the backslash, so that they part words."""
    return _SYMBOLS.sub(r" \1 ", text)


RULES = (fix_html, replace_repeats, space_symbols)
