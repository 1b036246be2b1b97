import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from warmstart.data import Block, CategoryBlock, MultiCategoryBlock, RegressionBlock

texts = st.text(max_size=5)
labels = st.one_of(texts, st.integers(), st.booleans(), st.floats(allow_nan=False))
nothings = [None, float("nan"), np.nan, pd.NA, pd.NaT]


# ---- one label


@given(st.lists(labels, min_size=1))
def test_a_label_is_encoded_as_its_place_in_the_vocabulary_and_decoded_again(values):
    block = CategoryBlock().setup(values)
    assert sorted(map(str, block.vocab)) == sorted(str(v) for v in dict.fromkeys(values))
    for value in values:
        encoded = block.encode(value)
        assert encoded.dtype == torch.int64 and encoded.ndim == 0
        assert block.vocab[encoded] == block.decode(encoded) == value
    assert block.n_out == len(block.vocab)


@given(st.lists(texts, min_size=1))
def test_a_vocabulary_is_sorted_or_as_it_comes(values):
    assert CategoryBlock().setup(values).vocab == sorted(set(values))
    assert CategoryBlock(sort=False).setup(values).vocab == list(dict.fromkeys(values))


def test_labels_that_do_not_compare_are_sorted_by_their_text():
    assert CategoryBlock().setup(["b", 10, "a", 2]).vocab == [10, 2, "a", "b"]


def test_a_given_vocabulary_is_kept_in_its_order():
    block = CategoryBlock(vocab=["wasp", "ant", "wasp"]).setup(["ant"])
    assert block.vocab == ["wasp", "ant"]
    assert block.encode("ant") == 1
    assert CategoryBlock(vocab=pd.Series(["b", "a", "b"]).unique()).vocab == ["b", "a"]


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.str_, np.bool_, torch.tensor])
def test_scalars_of_numpy_and_torch_are_labels_like_pythons(kind):
    plain = "1" if kind is np.str_ else True if kind is np.bool_ else 1
    block = CategoryBlock().setup([kind(plain)])
    assert type(block.vocab[0]) in (int, float, str, bool)
    assert block.encode(kind(plain)) == block.encode(plain) == 0


@pytest.mark.parametrize("nothing", nothings)
def test_a_missing_label_is_an_error_or_a_class_of_its_own(nothing):
    assert CategoryBlock().is_missing(nothing)
    block = CategoryBlock(add_na=True)
    assert not block.is_missing(nothing)
    block = block.setup(["b", nothing, "a"])
    assert block.vocab == ["#na#", "a", "b"]
    assert block.encode(nothing) == 0 and block.decode(torch.tensor(0)) == "#na#"


def test_na_is_added_to_a_vocabulary_once():
    assert CategoryBlock(vocab=["a"], add_na=True).vocab == ["#na#", "a"]
    assert CategoryBlock(vocab=["#na#", "a"], add_na=True).setup([]).vocab == ["#na#", "a"]


def test_an_unknown_label_is_named_with_the_vocabulary_and_the_fix():
    with pytest.raises(ValueError, match=r"'wasp' is not in the vocabulary \('ant', 'bee'\).*training set.*vocab="):
        CategoryBlock(vocab=["ant", "bee"]).encode("wasp")
    with pytest.raises(ValueError, match=r"9, … \(1000 in all\)"):
        CategoryBlock(vocab=range(1000)).encode(-1)
    with pytest.raises(ValueError, match="nan is not in the vocabulary"):
        CategoryBlock(vocab=["ant"]).encode(float("nan"))


def test_several_labels_in_the_place_of_one_are_pointed_to_the_other_block():
    for block in (CategoryBlock(), CategoryBlock(vocab=["a"])):
        with pytest.raises(TypeError, match=r"one label for each item, got \['a', 'b'\]: MultiCategoryBlock"):
            block.setup([["a", "b"]]).encode(["a", "b"])


def test_setup_leaves_the_block_as_it_was():
    block = CategoryBlock()
    block.setup(["a"])
    assert block == CategoryBlock() and block.vocab is None and block.n_out is None


# ---- several labels


@given(st.lists(st.sets(labels)))
def test_labels_are_encoded_as_zeros_and_ones_and_decoded_again(values):
    block = MultiCategoryBlock().setup(values)
    for value in values:
        encoded = block.encode(list(value))
        assert encoded.dtype == torch.float32 and encoded.shape == (block.n_out,)
        assert set(encoded.tolist()) <= {0.0, 1.0}
        assert set(block.decode(encoded)) == value


