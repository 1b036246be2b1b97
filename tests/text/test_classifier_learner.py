"""Text classifiers: what they learn, what they take over from a language model, and how they come back."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from warmstart.data import DataBlock
from warmstart.data.portable import describe, restore
from warmstart.learner import accuracy, load_learner, set_seed
from warmstart.learner.files import FileError
from warmstart.text import (
    AWD_LSTM,
    TextBlock,
    TextDataBunch,
    TextLearner,
    TokenCategoryBlock,
    TransformerLM,
    WordsBlock,
    language_model_learner,
    text_classifier_learner,
)
from warmstart.text.classifier import TextClassifierSpec, text_head

torch.set_num_threads(1)
CONFIGS = {AWD_LSTM: {"emb_sz": 16, "n_hid": 24, "n_layers": 2},
           TransformerLM: {"emb_sz": 16, "n_hid": 24, "n_layers": 2, "n_heads": 2}}  # fmt: skip
REVIEWS = Path(__file__).parents[3] / "shared/data/rt-polarity"
both = pytest.mark.parametrize("arch", [AWD_LSTM, TransformerLM])


def reviews(n=320):
    """Made-up reviews of many lengths, in which one word may turn what another means."""
    draw = random.Random(0)
    filler = ["the film", "was", "long", "and had", "a plot", "with", "some", "people", "in it", "who", "spoke"]
    rows = []
    for i in range(n):
        words = draw.choices(filler, k=draw.randint(3, 40))
        words[draw.randrange(len(words))] = "not good" if i % 2 else "good"
        rows.append((" ".join(words), "bad" if i % 2 else "fine", i >= n * 3 // 4))
    return pd.DataFrame(rows, columns=["text", "label", "is_valid"])


def bunch(vocab=None, is_lm=False, df=None):
    return TextDataBunch.from_df(reviews() if df is None else df, is_lm=is_lm, valid_col="is_valid", seed=0, bs=16,
                                 vocab=vocab, seq_len=10, num_workers=0, device="cpu")  # fmt: skip


def learner(arch, data=None, **options):
    set_seed(0)
    options = {
        "config": CONFIGS[arch],
        "pretrained": False,
        "metrics": accuracy,
        "drop_mult": 0.2,
        "seq_len": 12,
        **options,
    }
    learn = text_classifier_learner(data or bunch(), arch, **options)
    learn.progress.bar = learn.progress.table = False
    return learn


@pytest.fixture(scope="module")
def trained():
    found = {}
    for arch in CONFIGS:
        found[arch] = learner(arch)
        found[arch].fit_one_cycle(5, 2e-2 if arch is AWD_LSTM else 1e-2)
    return found


@both
def test_it_learns_what_texts_are(trained, arch):
    learn = trained[arch]
    assert learn.validate()["accuracy"] > 0.9
    decoded, index, probs = learn.predict("the film was not good and long")
    assert decoded == "bad" and index == 0 and probs.shape == (2,) and probs[0] > 0.6
    assert learn.predict("the film was good and long").decoded == "fine"


@both
def test_a_text_is_predicted_alone_as_it_is_among_others(trained, arch):
    learn = trained[arch]
    texts = reviews(12)["text"].tolist()
    many, _ = learn.get_preds(dl=learn.data.test_dl(texts))
    torch.testing.assert_close(torch.stack([learn.predict(text).probs for text in texts]), many, atol=1e-5, rtol=1e-5)


@both
def test_layer_groups_are_the_embedding_the_layers_and_the_head(trained, arch):
    learn = trained[arch]
    assert len(learn.groups) == 4
    assert sum(map(len, learn.groups)) == len(list(learn.model.parameters()))
    learn.freeze_to(-2)
    assert [any(p.requires_grad for p in group) for group in learn.groups] == [False, False, True, True]
    learn.unfreeze()


def test_an_export_predicts_the_same_in_a_new_process(trained, tmp_path):
    files = [str(trained[arch].export(tmp_path / f"{arch.__name__}.pt")) for arch in CONFIGS]
    text = "the plot was not good at all"
    code = (
        "import json; from warmstart.text import *; torch.set_num_threads(1)\n"
        f"for learn in map(load_learner, {files!r}): p = learn.predict({text!r}); "
        "print(json.dumps([type(learn).__name__, p.decoded, p.probs.tolist()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for arch, line in zip(CONFIGS, done.stdout.splitlines(), strict=True):
        kind, decoded, probs = json.loads(line)
        expected = trained[arch].predict(text)
        assert kind == "TextLearner" and decoded == expected.decoded
        torch.testing.assert_close(torch.tensor(probs), expected.probs)


@both
def test_what_a_language_model_has_read_is_taken_over(arch, tmp_path):
    data = bunch(is_lm=True)
    lm = language_model_learner(data, arch, CONFIGS[arch], pretrained=False, path=tmp_path)
    assert lm.save_encoder("reviews") == tmp_path / "models" / "reviews.pth"
    learn = learner(arch, bunch(data.blocks[0].vocab), path=tmp_path)
    assert learn.load_encoder("reviews") is learn
    for name, value in learn.encoder.state_dict().items():
        assert torch.equal(value, lm.model.encoder.state_dict()[name])
    assert [any(p.requires_grad for p in group) for group in learn.groups] == [False, False, False, True]
    assert (
        load_learner(learn.export(tmp_path / "c.pt")).encoder.state_dict().keys() == learn.encoder.state_dict().keys()
    )


def test_an_encoder_of_other_words_or_sizes_is_refused(tmp_path):
    data = bunch(is_lm=True)
    language_model_learner(data, AWD_LSTM, CONFIGS[AWD_LSTM], pretrained=False, path=tmp_path).save_encoder("lm")
    vocab = data.blocks[0].vocab
    with pytest.raises(ValueError, match=r"another vocabulary: .* number 9 is .* TextBlock\(vocab=other"):
        learner(AWD_LSTM, bunch([*vocab[:9], *vocab[9:][::-1]]), path=tmp_path).load_encoder("lm")
    with pytest.raises(ValueError, match="weights of another architecture"):
        learner(AWD_LSTM, bunch(vocab), config=CONFIGS[AWD_LSTM] | {"n_hid": 25}, path=tmp_path).load_encoder("lm")


def test_other_files_are_refused(tmp_path):
    learn = learner(AWD_LSTM, path=tmp_path)
    with pytest.raises(FileNotFoundError):
        learn.load_encoder("nothing")
    learn.save("whole")
    with pytest.raises(FileError, match=r"no file of save_encoder\(\)"):
        learn.load_encoder("whole")
    for damaged in ({"kind": "warmstart encoder"}, {"kind": "warmstart encoder", "encoder": [1], "vocab": 3}):
        torch.save(damaged, tmp_path / "models" / "damaged.pth")
        with pytest.raises(FileError):
            learn.load_encoder("damaged")


def test_a_learner_without_a_recipe_does_not_know_what_reads():
    with pytest.raises(ValueError, match="Which part of this model reads"):
        TextLearner(bunch(), text_head(3, 2)).save_encoder("x")


def test_texts_are_compared_by_what_the_body_gives(trained):
    features = trained[AWD_LSTM].features()
    assert features.shape == (80, 3 * 16)


def test_its_summary_names_every_layer(trained):
    text = str(trained[AWD_LSTM].summary())
    assert "0.encoder.rnns.1: WeightDropLSTM" in text and "Layer groups: 4" in text


def test_the_head_is_that_of_ulmfit():
    kinds = [type(layer).__name__ for layer in text_head(1200, 2)]
    assert kinds == ["BatchNorm1d", "Dropout", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]
    with pytest.raises(ValueError, match="3 linear layers need as many dropouts, got 2"):
        text_head(10, 2, [5, 5])


def test_a_description_builds_it_again():
    spec = TextClassifierSpec(AWD_LSTM, 30, 2, CONFIGS[AWD_LSTM], seq_len=5, max_len=11, lin_ftrs=[7])
    assert restore(describe(spec)) == spec
    assert restore(describe(spec)).build()[0].max_len == 11


def test_several_labels_and_numbers_are_predicted_too():
    df = reviews().assign(label=lambda d: d["label"] + ";text")
    data = TextDataBunch.from_df(df, valid_col="is_valid", label_delim=";", bs=16, seed=0, num_workers=0, device="cpu")
    learn = learner(AWD_LSTM, data, metrics=None)
    learn.fit(1)
    assert set(learn.predict("the film was good").decoded) <= {"bad", "fine", "text"}


def test_targets_that_are_no_labels_of_texts_are_refused_at_once():
    words = (["a", "b"], ["X", "Y"])
    token_data = DataBlock((WordsBlock(min_freq=1), TokenCategoryBlock)).databunch([words] * 20, bs=4, device="cpu")
    pairs = DataBlock((TextBlock(min_freq=1), TextBlock(min_freq=1))).databunch([("a", "b")] * 20, bs=4, device="cpu")
    for data, message in [
        (bunch(is_lm=True), r"this has windows of a language model \(is_lm=True\): .*or take language_model_learner"),
        (pairs, "this has a text as target: .*or take seq2seq_learner"),
        (token_data, "this has a label for each word: .*or take token_classifier_learner"),
    ]:
        with pytest.raises(ValueError, match=message):
            learner(AWD_LSTM, data)


def test_pretrained_weights_that_cannot_be_had_are_explained():
    with pytest.raises(ConnectionError, match="Pass pretrained=False"):
        learner(AWD_LSTM, pretrained="http://127.0.0.1:9/wt103.tgz")
    with pytest.raises(ValueError, match="no published weights of TransformerLM"):
        learner(TransformerLM, pretrained=True)


@pytest.mark.skipif(not REVIEWS.exists(), reason="needs the shared data")
def test_it_learns_of_real_sentences():
    rows = []
    for label in ("pos", "neg"):
        lines = (REVIEWS / f"{label}.txt").read_text(encoding="utf-8", errors="replace").splitlines()[:600]
        rows += [(line, label, i >= 500) for i, line in enumerate(lines)]
    data = bunch(df=pd.DataFrame(rows, columns=["text", "label", "is_valid"]))
    learn = learner(AWD_LSTM, data)
    learn.fit_one_cycle(3, 1e-2)
    assert learn.recorder.history["train_loss"].iloc[-1] < 0.6 < 2 * learn.recorder.history["accuracy"].max()
