"""Columns of a table, found by name or position, and without gaps."""

import pandas as pd
import pytest
from warmstart.data import ItemError
from warmstart.data.columns import check_filled, column, columns


def table(**changes):
    rows = {"title": list("abcdef"), "text": ["x y"] * 6, "label": [0, 1] * 3, **changes}
    return pd.DataFrame(rows, index=[f"row{i}" for i in range(6)])


def test_columns_have_names_or_positions():
    assert [cells.name for cells in columns(table(), ["text", 0], "text_col")] == ["text", "title"]
    with pytest.raises(
        KeyError, match=r"text_col: there is no column 'txt'; the columns are \['title', 'text', 'label'"
    ):
        columns(table(), "txt", "text_col")


def test_rows_without_a_value_are_counted_and_the_first_are_named():
    check_filled(column(table(), "text", "text_col"), "text_col")
    with pytest.raises(ItemError, match=r"^fn_col: column 'text' has no value in 2 of 6 rows \(index 'row1', 'row2'\)"):
        check_filled(column(table(text=["a", None, float("nan"), *"bcd"]), 1, "fn_col"), "fn_col")
