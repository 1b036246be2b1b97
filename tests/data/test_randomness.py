import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from warmstart.data.randomness import Randomness, fresh_seed, kept_generators, mix, seed_generators, seeded_generators

numbers = st.integers(-(2**63), 2**64 - 1)


def draw_globally():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


def test_mix_is_splitmix64():
    # the first three outputs of Vigna's splitmix64.c from state 0, which adds one golden ratio for each
    golden = 0x9E3779B97F4A7C15
    outputs = [mix(i * golden % 2**64) for i in range(3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@given(numbers, numbers, numbers)
def test_mix_depends_on_every_part_and_their_order(a, b, c):
    assert 0 <= mix(a, b) < 2**64
    assert mix(a, b) == mix(a, b)
    if b % 2**64 != c % 2**64:
        assert mix(a, b) != mix(a, c)
        assert mix(b, a) != mix(c, a)
        assert mix(b, c) != mix(c, b)


@given(seed=numbers, epoch=st.integers(0, 1000), items=st.lists(st.integers(0, 10**9), min_size=1), n=st.integers(0, 9))
def test_an_item_has_the_same_numbers_in_any_batch(seed, epoch, items, n):
    batch = Randomness(seed, epoch, items).uniform(n)
    assert batch.shape == (len(items), n) and batch.dtype == torch.float32
    for item, row in zip(items, batch, strict=True):
        assert torch.equal(Randomness(seed, epoch, [item]).uniform(n)[0], row)


def test_more_numbers_begin_with_the_same_ones():
    rand = Randomness(3, 1, [5, 7])
    assert torch.equal(rand.uniform(8)[:, :3], rand.uniform(3))


def test_the_numbers_are_uniform():
    values = Randomness(0, 0, range(2000)).uniform(10)
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 0.005 and abs(values.var() - 1 / 12) < 0.002
    counts = torch.histc(values, bins=20, min=0, max=1)
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 43.8  # the 99.9th percentile for 19 degrees of freedom


def test_seeds_epochs_streams_items_and_positions_are_independent():
    base = Randomness(0, 0, range(4000))
    columns = [
        base.uniform(1),
        base.uniform(2)[:, 1:],
        base.with_stream(1).uniform(1),
        Randomness(0, 1, range(4000)).uniform(1),
        Randomness(1, 0, range(4000)).uniform(1),
        Randomness(0, 0, range(4000, 8000)).uniform(1),
    ]
    correlations = np.corrcoef(torch.cat(columns, 1).T) - np.eye(len(columns))
    assert np.abs(correlations).max() < 0.06  # 4 standard deviations of 1 / sqrt(4000)


def test_global_generators_are_seeded_inside_and_restored_outside():
    expected = draw_globally()
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    with seeded_generators(5):
        first = draw_globally()
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert str(np.random.get_state()) == str(before[1])
    with seeded_generators(5):
        assert draw_globally() == first
    with seeded_generators(6):
        assert draw_globally() != first
    assert first != expected


def test_global_generators_are_restored_after_an_error():
    np.random.randn()  # leaves half of a pair of normal numbers behind
    state = np.random.get_state()
    with pytest.raises(KeyError), kept_generators():
        seed_generators(1)
        raise KeyError
    assert str(np.random.get_state()) == str(state)


@given(numbers)
def test_any_integer_seeds_the_generators(seed):
    with seeded_generators(seed):
        first = draw_globally()
    with seeded_generators(seed):
        assert draw_globally() == first


def test_the_first_item_seeds_the_generators():
    with Randomness(0, 0, [3, 4]).seeded():
        first = draw_globally()
    with Randomness(0, 0, [3, 9]).seeded():
        assert draw_globally() == first
    with Randomness(0, 0, [4, 3]).seeded():
        assert draw_globally() != first
    with Randomness(0, 0, [3, 4], stream=1).seeded():
        assert draw_globally() != first


def test_a_fresh_seed_follows_from_the_global_generator():
    torch.manual_seed(1)
    first = fresh_seed(), fresh_seed()
    assert first[0] != first[1] and all(0 <= seed < 2**31 for seed in first)
    torch.manual_seed(1)
    assert (fresh_seed(), fresh_seed()) == first
