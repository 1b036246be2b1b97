import numpy as np
import pandas as pd
import pytest
from warmstart.data import ItemError
from warmstart.text.columns import check_cells


def table(**changes):
    rows = {"title": list("abcdef"), "text": ["x y"] * 6, "label": [0, 1] * 3, **changes}
    return pd.DataFrame(rows, index=[f"row{i}" for i in range(6)])


def test_whole_rows_pass_and_one_of_several_texts_may_be_empty():
    check_cells(table(), "text", "label")
    check_cells(table(text=["", " ", *"cdef"]), ["title", "text"])
    check_cells(table(label=[None] * 6), "text")


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        (
            {"text": [np.nan, "a", None, *"bcd"]},
            (1,),
            r"text_col: column 'text' .* 2 of 6 rows \(index 'row0', 'row2'\)",
        ),
        ({"title": [None] * 6}, (["text", "title"],), r"'title' .* 6 of 6 rows \(index .*'row4', …\)"),
        (
            {"label": [None, *"abcde"]},
            ("text", "label"),
            r"label_col: .*: leave them out, df\.dropna\(subset=\['label'\]\)",
        ),
    ],
)
def test_missing_cells_are_named_by_column_and_row(changes, arguments, message):
    with pytest.raises(ItemError, match=message):
        check_cells(table(**changes), *arguments)


@pytest.mark.parametrize("cols", ["text", ["title", "text"]])
def test_what_an_error_says_of_empty_texts_leaves_them_out(cols):
    df = table(title=["", *"bcdef"], text=[" ", *"bcdef"])
    with pytest.raises(ItemError, match=r"the text is empty in 1 of 6 rows \(index 'row0'\)") as error:
        check_cells(df, cols)
    fix = str(error.value).split("out, ")[1].split(", or take")[0]
    assert eval(fix).index.tolist() == [f"row{i}" for i in range(1, 6)]


def test_a_list_is_no_table():
    with pytest.raises(TypeError, match=r"from_df takes a DataFrame, got a list: pd\.DataFrame"):
        check_cells(["a", "b"], "text")
