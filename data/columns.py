"""Columns of a table that a factory is told of by an argument: found, and without gaps, before anything is read."""

from collections.abc import Sequence

import pandas as pd

from .items import ItemError

__all__ = ["Columns", "check_filled", "column", "columns", "rows_in_words"]

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


def check_filled(cells: pd.Series, argument: str) -> None:
    """Raise ItemError for rows without a value."""
    if (missing := cells.isna()).any():
        raise ItemError(
            f"{argument}: column {cells.name!r} has no value in {rows_in_words(missing)}: leave them out, "
            f"df.dropna(subset=[{cells.name!r}])."
        )


def rows_in_words(found: pd.Series) -> str:
    """How many rows are found, and what the first are called."""
    labels = found.index[found.to_numpy()].tolist()
    more = ", …" if len(labels) > SHOWN else ""
    return f"{len(labels)} of {len(found)} rows (index {', '.join(map(repr, labels[:SHOWN]))}{more})"
