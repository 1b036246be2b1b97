"""What text classifiers got wrong, and why: on made-up reviews, of which we know what decides, and on real ones."""

import random
from pathlib import Path

import pandas as pd
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch import nn
from warmstart.data import DataBunch
from warmstart.learner import Learner, accuracy, set_seed
from warmstart.text import (
    AWD_LSTM,
    SubwordTokenizer,
    TextDataBunch,
    TextInterpretation,
    TransformerLM,
    hf_tokenizer,
    text_classifier_learner,
)

torch.set_num_threads(1)
CONFIGS = {AWD_LSTM: {"emb_sz": 16, "n_hid": 24, "n_layers": 2},
           TransformerLM: {"emb_sz": 16, "n_hid": 24, "n_layers": 2, "n_heads": 2}}  # fmt: skip
REAL = Path(__file__).parents[3] / "shared/data/rt-polarity"
both = pytest.mark.parametrize("arch", [AWD_LSTM, TransformerLM])


def reviews(n=320):
    """Made-up reviews, in each of which one word decides."""
    draw = random.Random(0)
    filler = ["the film", "was", "long", "and had", "a plot", "with", "some", "people", "in it", "who", "spoke"]
    rows = []
    for i in range(n):
        words = draw.choices(filler, k=draw.randint(3, 40))
        words[draw.randrange(len(words))] = "terrible" if i % 2 else "wonderful"
        rows.append((" ".join(words), "bad" if i % 2 else "fine", i >= n * 3 // 4))
    return pd.DataFrame(rows, columns=["text", "label", "is_valid"])


def learner(arch=AWD_LSTM, df=None, backwards=False, tokenizer=None, **options):
    set_seed(0)
    df = reviews() if df is None else df
    data = TextDataBunch.from_df(
        df, valid_col="is_valid", seed=0, bs=options.pop("bs", 16), label_delim=options.pop("label_delim", None),
        backwards=backwards, tokenizer=tokenizer, num_workers=0, device="cpu",
    )  # fmt: skip
    options = {"config": CONFIGS.get(arch, {}), "pretrained": False, "seq_len": 12, "drop_mult": 0.2, **options}
    learn = text_classifier_learner(data, arch, metrics=accuracy, **options)
    learn.progress.bar = learn.progress.table = False
    return learn


@pytest.fixture(scope="module")
def trained():
    found = {}
    for arch in CONFIGS:
        found[arch] = learner(arch)
        found[arch].fit_one_cycle(5, 2e-2 if arch is AWD_LSTM else 1e-2)
    return found


@pytest.fixture(scope="module")
def interp(trained):
    return TextInterpretation.from_learner(trained[AWD_LSTM])


@both
def test_the_word_that_decides_counts_most(trained, arch):
    interp = TextInterpretation.from_learner(trained[arch])
    for word, label in (("wonderful", "fine"), ("terrible", "bad")):
        found = interp.contributions(f"the film was long and had a {word} plot with some people in it who spoke")
        assert found.label == label and found.tokens[int(found.values.argmax())] == word
        first, second = found.values.abs().topk(2).values
        assert first > 2 * second
        assert found.tokens[0] == "xxbos" and found.values[0] == 0


@both
def test_they_add_up_to_the_log_odds_that_are_predicted(trained, arch):
    learn = trained[arch]
    text = "the film was wonderful and long and had a plot with some people in it who spoke"
    found = TextInterpretation.from_learner(learn).contributions(text, "bad")
    p = learn.predict(text).probs[0].item()
    assert found.label == "bad" and found.probability == pytest.approx(p)
    assert found.log_odds == pytest.approx(torch.tensor(p, dtype=torch.float64).logit().item(), abs=1e-3)
    assert found.values.sum().item() == pytest.approx(
        found.log_odds - found.average, abs=0.01 * found.values.abs().sum().item()
    )


def test_what_speaks_for_one_of_two_labels_speaks_against_the_other(interp):
    text = "the film was wonderful and long"
    torch.testing.assert_close(interp.contributions(text, "fine").values, -interp.contributions(text, "bad").values)


def test_of_three_labels_the_log_odds_are_against_the_others_together():
    df = reviews(160)
    df.loc[df.index % 5 == 0, "label"] = "odd"
    learn = learner(df=df)
    p = learn.predict("the film was wonderful").probs
    found = TextInterpretation.from_learner(learn).contributions("the film was wonderful", "odd")
    assert found.log_odds == pytest.approx((p[2] / (p[0] + p[1])).log().item(), abs=1e-4)


def test_a_text_that_is_read_backwards_is_shown_forwards():
    learn = learner(backwards=True)
    learn.fit_one_cycle(5, 2e-2)
    found = TextInterpretation.from_learner(learn).contributions("a plot who was wonderful")
    assert found.tokens == ["xxbos", "a", "plot", "who", "was", "wonderful"]
    assert int(found.values.argmax()) == 5 and found.values[0] == 0


def test_an_item_of_the_set_is_named_by_its_position(interp, trained, capsys):
    positions = interp.top_losses(1)[1]
    df = reviews()
    text = df[df.is_valid].text.iloc[int(positions[0])]
    by_text, by_position = interp.contributions(text), interp.contributions(positions[0])
    assert by_position.tokens == by_text.tokens and by_position.values.equal(by_text.values)
    interp.show(int(positions[0]))
    interp.show(text)
    first, second = capsys.readouterr().out.split(by_text.label)[1:3]
    assert first == second and f"log-odds {by_text.log_odds:+.2f}" in first


def test_the_matrix_is_scikit_learns(interp):
    expected = confusion_matrix(interp.targs, interp.preds.argmax(1))
    assert interp.confusion_matrix().tolist() == expected.tolist() and interp.vocab == ["bad", "fine"]


def test_top_losses_are_listed_with_what_was_said_of_them(interp, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    interp.plot_top_losses(3)
    lines = capsys.readouterr().out.splitlines()
    losses, positions = interp.top_losses(3)
    df = reviews()
    assert lines[0] == "prediction / actual / loss / probability" and max(map(len, lines)) <= 60
    for number, (loss, position) in enumerate(zip(losses, positions, strict=True), 1):
        (line,) = [line for line in lines if line.startswith(f"{number}. ")]
        probs = interp.preds[position]
        actual = df[df.is_valid].label.iloc[int(position)]
        assert line == f"{number}. {interp.vocab[probs.argmax()]} / {actual} / {loss:.2f} / {probs.max():.2f}"
        assert f"   {df[df.is_valid].text.iloc[int(position)][:40]}" in "\n".join(lines)


def test_tokens_are_shown_without_what_a_tokenizer_writes_for_spaces_and_bytes():
    pytest.importorskip("tokenizers", reason="comes with the extra text")
    df = reviews(160)
    tokenizer = SubwordTokenizer.train(df["text"], "bpe", vocab_size=400)
    assert "Ġwonderful" in tokenizer.vocab
    interp = TextInterpretation.from_learner(learner(df=df, tokenizer=tokenizer))
    found = interp.contributions("the film was wonderful")
    assert found.tokens == ["xxbos", "the", "film", "was", "wonderful"] and len(found.values) == 5
    assert interp.contributions("ж").tokens == ["xxbos", "Ð", "¶"]  # two bytes, which are no text by themselves


def as_bert(texts):
    """A tokenizer with the special tokens of BERT, and where it puts them."""
    tokenizers = pytest.importorskip("tokenizers", reason="comes with the extra text")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = (
        tokenizers.pre_tokenizers.BertPreTokenizer(),
        tokenizers.decoders.WordPiece(),
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        texts, tokenizers.trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def test_a_bert_of_the_hub_explains_itself(tmp_path):
    transformers = pytest.importorskip("transformers", reason="comes with the extra hub")
    df = reviews(160)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=as_bert(df.text), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=48, pad_token_id=0,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(tmp_path)
    learn = learner(tmp_path, df, tokenizer=hf_tokenizer(tmp_path), pretrained=True)
    learn.unfreeze()
    learn.fit_one_cycle(8, 3e-3)
    interp = TextInterpretation.from_learner(learn)
    found = interp.contributions("the film was wonderful and long")
    assert found.tokens[0] == "[CLS]" and found.tokens[-1] == "[SEP]" and found.values[[0, -1]].tolist() == [0, 0]
    assert found.label == "fine" and found.tokens[int(found.values.argmax())] == "wonderful"
    assert found.values.sum().item() == pytest.approx(
        found.log_odds - found.average, abs=0.01 * found.values.abs().sum().item()
    )
    long = interp.contributions("the film was wonderful " * 30)
    assert len(long.tokens) == 122 and long.values[48:].tolist() == [0] * 74  # which are not read


def test_what_cannot_be_explained_says_why(interp, trained):
    with pytest.raises(ValueError, match=r"target='good' is no label: they are \['bad', 'fine'\]\."):
        interp.contributions("the film was long", "good")
    for position in (80, -1, torch.tensor(80)):
        with pytest.raises(IndexError, match=r"There is no item .*: the set has 80, of positions 0 to 79"):
            interp.contributions(position)
    with pytest.raises(TypeError, match="needs one class per item"):
        df = reviews(160).assign(label=lambda df: df.label + ";seen")
        TextInterpretation.from_learner(learner(df=df, label_delim=";"))
    data = trained[AWD_LSTM].data
    model = nn.Sequential(nn.Embedding(len(data.blocks[0].vocab), 4), nn.Flatten(), nn.LazyLinear(2))
    plain = Learner(DataBunch(data.train_dl, data.valid_dl), model)
    other = TextInterpretation(plain, interp.dl, interp.losses, interp.outputs, interp.targs)
    with pytest.raises(ValueError, match="Where does Sequential look up its tokens"):
        other._embedding()


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the folder of film reviews")
def test_without_the_words_that_count_most_a_real_review_is_another():
    """Words that speak for the predicted label are taken out: that changes more than to take out others."""
    lines = [(line, label) for label in ("neg", "pos")
             for line in (REAL / f"{label}.txt").read_text("utf-8", "replace").splitlines()[:1000]]  # fmt: skip
    df = pd.DataFrame(lines, columns=["text", "label"]).sample(frac=1, random_state=0).reset_index(drop=True)
    learn = learner(df=df.assign(is_valid=df.index >= 1800), bs=40)
    learn.fit_one_cycle(3, 2e-2)
    interp = TextInterpretation.from_learner(learn)
    draw, strongest, others = random.Random(0), 0.0, 0.0
    for text in df.text[1800:1820]:
        found = interp.contributions(text)
        places = range(1, len(found.tokens))
        top = found.values[1:].topk(n := max(1, len(places) // 5)).indices + 1
        for dropped in (top.tolist(), draw.sample(places, n)):
            rest = " ".join(found.tokens[i] for i in places if i not in dropped)
            after = learn.predict(rest or "film").probs[learn.data.vocab.index(found.label)].logit().item()
            if dropped == top.tolist():
                strongest += found.log_odds - after
            else:
                others += found.log_odds - after
    assert strongest > 3 * abs(others) and strongest / 20 > 0.5
