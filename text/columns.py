"""The rows of a table of texts that have nothing in a column: found before anything is read.

check_cells(df, text_col="text", label_col="label")
"""

import pandas as pd

from ..data import ItemError
from ..data.columns import Columns, check_filled, columns, rows_in_words
from ..data.items import kind

__all__ = ["check_cells"]


def check_cells(df: pd.DataFrame, text_col: Columns, label_col: Columns | None = None) -> None:
    """Raise ItemError for rows without a text or a label; None means that there are no labels, or may be none.

    Of several text columns each has a value, and one or more a text that is not empty. Raises TypeError for what is no
    DataFrame.
    """
    if not isinstance(df, pd.DataFrame):
        raise TypeError(f"from_df takes a DataFrame, got a {kind(df)}: pd.DataFrame({{'text': texts}}) makes one.")
    texts = columns(df, text_col, "text_col")
    for cells in texts:
        check_filled(cells, "text_col")
    for cells in [] if label_col is None else columns(df, label_col, "label_col"):
        check_filled(cells, "label_col")
    empty = pd.Series([all(map(_is_empty, row)) for row in zip(*texts, strict=True)], df.index, dtype=bool)
    if empty.any():
        names = [cells.name for cells in texts]
        joined = f"df[{names[0]!r}]" if len(names) == 1 else f"df[{names}].agg(''.join, axis=1)"
        raise ItemError(
            f"text_col: the text is empty in {rows_in_words(empty)}: leave them out, "
            f"df[{joined}.str.strip() != ''], or take another column."
        )


def _is_empty(cell: object) -> bool:
    return isinstance(cell, str) and not cell.strip()
