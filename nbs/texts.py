"""Texts of lessons 9 to 11 that a program can write: numbers in words, and small stand-ins for real reviews and plays.

The numbers are what lesson 9 is about. The other two are for the tests, which download nothing: so simple that a small
network learns them in seconds, and no more than that.
"""

import numpy as np
import pandas as pd

__all__ = ["in_words", "made_up_play", "made_up_reviews"]

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

THINGS = ["film", "movie", "story", "plot", "ending", "music", "cast", "hero", "script", "camera"]
PLAIN = [
    "I saw it at home",
    "My sister came along",
    "It ran for two hours",
    "The hero is a sailor",
    "We talked about it",
]
PRAISE = ["I loved the {}", "The {} made me laugh and cry", "What a wonderful {}", "The {} was beautiful"]
BLAME = ["I hated the {}", "Nobody needs such a {}", "The {} sent me to sleep", "The {} was a boring mess"]

NAMES = ["ROMEO", "JULIET", "HAMLET", "PORTIA"]
LINES = [
    "What says the {} to my {}?",
    "O {}, thou art the {} of my heart.",
    "I will not give my {} for thy {}.",
    "The {} is gone, and so the {}.",
]
NOUNS = ["king", "sword", "night", "love", "crown", "rose", "tomb", "ghost"]


def in_words(number: int) -> str:
    """An integer from 0 to 9,999 in words: `in_words(8042)` is "eight thousand forty two"."""
    words = []
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            words += [ONES[number // size], name]
            number %= size
    if number >= len(ONES):
        words.append(TENS[number // 10 - 2])
        number %= 10
    if number or not words:
        words.append(ONES[number])
    return " ".join(words)


def made_up_reviews(n: int = 300) -> pd.DataFrame:
    """`n` reviews of films that nobody made: `text`, `label` (negative or positive), `is_valid` of the last fifth."""
    rand, rows = np.random.default_rng(0), []
    for number in range(n):
        label, opinions = ("positive", PRAISE) if number % 2 else ("negative", BLAME)
        said = [str(rand.choice(opinions)).format(rand.choice(THINGS)) for _ in range(3)]
        text = ". ".join(rand.permutation([*said, *rand.choice(PLAIN, 2, replace=False)])) + "."
        rows.append((text, label, number >= 0.8 * n))
    return pd.DataFrame(rows, columns=pd.Index(["text", "label", "is_valid"]))


def made_up_play(n_speeches: int = 500) -> str:
    """Speeches without much sense: a name, a colon, and one to three lines, then an empty one."""
    rand = np.random.default_rng(0)
    speeches = [f"{rand.choice(NAMES)}:\n" + "\n".join(_lines(rand)) for _ in range(n_speeches)]
    return "\n\n".join(speeches)


def _lines(rand: np.random.Generator) -> list[str]:
    return [str(rand.choice(LINES)).format(*rand.choice(NOUNS, 2, replace=False)) for _ in range(rand.integers(1, 4))]
