"""The block that fits a table's label columns."""

from collections.abc import Sequence

import pandas as pd

from ..data import Block, CategoryBlock, MultiCategoryBlock, RegressionBlock

__all__ = ["label_block"]


def label_block(df: pd.DataFrame, label_col: str | int | Sequence[str | int], label_delim: str | None) -> Block:
    """A class for each row; several where labels are parted, or are columns of 0s and 1s; numbers for floats."""
    if label_delim is not None:
        return MultiCategoryBlock()
    if isinstance(label_col, (str, int)):
        return RegressionBlock() if pd.api.types.is_float_dtype(_column(df, label_col)) else CategoryBlock()
    columns = [_column(df, col) for col in label_col]
    if all(set(values.unique()) <= {0, 1} for values in columns):
        return MultiCategoryBlock(encoded=True, vocab=[str(values.name) for values in columns])
    return RegressionBlock()


def _column(df: pd.DataFrame, col: str | int) -> pd.Series:
    """A column by its name or position. Raises KeyError that lists the columns."""
    names = list(df.columns)
    if col not in names and not (isinstance(col, int) and -len(names) <= col < len(names)):
        raise KeyError(f"label_col: there is no column {col!r}; the columns are {names}.")
    return df.iloc[:, names.index(col) if col in names else int(col)]
