from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split
from warmstart.data import (
    ColSplitter,
    EndSplitter,
    FileSplitter,
    FuncSplitter,
    GrandparentSplitter,
    IndexSplitter,
    KFoldSplitter,
    MaskSplitter,
    RandomSplitter,
    RandomSubsetSplitter,
    TrainTestSplitter,
)

sizes, shares, seeds = st.integers(0, 300), st.floats(0, 1), st.integers(0, 2**40)


def assert_parts(split, n):
    train, valid = split
    assert sorted([*train, *valid]) == list(range(n))


@given(n=sizes, share=shares, seed=seeds)
def test_random_splitter_parts_the_items_in_the_given_share(n, share, seed):
    split = RandomSplitter(share, seed)(range(n))
    assert_parts(split, n)
    assert len(split[1]) == round(share * n)


def test_random_splitter_repeats_itself_under_a_seed_alone():
    items = range(100)
    assert RandomSplitter(seed=1)(items) == RandomSplitter(seed=1)(items) != RandomSplitter(seed=2)(items)
    assert RandomSplitter()(items) != RandomSplitter()(items)
    torch.manual_seed(0)
    first = RandomSplitter()(items)
    torch.manual_seed(0)
    assert RandomSplitter()(items) == first


@given(labels=st.lists(st.sampled_from("aaabbc"), min_size=1, max_size=200), share=shares, seed=seeds)
def test_train_test_splitter_keeps_each_labels_share(labels, share, seed):
    train, valid = TrainTestSplitter(share, stratify=labels, seed=seed)(labels)
    assert_parts((train, valid), len(labels))
    for label in set(labels):
        assert abs(sum(labels[i] == label for i in valid) - share * labels.count(label)) < 1


def test_train_test_splitter_agrees_with_scikit_learn_on_the_counts():
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    _, valid = TrainTestSplitter(0.3, stratify=pd.Series(labels, index=range(100, 200)), seed=0)(labels)
    _, expected = train_test_split(labels, test_size=0.3, stratify=labels, random_state=0)
    assert sorted(labels[i] for i in valid) == sorted(expected)


def test_train_test_splitter_is_random_inside_a_label():
    labels = ["a"] * 50 + ["b"] * 50
    assert TrainTestSplitter(stratify=labels, seed=1)(labels) != TrainTestSplitter(stratify=labels, seed=2)(labels)
    assert_parts(TrainTestSplitter(seed=1)(labels), 100)


def test_train_test_splitter_needs_a_label_for_each_item():
    with pytest.raises(ValueError, match="stratify has 2 labels for 3 items"):
        TrainTestSplitter(stratify=["a", "b"])([1, 2, 3])


@pytest.mark.parametrize("splitter", [RandomSplitter, TrainTestSplitter, EndSplitter])
def test_a_share_lies_between_0_and_1(splitter):
    with pytest.raises(ValueError, match=r"=1\.5 is a share of the items"):
        splitter(1.5)


def test_grandparent_splitter_goes_by_the_folder_two_levels_up():
    items = ["d/train/a/1.jpg", Path("d/valid/a/2.jpg"), "d/test/a/3.jpg", "d/train/b/4.jpg", "d/models/5.jpg"]
    assert GrandparentSplitter()(items) == ([0, 3], [1])
    assert GrandparentSplitter(train_name="test", valid_name="train")(items) == ([2], [0, 3])


def test_grandparent_splitter_lists_the_folders_that_are_there():
    with pytest.raises(ValueError, match=r"2 items under 'train' and 0 under 'valid'.*\['train', 'val'\].*valid_name="):
        GrandparentSplitter()(["train/a/1.jpg", "train/a/2.jpg", "val/a/3.jpg"])


def test_func_splitter_asks_of_each_item():
    assert FuncSplitter(lambda i: i > 3)([5, 1, 4, 2]) == ([1, 3], [0, 2])
    assert FuncSplitter(lambda row: row["fold"] == 1)(pd.DataFrame({"fold": [0, 1, 1]})) == ([0], [1, 2])


@given(n=st.integers(1, 50), data=st.data())
def test_index_splitter_validates_on_the_given_positions(n, data):
    valid = data.draw(st.lists(st.integers(-n, n - 1)))
    split = IndexSplitter(valid)(range(n))
    assert_parts(split, n)
    assert set(split[1]) == {i % n for i in valid}


