import pandas as pd
import pytest
from warmstart.data import CategoryBlock, MultiCategoryBlock, RegressionBlock
from warmstart.text.label_columns import label_block

df = pd.DataFrame({"label": ["a", "b"], "stars": [1.5, 2.0], "n": [1, 2], "toxic": [0, 1], "rude": [1, 1]})


@pytest.mark.parametrize(
    ("label_col", "label_delim", "block"),
    [
        ("label", None, CategoryBlock()),
        (0, None, CategoryBlock()),
        ("n", None, CategoryBlock()),
        ("stars", None, RegressionBlock()),
        ("label", ";", MultiCategoryBlock()),
        (["toxic", "rude"], None, MultiCategoryBlock(encoded=True, vocab=["toxic", "rude"])),
        (["stars", "n"], None, RegressionBlock()),
    ],
)
def test_the_block_fits_the_columns(label_col, label_delim, block):
    assert label_block(df, label_col, label_delim) == block


def test_a_missing_column_lists_those_there_are():
    with pytest.raises(KeyError, match="there is no column 'lable'; the columns are"):
        label_block(df, "lable", None)
