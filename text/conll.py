"""Files in the format of the CoNLL shared tasks: a word and its labels on each line, an empty line after a sentence."""

from collections.abc import Iterator
from pathlib import Path

__all__ = ["read_conll"]

DOCUMENT = "-DOCSTART-"  # begins a document: a line of its own that is no sentence


def read_conll(path: str | Path, word_col: int = 0, label_col: int = -1, delimiter: str | None = None,
               encoding: str = "utf-8") -> list[tuple[list[str], list[str]]]:  # fmt: skip
    """The sentences of a file, each as its words and their labels: what `WordsBlock` and `TokenCategoryBlock` read.

    `word_col` and `label_col` are columns, parted by any space, or by `delimiter`. Raises ValueError for a line that
    lacks one of them, and for a file in another encoding, with its number.
    """
    sentences = _sentences(path, word_col, label_col, delimiter, encoding)
    return [([word for word, _ in rows], [label for _, label in rows]) for rows in sentences]


def _sentences(path: str | Path, word_col: int, label_col: int, delimiter: str | None,
               encoding: str) -> Iterator[list[tuple[str, str]]]:  # fmt: skip
    rows: list[tuple[str, str]] = []
    for number, line in enumerate(_lines(path, encoding), 1):
        if line.strip() and not line.startswith(DOCUMENT):
            rows.append(_row(line, word_col, label_col, delimiter, f"{path}, line {number}"))
        elif rows:
            yield rows
            rows = []
    if rows:
        yield rows


def _lines(path: str | Path, encoding: str) -> list[str]:
    content = Path(path).read_bytes()
    try:
        return content.decode(encoding).split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not {encoding}: line {content[: error.start].count(10) + 1} holds the byte "
            f"0x{content[error.start]:02x}. Say which encoding it has (encoding='latin-1', say)."
        ) from None


def _row(line: str, word_col: int, label_col: int, delimiter: str | None, where: str) -> tuple[str, str]:
    cells = line.strip("\r\n").split(delimiter)
    try:
        word, label = cells[word_col], cells[label_col]
    except IndexError:
        word = label = ""
    if not word or not label or len(cells) < 2:
        raise ValueError(
            f"{where}: {line.strip()[:60]!r} has no word in column {word_col} and label in column {label_col}. "
            "Which columns are they, and what parts them (delimiter='\\t', say)?"
        )
    return word, label