def test_index_splitter_takes_arrays_and_names_a_position_that_does_not_exist():
    assert IndexSplitter(np.array([2, 0]))("abc") == ([1], [0, 2])
    assert IndexSplitter(torch.tensor([2, 0]))("abc") == ([1], [0, 2])
    with pytest.raises(IndexError, match="position 3 does not exist, there are 3 items"):
        IndexSplitter([0, 3])("abc")


@pytest.mark.parametrize("wrap", [list, np.array, torch.tensor, pd.Series])
def test_mask_splitter_validates_where_the_mask_is_true(wrap):
    assert MaskSplitter(wrap([True, False, True]))("abc") == ([1], [0, 2])
    assert MaskSplitter(wrap([1, 0, 1]))("abc") == ([1], [0, 2])


def test_mask_splitter_needs_a_value_for_each_item():
    with pytest.raises(ValueError, match="the mask has 2 values for 3 items"):
        MaskSplitter([True, False])("abc")


def test_col_splitter_validates_on_the_rows_that_are_marked():
    table = pd.DataFrame({"name": list("abcd"), "is_valid": [True, False, False, True]}, index=[9, 8, 7, 6])
    assert ColSplitter()(table) == ([1, 2], [0, 3])
    assert ColSplitter(1)(table) == ColSplitter(-1)(table) == ([1, 2], [0, 3])
    assert ColSplitter(7)(pd.DataFrame({7: [0, 1.0]})) == ([0], [1])


def test_col_splitter_explains_what_it_cannot_read():
    table = pd.DataFrame({"split": ["train", "valid"], "mark": [True, None]})
    with pytest.raises(KeyError, match=r"no column 'is_valid'; the columns are \['split', 'mark'\]"):
        ColSplitter()(table)
    with pytest.raises(ValueError, match="column 'split' holds 'train': it must hold True or False"):
        ColSplitter("split")(table)
    with pytest.raises(ValueError, match="column 'mark' holds None"):
        ColSplitter("mark")(table)
    with pytest.raises(TypeError, match="needs a DataFrame, got list: use FuncSplitter"):
        ColSplitter()([1, 2])


def test_file_splitter_validates_on_the_listed_names(tmp_path):
    (tmp_path / "valid.txt").write_text("1.jpg\r\n 3.jpg\n\n")
    assert FileSplitter(tmp_path / "valid.txt")(["a/1.jpg", Path("a/2.jpg"), "b/3.jpg"]) == ([1], [0, 2])


@given(n=st.integers(0, 200), train=shares, seed=seeds)
def test_random_subset_splitter_takes_two_disjoint_parts(n, train, seed):
    valid = 1 - train
    split = RandomSubsetSplitter(train, valid, seed)(range(n))
    assert len({*split[0], *split[1]}) == len(split[0]) + len(split[1]) >= n - 2
    assert abs(len(split[0]) - train * n) < 1 and abs(len(split[1]) - valid * n) < 1


def test_random_subset_splitter_takes_counts_too():
    train, valid = RandomSubsetSplitter(5, 2, seed=0)(range(100))
    assert len(train) == 5 and len(valid) == 2
    with pytest.raises(ValueError, match=r"wants 5 \+ 6 items, there are 10"):
        RandomSubsetSplitter(5, 6)(range(10))


def test_end_splitter_validates_on_the_last_items():
    assert EndSplitter(0.2)(range(10)) == (list(range(8)), [8, 9])


@given(n=sizes, n_splits=st.integers(2, 9), seed=st.none() | seeds)
def test_the_folds_are_disjoint_and_complete(n, n_splits, seed):
    splits = [KFoldSplitter(n_splits, fold, seed)(range(n)) for fold in range(n_splits)]
    for split in splits:
        assert_parts(split, n)
    assert sorted(i for _, valid in splits for i in valid) == list(range(n))
    assert max(len(valid) for _, valid in splits) - min(len(valid) for _, valid in splits) <= 1


def test_the_folds_are_dealt_in_order_or_shuffled():
    assert KFoldSplitter(2, 1)(range(6)) == ([0, 2, 4], [1, 3, 5])
    assert KFoldSplitter(2, 1, seed=0)(range(60)) != KFoldSplitter(2, 1)(range(60))


def test_a_fold_must_exist():
    with pytest.raises(ValueError, match="fold=5: with n_splits=5 the folds are 0 to 4"):
        KFoldSplitter(5, 5)
    with pytest.raises(ValueError, match="needs at least 2 folds"):
        KFoldSplitter(1)
