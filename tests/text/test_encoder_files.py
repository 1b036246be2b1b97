"""Files of text learners hold their vocabulary, so that weights are not put to the wrong words."""

import pandas as pd
import pytest
import torch
from warmstart.text import AWD_LSTM, TextDataBunch, language_model_learner, text_classifier_learner

torch.set_num_threads(1)
WORDS = ["film", "good", "bad"]


def learner(path, vocab, is_lm=False):
    df = pd.DataFrame({"text": ["a good film", "a bad film"] * 20, "label": ["pos", "neg"] * 20})
    data = TextDataBunch.from_df(df, vocab=vocab, is_lm=is_lm, seed=0, bs=4, seq_len=5, num_workers=0, device="cpu")
    make = language_model_learner if is_lm else text_classifier_learner
    return make(data, AWD_LSTM, {"emb_sz": 8, "n_hid": 8, "n_layers": 1}, pretrained=False, path=path)


@pytest.mark.parametrize("is_lm", [False, True])
def test_weights_of_the_same_words_are_loaded(tmp_path, is_lm):
    saved = learner(tmp_path, WORDS, is_lm=is_lm)
    saved.save("weights")
    loaded = learner(tmp_path, WORDS, is_lm=is_lm).load("weights")
    for name, value in saved.model.state_dict().items():
        assert value.equal(loaded.model.state_dict()[name])


@pytest.mark.parametrize("is_lm", [False, True])
@pytest.mark.parametrize("words", [["film", "bad", "good"], [*WORDS, "long"]])
def test_weights_of_other_words_are_refused_though_they_may_have_the_same_shape(tmp_path, words, is_lm):
    learner(tmp_path, WORDS, is_lm=is_lm).save("weights")
    other = learner(tmp_path, words, is_lm=is_lm)
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    match = (
        rf"weights.pth was saved with another vocabulary: 12 words there, {9 + len(words)} here, and number 1[02] is"
    )
    with pytest.raises(ValueError, match=match):
        other.load("weights")
    assert all(value.equal(before[name]) for name, value in other.model.state_dict().items())


def test_a_plain_state_dict_says_nothing_of_words_and_is_loaded(tmp_path):
    saved, other = learner(tmp_path, WORDS), learner(tmp_path, ["film", "bad", "good"])
    (tmp_path / "models").mkdir()
    torch.save(saved.model.state_dict(), tmp_path / "models" / "plain.pth")
    other.load("plain", with_opt=False)
    assert other.encoder.embedding.weight.equal(saved.encoder.embedding.weight)
