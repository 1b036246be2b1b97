from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Subset, TensorDataset
from warmstart.data.items import as_items, each, item_at, kind, short, take

table = pd.DataFrame({"name": ["a", "b", "c"], "label": [1, 2, 3]}, index=[30, 10, 20])


def test_what_has_positions_stays_as_it_is():
    for source in ([1, 2], (1, 2), range(3), table, table["name"], np.arange(3), TensorDataset(torch.arange(3))):
        assert as_items(source) is source


def test_what_can_only_be_iterated_becomes_a_list():
    assert as_items(i * i for i in range(3)) == [0, 1, 4]
    assert sorted(as_items({"b", "a"})) == ["a", "b"]
    assert as_items({"a.jpg": 0, "b.jpg": 1}) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("source", ["images", Path("images"), b"images", 3, None])
def test_one_thing_is_no_list_of_items(source):
    with pytest.raises(TypeError, match="is not a list of items: give the DataBlock a get_items"):
        as_items(source)


def test_rows_are_counted_whatever_the_index():
    assert item_at(table, 1)["name"] == "b"
    assert [row["label"] for row in each(table)] == [1, 2, 3]
    assert list(each(table["name"])) == ["a", "b", "c"]


def test_take_keeps_the_kind_of_items():
    assert take(["a", "b", "c"], np.array([2, 0])) == ["c", "a"]
    assert take(table, [2, 0])["name"].tolist() == ["c", "a"]
    assert take(table["name"], [2, 0]).tolist() == ["c", "a"]
    assert [row.tolist() for row in take(np.arange(6).reshape(3, 2), [2, 0])] == [[4, 5], [0, 1]]


def test_take_does_not_read_a_dataset():
    class Images(torch.utils.data.Dataset):
        read = 0

        def __len__(self):
            return 10

        def __getitem__(self, i):
            self.read += 1
            return i

    images = Images()
    some = take(images, [7, 3])
    assert isinstance(some, Subset) and len(some) == 2 and images.read == 0
    assert some[0] == 7


def test_short_keeps_the_end_of_a_path_and_the_beginning_of_a_text():
    path = Path("/data") / ("x" * 100) / "with a space" / "1.jpg"
    assert short(path).endswith("with a space/1.jpg") and len(short(path)) == 90
    assert short("word " * 50).startswith("word word") and len(short("word " * 50)) == 90
    assert short("two\nlines") == "two lines"


def test_short_tells_the_shape_of_a_tensor_and_the_columns_of_a_row():
    assert short(torch.zeros(3, 4)) == "Tensor (3, 4) float32"
    assert short(table.iloc[0]) == "{'name': 'a', 'label': 1}"
    assert short(pd.DataFrame(np.zeros((100, 3)))) == "DataFrame (100, 3)"


def test_a_path_is_called_path_on_every_system():
    assert kind(Path("a")) == "Path"
    assert kind("a") == "str"