def test_probabilities_are_decoded_at_one_half():
    block = MultiCategoryBlock(vocab=["a", "b", "c"])
    assert block.decode(torch.tensor([0.9, 0.5, 0.51])) == ["a", "c"]
    assert block.text(["a", "c"]) == "a;c"


def test_a_text_is_no_list_of_labels():
    for value in ("abc", 3):
        with pytest.raises(TypeError, match=r"list of labels for each item, got .*label_delim="):
            MultiCategoryBlock().setup([value])


def test_missing_labels_among_several_are_left_out():
    block = MultiCategoryBlock().setup([["b", np.nan], [None, "a"], []])
    assert block.vocab == ["a", "b"]
    assert block.encode(["b", np.nan]).tolist() == [0, 1]


def test_unknown_labels_among_several_are_an_error_or_na():
    with pytest.raises(ValueError, match="'c' is not in the vocabulary"):
        MultiCategoryBlock(vocab=["a", "b"]).encode(["a", "c"])
    block = MultiCategoryBlock(vocab=["a", "b"], add_na=True)
    assert block.encode(["a", "c"]).tolist() == [1, 1, 0]
    assert block.encode(None).tolist() == [1, 0, 0]
    assert block.encode([]).tolist() == [0, 0, 0]


def test_zeros_and_ones_may_be_given_themselves():
    block = MultiCategoryBlock(encoded=True, vocab=["a", "b"])
    assert block.encode([0, True]).tolist() == [0, 1]
    assert block.decode(torch.tensor([0.0, 1.0])) == ["b"]
    assert MultiCategoryBlock(encoded=True).setup([[0, 1, 0]]).vocab == [0, 1, 2]
    with pytest.raises(ValueError, match=r"2 numbers, 0 or 1, are expected.*got \[1\]"):
        block.encode([1])


# ---- numbers


@given(st.floats(-1e6, 1e6, width=32))
def test_a_number_is_encoded_in_single_precision(number):
    block = RegressionBlock().setup([number])
    encoded = block.encode(number)
    assert encoded.dtype == torch.float32 and encoded.ndim == 0 and block.n_out == 1
    assert block.decode(encoded) == number


@given(st.lists(st.integers(-100, 100), min_size=2, max_size=5))
def test_several_numbers_are_encoded_together(numbers):
    block = RegressionBlock().setup([numbers])
    assert block.n_out == len(numbers)
    assert block.encode(tuple(numbers)).tolist() == block.decode(block.encode(np.array(numbers))) == numbers


def test_numbers_are_written_with_four_digits():
    assert RegressionBlock().text(3.14159) == "3.142"
    assert RegressionBlock().text([1.0, 2.5]) == "1, 2.5"


def test_numbers_are_missing_where_one_of_them_is():
    block = RegressionBlock()
    assert block.is_missing(None) and block.is_missing(np.nan) and block.is_missing([1.0, np.nan])
    assert not block.is_missing(0) and not block.is_missing([0, 0])


def test_a_regression_needs_as_many_numbers_as_it_says():
    with pytest.raises(TypeError, match="a number or a list of numbers, got 'three'"):
        RegressionBlock().encode("three")
    with pytest.raises(ValueError, match=r"RegressionBlock\(n_out=2\) got 3 numbers: \[1, 2, 3\]"):
        RegressionBlock(n_out=2).encode([1, 2, 3])


# ---- any block


@pytest.mark.parametrize("value", [[1.0, 2.0], np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]).double()])
def test_a_plain_block_takes_numbers_in_single_precision(value):
    assert Block().encode(value).dtype == torch.float32
    assert Block().encode(np.array([1, 2])).dtype == torch.int64


def test_values_are_collated_into_one_tensor():
    block = RegressionBlock()
    assert torch.equal(block.collate([torch.tensor(1.0), torch.tensor(2.0)]), torch.tensor([1.0, 2.0]))
    with pytest.raises(RuntimeError):
        block.collate([torch.zeros(1), torch.zeros(2)])


def test_tensors_are_written_in_words():
    assert Block().text(torch.tensor([1.0, 2.55])) == "1, 2.55"
    assert Block().text(torch.zeros(3, 224)) == "Tensor (3, 224) float32"
    assert Block().text(0.123456) == "0.1235"
    assert CategoryBlock().text("ant") == "ant"


def test_blocks_name_the_loss_of_their_kind():
    kinds = (Block, CategoryBlock, MultiCategoryBlock, RegressionBlock)
    assert [kind.loss for kind in kinds] == [None, "CrossEntropyLoss", "BCEWithLogitsLoss", "MSELoss"]
