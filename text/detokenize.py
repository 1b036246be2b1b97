"""Tokens as a text again: capitals and repetitions written out, punctuation where it belongs.

>>> detokenize(["xxbos", "xxmaj", "well", ",", "it", "'s", "(", "xxwrep", "3", "very", ")", "good"])
"Well, it's (very very very) good"
"""

from collections.abc import Callable, Iterator, Sequence

from .special import BOS, EOS, FLD, MAJ, PAD, REP, UNK, UP, WREP

__all__ = ["detokenize"]

CLOSING = set(",.;:!?)]}%…") | {"n't", "n’t"} | {f"{a}{c}" for a in "'’" for c in ("s", "re", "ve", "ll", "d", "m")}
OPENING = set("([{$£€#")
JOINING = set("/\\-")  # with the words on both sides
SILENT = {BOS, EOS, PAD}
CASES: dict[str, Callable[[str], str]] = {MAJ: str.capitalize, UP: str.upper}
QUOTES = set("\"'")  # the same when they open and when they close


def detokenize(tokens: Sequence[str]) -> str:
    """The text of `tokens`, on one line: a second field (`xxfld 2`) goes on behind the first."""
    pieces: list[str] = []
    open_quotes: set[str] = set()
    joined = True  # to what stands before
    for word, is_run in _written_out(iter(tokens)):
        opens = word in QUOTES and word not in open_quotes
        closes = word in QUOTES and not opens
        if not (joined or closes or _sticks(word, is_run, pieces)):
            pieces.append(" ")
        pieces.append(word)
        open_quotes ^= {word} & QUOTES
        joined = opens or word in OPENING or (word in JOINING and len(pieces) > 1)
    return "".join(pieces)


def _sticks(word: str, is_run: bool, before: list[str]) -> bool:
    """Whether a word follows what is `before` it without a space."""
    if is_run:  # gooood: letters go on a word, anything else stands behind it
        return not word[0].isalpha() or before[-1].isalpha()
    return word.lower() in CLOSING or word in JOINING


def _written_out(tokens: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """The words that tokens stand for, and whether one is a run of one character."""
    case, n_words = str, 1
    for token in tokens:
        if token in SILENT:
            continue
        if token == REP:
            yield from _run(tokens)
            continue
        if token == FLD:
            next(tokens, None)  # its number
            continue
        if token == WREP:
            n_words = _count(next(tokens, ""))
            continue
        if token in CASES:
            case = CASES[token]
            continue
        yield from [(token if token == UNK else case(token), False)] * n_words
        case, n_words = str, 1


def _run(tokens: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """The character and its number that follow `xxrep`; none where a model has stopped there."""
    n, character = _count(next(tokens, "")), next(tokens, "")
    if character in CASES:
        character = CASES[character](next(tokens, ""))
    if character:
        yield character * n, True


def _count(token: str) -> int:
    """The number that a token is; 1 for any other, as a model may say, and for one that no text would have."""
    return min(int(token), 10_000) if token.isdecimal() else 1
