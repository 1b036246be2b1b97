import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from warmstart.data.by_length import SortedInChunks


@given(st.lists(st.integers(1, 50), max_size=400), st.integers(1, 7))
def test_each_item_comes_once_and_the_longest_in_the_first_batch(lengths, bs):
    order = list(SortedInChunks(lengths, bs))
    assert sorted(order) == list(range(len(lengths)))
    if len(lengths) >= bs and len(lengths) % bs == 0:
        assert max(lengths) in [lengths[i] for i in order[:bs]]


def test_a_batch_has_items_of_similar_length():
    lengths = np.random.default_rng(0).lognormal(5, 0.6, 3000).astype(int)

    def padding(order):
        batches = lengths[np.array(order)].reshape(-1, 50)
        return 1 - lengths.sum() / (batches.max(1) * 50).sum()

    assert padding(torch.randperm(3000).tolist()) > 0.6
    assert padding(list(SortedInChunks(lengths, 50))) < 0.15


def test_batches_are_shuffled_and_the_generator_decides():
    lengths = list(range(100))
    torch.manual_seed(0)
    first, second = list(SortedInChunks(lengths, 10)), list(SortedInChunks(lengths, 10))
    torch.manual_seed(0)
    assert first != second and list(SortedInChunks(lengths, 10)) == first
    longest = [max(first[i : i + 10]) for i in range(0, 100, 10)]
    assert longest != sorted(longest, reverse=True)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_items_are_an_incomplete_batch(n):
    assert sorted(SortedInChunks(range(1, n + 1), 4)) == list(range(n))
