"""Fingerprints: equal for equal data, other for other data, and nothing is opened for them."""

import copy
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from warmstart.data import (
    Block,
    CategoryBlock,
    DataBlock,
    Dataset,
    FuncLabeller,
    IndexSplitter,
    get_image_files,
    parent_label,
)
from warmstart.data import fingerprint as module
from warmstart.data.fingerprint import content_hash, fingerprint
from warmstart.vision import ImageBlock, ImageDataBunch


@pytest.fixture
def photos(tmp_path):
    for label in ("ants", "bees"):
        for number in range(4):
            file = tmp_path / "photos" / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8 + number, 8)).save(file)
    return tmp_path / "photos"


def dataset(folder, get_y=parent_label):
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=get_y, splitter=IndexSplitter([7]))
    return block.datasets(folder, seed=0).train


def changed(old, new):
    return {key for key in {*old, *new} if old.get(key) != new.get(key)}


# ---- files


def test_files_are_told_by_number_names_and_sizes(photos):
    found = fingerprint(dataset(photos))
    assert found["kind"] == "Dataset" and found["items"] == 7
    assert {len(found[key]) for key in ("content", "names", "sizes")} == {64}
    assert found == fingerprint(dataset(photos))


def test_no_image_is_opened(photos, monkeypatch):
    ds = dataset(photos)
    before = fingerprint(ds)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("a file was opened"))
    assert fingerprint(ds) == before


def test_the_same_files_in_another_place_are_the_same_data(photos):
    elsewhere = shutil.copytree(photos, photos.parent / "a" / "copy")
    os.utime(elsewhere / "ants" / "0.png", (0, 0))
    assert fingerprint(dataset(elsewhere)) == fingerprint(dataset(photos))


def test_a_file_that_was_written_anew_with_another_size_is_seen(photos):
    before = fingerprint(dataset(photos))
    (photos / "ants" / "0.png").write_bytes(b"x" * 500)
    assert changed(before, fingerprint(dataset(photos))) == {"sizes"}


def test_a_file_in_the_folder_of_another_class_is_seen(photos):
    before = fingerprint(dataset(photos))
    (photos / "ants" / "0.png").rename(photos / "bees" / "00.png")
    assert "names" in changed(before, fingerprint(dataset(photos)))


def test_files_that_are_missing_have_a_size_too(tmp_path):
    assert fingerprint([tmp_path / "a.png", tmp_path / "b.png"])["items"] == 2


def test_names_are_relative_to_the_common_folder(tmp_path):
    for names in (["1.png"], ["a/b.png", "a/bc.png"], ["x/1.png", "y/1.png"]):
        here, there = [tmp_path / "here" / name for name in names], [tmp_path / "th" / "ere" / name for name in names]
        assert fingerprint(here) == fingerprint(there) == fingerprint([Path(name) for name in names])
    pairs = [[(str(tmp_path / folder / "1.png"), label)] for folder, label in (("here", 0), ("there", 0), ("there", 1))]
    assert fingerprint(pairs[0]) == fingerprint(pairs[1]) != fingerprint(pairs[2])


def test_of_very_many_files_some_are_asked_for_their_size(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "MANY", 10)
    monkeypatch.setattr(module, "_size", asked.append)
    fingerprint([tmp_path / f"{number}.png" for number in range(100)])
    assert len(asked) == 10


def test_the_files_that_a_table_names_count(photos):
    df = pd.DataFrame({"name": [f"ants/{n}.png" for n in range(4)], "label": [0, 1, 0, 1], "valid": [0, 0, 0, 1]})

    def found():
        return fingerprint(ImageDataBunch.from_df(df, photos, valid_col="valid", bs=1, seed=0).train_ds)

    before = found()
    assert before == found() and before["sizes"]
    (photos / "ants" / "0.png").write_bytes(b"x" * 500)
    assert changed(before, found()) == {"sizes"}


# ---- labels


def test_labels_that_a_function_of_the_users_own_reads_are_seen(photos):
    labels = {file: file.stem for file in get_image_files(photos)}
    before = fingerprint(dataset(photos, lambda file: labels[file]))
    assert before["labels"] and before == fingerprint(dataset(photos, FuncLabeller(lambda file: labels[file])))
    labels[photos / "ants" / "0.png"] = "1"
    assert changed(before, fingerprint(dataset(photos, lambda file: labels[file]))) == {"labels"}


