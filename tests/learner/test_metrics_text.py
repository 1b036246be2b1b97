"""BLEU of token ids is torchmetrics' BLEU of the same tokens as words."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchmetrics.text import BLEUScore
from warmstart.learner import CorpusBLEU
from warmstart.learner.metrics import metric_name

torch.set_num_threads(1)
N = 12
random_batchings = st.sets(st.integers(1, N - 1), max_size=5).map(lambda cuts: np.diff([0, *sorted(cuts), N]).tolist())


def sentences(seed, n_words=4, longest=12, shortest=0):
    """Ids (N, longest), of few words, so that runs of them repeat; padded with 1 to different lengths."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 2 + n_words, (N, longest), generator=rng)
    lengths = torch.randint(shortest, longest + 1, (N, 1), generator=rng)
    return ids.where(torch.arange(longest) < lengths, 1)


def words(ids, pad=1):
    return [" ".join(str(i) for i in row if i != pad) for row in ids.tolist()]


def reference(guess, targ):
    return float(BLEUScore(n_gram=4)(words(guess), [[sentence] for sentence in words(targ)]))


def measured(metric, pred, targ, sizes=(N,)):
    metric.reset()
    for batch in zip(pred.split(list(sizes)), targ.split(list(sizes)), strict=True):
        metric.update(*batch)
    return float(metric.compute())


@settings(max_examples=40, deadline=None)
@given(sizes=random_batchings, seed=st.integers(0, 999), n_words=st.integers(1, 4), longest=st.integers(3, 15))
def test_bleu_is_torchmetrics_however_batches_are_cut(sizes, seed, n_words, longest):
    guess, targ = sentences(seed, n_words, longest), sentences(seed + 1000, n_words)
    assert measured(CorpusBLEU(), guess, targ, sizes) == pytest.approx(reference(guess, targ), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_padding_is_left_out_wherever_it_is(seed):
    guess, targ = sentences(seed), sentences(seed + 1000)
    holes = torch.rand(guess.shape, generator=torch.Generator().manual_seed(seed)) < 0.2
    guess = guess.masked_fill(holes, 1)
    expected = pytest.approx(reference(guess, targ), abs=1e-6)
    assert measured(CorpusBLEU(), guess, targ) == expected
    assert measured(CorpusBLEU(), guess, F.pad(targ, (3, 4), value=1)) == expected


def test_logits_stand_for_their_likeliest_words():
    guess, targ = sentences(0), sentences(1000)
    logits = F.one_hot(guess, 6) + 0.5 * torch.rand(*guess.shape, 6)
    expected = reference(guess, targ)
    assert measured(CorpusBLEU(), logits, targ) == pytest.approx(expected, abs=1e-6)
    assert measured(CorpusBLEU(axis=1), logits.movedim(-1, 1), targ) == pytest.approx(expected, abs=1e-6)


def test_another_number_may_be_the_padding():
    guess, targ = sentences(0), sentences(1000)
    zeros = [ids.where(ids != 1, 0) for ids in (guess, targ)]
    assert measured(CorpusBLEU(pad_idx=0), *zeros) == pytest.approx(reference(guess, targ), abs=1e-6)


def test_the_same_text_scores_1_and_a_part_of_it_less():
    targ = sentences(0, shortest=6)
    assert measured(CorpusBLEU(), targ, targ) == pytest.approx(1)
    part = targ[:, :5]
    assert measured(CorpusBLEU(), part, targ) == pytest.approx(reference(part, targ), abs=1e-6)
    assert 0.2 < reference(part, targ) < 0.7


@pytest.mark.parametrize(("word", "length"), [(1, 5), (9, 5), (2, 3), (2, 0)])  # padding, unknown, too short, nothing
def test_text_without_four_right_words_in_a_row_scores_0(word, length):
    assert measured(CorpusBLEU(), torch.full((N, length), word), sentences(0)) == 0


def test_a_sentence_for_each_sentence_is_needed():
    with pytest.raises(ValueError, match=r"compares token ids \(bs, seq\), found predictions of shape \(3, 5\) and"):
        CorpusBLEU().update(torch.ones(3, 5).long(), torch.ones(2, 5).long())
    with pytest.raises(ValueError, match=r"found predictions of shape \(3, 5\)"):
        CorpusBLEU().update(torch.ones(3, 5), torch.ones(3, 5).long())


def test_an_update_reads_nothing_back_from_the_device():
    pred = torch.empty(2, 7, 9, device="meta", requires_grad=True)  # tensors without values: reading one is an error
    metric, targ = CorpusBLEU(), torch.empty(2, 5, dtype=torch.long, device="meta")
    metric.update(pred, targ)
    metric.update(pred, targ)
    assert metric.state.shape == (10,) and metric_name(metric) == "corpus_bleu"
