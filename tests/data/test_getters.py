from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmstart.data import (
    AttrGetter,
    ColReader,
    FuncLabeller,
    ItemGetter,
    RegexLabeller,
    get_files,
    get_image_files,
    parent_label,
)
from warmstart.data.getters import ItemName


@pytest.fixture
def folder(tmp_path):
    for name in ["b/2.JPG", "a/1.png", "a/note.txt", "a/deep/3.jpeg", ".hidden/4.jpg", "a/.5.jpg", "c.csv"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(files, folder):
    return [file.relative_to(folder).as_posix() for file in files]


def test_get_files_finds_all_files_sorted_without_hidden_ones(folder):
    assert names(get_files(folder), folder) == ["a/1.png", "a/deep/3.jpeg", "a/note.txt", "b/2.JPG", "c.csv"]


def test_get_files_without_recursion_looks_into_the_folder_alone(folder):
    assert names(get_files(folder, recurse=False), folder) == ["c.csv"]


@pytest.mark.parametrize("extensions", [[".csv", ".txt"], ["CSV", "txt"], {".csv", ".txt"}])
def test_get_files_takes_extensions_in_any_spelling(folder, extensions):
    assert names(get_files(folder, extensions), folder) == ["a/note.txt", "c.csv"]


def test_get_files_takes_one_extension_or_folder_as_text(folder):
    assert names(get_files(folder, ".csv"), folder) == ["c.csv"]
    assert names(get_files(folder, folders="b"), folder) == ["b/2.JPG"]


def test_get_image_files_finds_images_by_their_extension(folder):
    assert names(get_image_files(folder), folder) == ["a/1.png", "a/deep/3.jpeg", "b/2.JPG"]
    assert names(get_image_files(str(folder), folders=["b"]), folder) == ["b/2.JPG"]
    assert names(get_image_files(folder / "a", recurse=False), folder) == ["a/1.png"]


def test_get_files_says_where_it_looked_for_a_missing_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder \(looked for it from .*\)"):
        get_files("nowhere")
    with pytest.raises(FileNotFoundError, match="d is not a folder"):
        get_files(folder, folders=["d"])
    with pytest.raises(FileNotFoundError, match=r"c\.csv is not a folder"):
        get_files(folder / "c.csv")


def test_links_are_followed_but_not_in_circles(folder):
    (folder / "a/deep/back").symlink_to(folder / "a", target_is_directory=True)
    (folder / "linked").symlink_to(folder / "b", target_is_directory=True)
    assert names(get_image_files(folder), folder) == ["a/1.png", "a/deep/3.jpeg", "b/2.JPG", "linked/2.JPG"]


def test_parent_label_is_the_name_of_the_folder():
    assert parent_label(Path("data/train/ants/1.jpg")) == "ants"
    assert parent_label("data/train/bees/1.jpg") == "bees"
    with pytest.raises(ValueError, match=r"'1\.jpg' names no folder"):
        parent_label("1.jpg")


@given(label=st.text("abc_ ", min_size=1), number=st.integers(0, 10**6))
def test_regex_labeller_gives_the_first_group(label, number):
    labeller = RegexLabeller(r"([^/]+)_\d+\.jpg$")
    assert labeller(f"pets/{label}_{number}.jpg") == label
    assert labeller(Path("pets") / f"{label}_{number}.jpg") == label


def test_regex_labeller_shows_a_text_that_it_does_not_match():
    with pytest.raises(ValueError, match=r"does not match; try it with re.search\('\(\\\\d\+\)', 'cat.jpg'\)"):
        RegexLabeller(r"(\d+)")("cat.jpg")


def test_regex_labeller_needs_a_group():
    with pytest.raises(ValueError, match="has no group: put the label in brackets"):
        RegexLabeller(r"\d+")


Row = namedtuple("Row", "name label")
rows = [
    pd.Series({"name": "a", "label": "x"}),
    {"name": "a", "label": "x"},
    Row("a", "x"),
]


@pytest.mark.parametrize("row", rows)
def test_col_reader_reads_a_column_by_name_or_position(row):
    assert ColReader("label")(row) == "x"
    assert ColReader(1)(row) == "x"
    assert ColReader(-1)(row) == "x"
    assert ColReader(["label", 0])(row) == ["x", "a"]


def test_col_reader_prefers_a_name_that_is_a_number():
    table = pd.DataFrame([["a", "b"]], columns=[1, 0])  # as read without a header, reordered
    assert ColReader(0)(table.iloc[0]) == "b"
    assert ColReader(0)(("a", "b")) == "a"


@pytest.mark.parametrize("row", rows)
def test_col_reader_lists_the_columns_where_one_is_missing(row):
    with pytest.raises(KeyError, match=r"no column 'class'; the columns are \['name', 'label'\]"):
        ColReader("class")(row)


def test_col_reader_puts_a_prefix_and_suffix_around():
    row = {"name": "0001"}
    assert ColReader("name", pref="img_", suff=".png")(row) == "img_0001.png"
    assert ColReader("name", pref=Path("data"), suff=".png")(row) == str(Path("data/0001.png"))
    assert ColReader("name", pref=Path("data"))({"name": "/else/1.png"}) == "/else/1.png"


def test_col_reader_splits_labels():
    reader = ColReader("tags", label_delim=";")
    assert reader({"tags": "a;b"}) == ["a", "b"]
    assert reader({"tags": ""}) == reader({"tags": np.nan}) == reader({"tags": None}) == []
    assert reader({"tags": 3}) == ["3"]


def test_col_reader_takes_what_has_no_columns_as_the_value():
    assert ColReader("name", pref="data/")("else/1.png") == "else/1.png"
    assert ColReader("name")(Path("1.png")) == Path("1.png")


def test_item_and_attr_getter_read_a_part():
    assert ItemGetter(1)(("a", "b")) == "b"
    assert ItemGetter("label")({"label": 3}) == 3
    assert AttrGetter("stem")(Path("a/b.jpg")) == "b"


def test_item_name_hands_on_the_name_alone():
    assert ItemName(str.upper)("data/cat.jpg") == "CAT.JPG"
    assert ItemName(FuncLabeller(len))(Path("data/cat.jpg")) == 7


def test_getters_print_and_compare_by_their_fields():
    assert repr(RegexLabeller("(a)")) == "RegexLabeller(pat='(a)')"
    assert ColReader("a") == ColReader("a") != ColReader("b")


def test_a_list_where_a_folder_is_expected_says_that_it_needs_no_get_items(tmp_path):
    with pytest.raises(TypeError, match="leave get_items out"):
        get_image_files([tmp_path / "a.png"])
