"""The columns of a table of texts, and the rows that have nothing in one: found before anything is read.

check_cells(df, text_col="text", label_col="label")
"""

from collections.abc import Sequence

import pandas as pd

from ..data import ItemError
from ..data.items import kind

__all__ = ["check_cells", "column", "columns"]

Columns = str | int | Sequence[str | int]

SHOWN = 5  # rows that an error names


def column(df: pd.DataFrame, col: str | int, argument: str) -> pd.Series:
    """A column by its name or position. Raises KeyError that lists the columns, and names the `argument`."""
    names = list(df.columns)
    if col not in names and not (isinstance(col, int) and -len(names) <= col < len(names)):
        raise KeyError(f"{argument}: there is no column {col!r}; the columns are {names}.")
    return df.iloc[:, names.index(col) if col in names else int(col)]


def columns(df: pd.DataFrame, cols: Columns, argument: str) -> list[pd.Series]:
    """One column or several."""
    return [column(df, col, argument) for col in ([cols] if isinstance(cols, (str, int)) else cols)]


def check_cells(df: pd.DataFrame, text_col: Columns, label_col: Columns | None = None) -> None:
    """Raise ItemError for rows without a text or a label; None means that there are no labels, or may be none.

    Of several text columns each has a value, and one or more a text that is not empty. Raises TypeError for what is no
    DataFrame.
    """
    if not isinstance(df, pd.DataFrame):
        raise TypeError(f"from_df takes a DataFrame, got a {kind(df)}: pd.DataFrame({{'text': texts}}) makes one.")
    texts = columns(df, text_col, "text_col")
    labels = [] if label_col is None else columns(df, label_col, "label_col")
    for argument, cells in [*(("text_col", cells) for cells in texts), *(("label_col", cells) for cells in labels)]:
        if (missing := cells.isna()).any():
            fix = f"df.dropna(subset=[{cells.name!r}])"
            raise ItemError(
                f"{argument}: column {cells.name!r} has no value in {_rows(missing)}: leave them out, {fix}."
            )
    empty = pd.Series([all(map(_is_empty, row)) for row in zip(*texts, strict=True)], df.index, dtype=bool)
    if empty.any():
        names = [cells.name for cells in texts]
        joined = f"df[{names[0]!r}]" if len(names) == 1 else f"df[{names}].agg(''.join, axis=1)"
        raise ItemError(
            f"text_col: the text is empty in {_rows(empty)}: leave them out, "
            f"df[{joined}.str.strip() != ''], or take another column."
        )


def _is_empty(cell: object) -> bool:
    return isinstance(cell, str) and not cell.strip()


def _rows(found: pd.Series) -> str:
    """How many rows are found, and what the first are called."""
    labels = found.index[found.to_numpy()].tolist()
    more = ", …" if len(labels) > SHOWN else ""
    return f"{len(labels)} of {len(found)} rows (index {', '.join(map(repr, labels[:SHOWN]))}{more})"