def test_labels_that_follow_from_the_items_are_not_read_again(photos):
    assert "labels" not in fingerprint(dataset(photos))


def test_what_an_own_function_reads_for_another_block_is_not_looked_at():
    ds = Dataset([1, 2], [Block(), Block()], [None, lambda _: pytest.fail("it was read")])
    assert "labels" not in fingerprint(ds)


# ---- other data


def test_a_cell_of_a_table_makes_a_difference():
    table = pd.DataFrame({"text": ["good", "bad"], "tags": [["a"], ["b", "c"]], "n": [1.0, np.nan]})
    others = {"text": ["good", "good"], "tags": [["a"], ["b"]], "n": [1.0, 2.0]}
    changed = [table.assign(**{name: values}) for name, values in others.items()]
    hashes = {content_hash(table), *map(content_hash, changed), content_hash(table.rename(columns={"n": "m"}))}
    assert content_hash(table) == content_hash(table.copy()) and len(hashes) == 5


def test_a_number_in_a_tensor_makes_a_difference():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64):
        x = torch.zeros(3, 4).to(dtype)
        other = x.clone()
        other[2, 3] = 1
        assert content_hash(x) == content_hash(x.clone()) != content_hash(other)
        assert content_hash(x) != content_hash(x.T) != content_hash(x.tolist())
        assert content_hash(torch.zeros((), dtype=dtype))


def test_tensor_datasets_are_told_by_their_content_and_their_parts_too():
    x, y = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    whole = TensorDataset(x, y)
    assert fingerprint(whole) == fingerprint(TensorDataset(x.clone(), y.clone()))
    assert changed(fingerprint(whole), fingerprint(TensorDataset(x, y.flip(0)))) == {"content"}
    assert changed(fingerprint(Subset(whole, [0, 1])), fingerprint(Subset(whole, [0, 2]))) == {"content"}


def test_of_a_big_tensor_some_rows_are_hashed_all_over_it(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 400)
    x = torch.zeros(1000, 10)
    last = x.clone()
    last[::100] = 1
    assert content_hash(x) != content_hash(last)
    assert content_hash(x.numpy()) != content_hash(last.numpy())


def test_torchvisions_datasets_are_known_by_their_files(photos):
    before = fingerprint(ImageFolder(photos))
    assert before["items"] == 8 and before["sizes"]
    (photos / "ants" / "0.png").rename(photos / "ants" / "9.png")
    assert "names" in changed(before, fingerprint(ImageFolder(photos)))


def test_of_any_other_dataset_there_is_its_kind_and_its_length():
    class Squares(torch.utils.data.Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            pytest.fail("an item was read")

    class Stream(IterableDataset):
        def __iter__(self):
            pytest.fail("an item was read")

    assert changed(fingerprint(Squares()), fingerprint(Stream())) == {"kind", "items"}
    assert fingerprint(Squares())["items"] == 5 and fingerprint(Stream())["items"] is None


def test_a_loader_that_is_a_list_of_batches_is_told_by_them():
    batches = [(torch.zeros(2, 3), torch.tensor([0, 1]))]
    assert changed(fingerprint(batches), fingerprint([(torch.ones(2, 3), torch.tensor([0, 1]))])) == {"content"}


def test_plain_values_have_the_same_hash_if_they_print_the_same():
    values = [None, 1, 1.0, True, "1", b"1", [], (), {}, [1], (1,), [[1]], ["1"], [1, None], {1: 1}, [(1, 1)], range(1),
              ["a", "b"], ["a\0str b"], "é\ud800", np.ones(1), np.ones((1, 1)), np.float32(1)]  # fmt: skip
    assert len({content_hash(value) for value in values}) == len(values)
    assert [content_hash(value) for value in copy.deepcopy(values)] == [content_hash(value) for value in values]


def test_items_that_are_dataclasses_are_told_by_their_fields_and_objects_without_an_address():
    @dataclass
    class Box:
        sides: tuple
        what: object

    assert content_hash(Box((1, 2), object())) == content_hash(Box((1, 2), object()))
    assert content_hash(Box((1, 2), None)) != content_hash(Box((1, 3), None))
