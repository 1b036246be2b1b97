"""The block that fits a table's label columns."""

import pandas as pd

from ..data import Block, CategoryBlock, MultiCategoryBlock, RegressionBlock
from ..data.columns import Columns, column, columns

__all__ = ["label_block"]


def label_block(df: pd.DataFrame, label_col: Columns, label_delim: str | None) -> Block:
    """A class for each row; several where labels are parted, or are columns of 0s and 1s; numbers for floats."""
    if label_delim is not None:
        return MultiCategoryBlock()
    if isinstance(label_col, (str, int)):
        return RegressionBlock() if pd.api.types.is_float_dtype(column(df, label_col, "label_col")) else CategoryBlock()
    labels = columns(df, label_col, "label_col")
    if all(set(values.unique()) <= {0, 1} for values in labels):
        return MultiCategoryBlock(encoded=True, vocab=[str(values.name) for values in labels])
    return RegressionBlock()
