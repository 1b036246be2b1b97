"""Predictions as training goes on."""

import numpy as np
import pytest
import torch
from warmstart.callbacks import Callback
from warmstart.callbacks.fetch_preds import FetchPreds
from warmstart.callbacks.trackers import EarlyStopping, SaveModel


class Expected(Callback):
    """Computes the validation set's probabilities by hand after each epoch, and looks at those of `fetch`."""

    order = 63

    def __init__(self, fetch):
        self.fetch, self.by_hand, self.fetched = fetch, [], []

    def after_epoch(self, learn):
        with torch.no_grad():
            self.by_hand.append(torch.cat([learn.model(x).softmax(1) for x, _ in learn.data.valid_dl]))
        self.fetched.append(self.fetch.preds)


def test_each_epoch_has_its_predictions(make_learn):
    learn, fetch = make_learn(), FetchPreds()
    expected = Expected(fetch)
    learn.fit(2, 0.1, cbs=[fetch, expected])
    for (preds, targs), by_hand in zip(expected.fetched, expected.by_hand, strict=True):
        torch.testing.assert_close(preds, by_hand)
        assert torch.equal(targs, torch.cat([y for _, y in learn.data.valid_dl]))
    assert not torch.equal(expected.by_hand[0], expected.by_hand[1])


def test_per_fit_they_are_those_of_the_weights_that_stay(make_learn, tmp_path):
    learn, fetch = make_learn(path=tmp_path), FetchPreds(per="fit")
    expected = Expected(fetch)
    cbs = [SaveModel(comp=np.greater), EarlyStopping(comp=np.greater)]  # the first is the best, as losses fall
    learn.fit(9, 0.01, cbs=[fetch, expected, *cbs])
    assert expected.fetched == [(), ()]
    torch.testing.assert_close(fetch.preds[0], expected.by_hand[0])


def test_columns_and_sets_are_those_of_get_preds(make_learn):
    learn, fetch = make_learn(), FetchPreds("train", per="fit", with_input=True, with_loss=True, with_decoded=True)
    learn.fit(1, cbs=fetch)
    expected = learn.get_preds("train", with_input=True, with_loss=True, with_decoded=True)
    assert len(fetch.preds) == 5
    for ours, theirs in zip(fetch.preds, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_fetching_changes_neither_training_nor_its_record(make_learn):
    plain, watched = make_learn(), make_learn()
    plain.fit(2)
    watched.fit(2, cbs=[FetchPreds(), FetchPreds("train", per="fit")])
    assert watched.recorder.losses == plain.recorder.losses
    assert watched.recorder.history.drop(columns="time").equals(plain.recorder.history.drop(columns="time"))


def test_another_time_is_refused():
    with pytest.raises(ValueError, match="per='batch'"):
        FetchPreds(per="batch")
