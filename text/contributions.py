"""What each token of a text adds to what is said of it, for people to see: in colours, or with numbers.

pos 0.97: log-odds +3.50, +0.10 of average words, +3.40 of these:
xxbos the film was [+3.91 wonderful] , though [-0.60 long] .
"""

import html
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Contributions", "printable"]

SHOWN = 0.1  # of the largest contribution, from which on a number is printed
LEAST = 0.005  # that two digits show
FOR, AGAINST = "38, 139, 255", "255, 112, 20"  # blue and orange, which most people can tell apart
OPACITY = 0.55  # of the strongest colour: what is below and the letters on it may be light or dark
BLUE, ORANGE, RESET = "\033[44;97m", "\033[43;30m", "\033[0m"
JOINERS = "\u200c\u200d"  # not printable by themselves, and part of words in many languages


@dataclass(frozen=True, eq=False)
class Contributions:
    """How much each of the `tokens` of a text counts for or against a `label`: `values` `(n,)`, in log-odds.

    They add up to `log_odds`, the logarithm of how many times likelier the label is than all others together, less
    `average`, that of a text of the same length and of average words. In a notebook it shows itself in colours, in a
    terminal with numbers, and there in colours, too.
    """

    tokens: list[str]
    values: Tensor
    label: Any
    probability: float
    log_odds: float
    average: float

    def __repr__(self) -> str:
        width = max(20, shutil.get_terminal_size((80, 24)).columns)
        paint = _painted if _has_colours() else _bare
        lines = (" ".join(paint(*piece) for piece in line) for line in _lines(self._pieces(), width))
        return "\n".join([textwrap.fill(f"{self._head()}:", width), *lines])

    def _repr_html_(self) -> str:
        largest = self._largest
        words = " ".join(_word(*pair, largest) for pair in zip(self.tokens, self._numbers(), strict=True))
        signs = f"{_coloured('for', FOR, OPACITY)} {_coloured('against', AGAINST, OPACITY)}"
        return (
            '<div style="line-height: 1.8; max-width: 60em; overflow-wrap: anywhere">'
            f"{html.escape(self._head())}.<br>{words}<br><small>{signs} {html.escape(self._name)}</small></div>"
        )

    @property
    def _name(self) -> str:
        return printable(str(self.label))

    def _head(self) -> str:
        said = f"{self._name} {self.probability:.2f}: log-odds {self.log_odds:+.2f}"
        return f"{said}, {self.average:+.2f} of average words, {self.log_odds - self.average:+.2f} of these"

    def _numbers(self) -> list[float]:
        return self.values.tolist()

    @property
    def _largest(self) -> float:
        return max(map(abs, self._numbers()), default=0.0)

    def _pieces(self) -> Iterator[tuple[str, float]]:
        """What is printed of each token, and its contribution, 0 for a small one."""
        least = max(LEAST, SHOWN * self._largest)
        for token, value in zip(self.tokens, self._numbers(), strict=True):
            counts = abs(value) >= least
            yield (f"[{value:+.2f} {printable(token)}]", value) if counts else (printable(token), 0.0)


def printable(text: str) -> str:
    """A text on one line, in which what would move the cursor or turn the line around is written out."""
    return "".join(c if c.isprintable() or c in JOINERS else repr(c)[1:-1] for c in text)


def _lines(pieces: Iterator[tuple[str, float]], width: int) -> Iterator[list[tuple[str, float]]]:
    """The pieces in lines of at most `width` characters, or of one longer piece."""
    line: list[tuple[str, float]] = []
    n = 0
    for piece in pieces:
        if line and n + 1 + len(piece[0]) > width:
            yield line
            line, n = [], 0
        n += len(piece[0]) + bool(line)
        line.append(piece)
    if line:
        yield line


def _has_colours() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def _bare(text: str, value: float) -> str:
    return text


def _painted(text: str, value: float) -> str:
    return f"{BLUE if value > 0 else ORANGE}{text}{RESET}" if value else text


def _word(token: str, value: float, largest: float) -> str:
    opacity = round(OPACITY * abs(value) / largest, 2) if largest else 0.0
    if not opacity:
        return html.escape(printable(token))
    return _coloured(printable(token), FOR if value > 0 else AGAINST, opacity, f"{value:+.3f}")


def _coloured(text: str, colour: str, opacity: float, hint: str | None = None) -> str:
    style = f"background: rgba({colour}, {opacity:.2f}); border-radius: 0.2em; padding: 0.1em 0.2em"
    title = "" if hint is None else f' title="{hint}"'
    return f'<span style="{style}"{title}>{html.escape(text)}</span>'
