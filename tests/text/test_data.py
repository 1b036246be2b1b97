from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from warmstart.data import CategoryBlock, ColReader, ColSplitter, DataBlock, ItemError, RegressionBlock
from warmstart.learner import Learner, load_learner
from warmstart.learner.metrics import accuracy
from warmstart.text import AWD_LSTM, language_model_learner
from warmstart.text.blocks import TextBlock
from warmstart.text.data import TextDataBunch
from warmstart.text.special import SPECIAL

IMDB = Path(__file__).parents[3] / "shared/data/imdb-sample"


@pytest.fixture
def reviews():
    """100 short reviews of which one word tells the class."""
    rng = np.random.default_rng(0)
    labels = ["neg", "pos"] * 50
    films = [" ".join(rng.choice(["film", "plot", "actor", "scene"], rng.integers(1, 20))) for _ in labels]
    texts = [f"A {'great' if label == 'pos' else 'dull'} {film}." for label, film in zip(labels, films, strict=True)]
    return pd.DataFrame({"text": texts, "label": labels, "is_valid": [i >= 80 for i in range(100)]})


class Bag(nn.Module):
    """The mean of the words' vectors, without padding."""

    def __init__(self, n_words=30, n_out=2):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(n_words, 8), nn.Linear(8, n_out)

    def forward(self, x):
        mask = (x != 1)[..., None].float()
        return self.linear((self.embedding(x) * mask).sum(1) / mask.sum(1))


def classifier_data(df, **changes):
    return TextDataBunch.from_df(df, valid_col="is_valid", **{"bs": 8, "device": "cpu", "seed": 0, **changes})


def test_a_table_becomes_padded_batches_with_labels(reviews):
    data = classifier_data(reviews)
    assert (len(data.train_ds), len(data.valid_ds), data.vocab, data.c) == (80, 20, ["neg", "pos"], 2)
    x, y = data.one_batch()
    assert x.dtype == y.dtype == torch.int64 and x.shape[0] == 8
    lengths = (x != 1).sum(1)
    assert lengths.max() == x.shape[1] and all((row[n:] == 1).all() for row, n in zip(x, lengths, strict=True))
    assert (x[:, 0] == SPECIAL.index("xxbos")).all()
    assert data.blocks[0].vocab[:2] == ["xxunk", "xxpad"]


def test_a_classifier_learns_and_its_predictions_are_in_order(reviews):
    torch.manual_seed(0)
    learn = Learner(classifier_data(reviews), Bag(), metrics=accuracy)
    with learn.no_bar():
        learn.fit(8, 0.05)
    assert learn.recorder.history.accuracy.iloc[-1] == 1
    preds, targs = learn.get_preds()
    assert [learn.data.vocab[i] for i in targs] == list(reviews.label[80:])
    assert [learn.data.vocab[i] for i in preds.argmax(1)] == list(reviews.label[80:])
    of_test, _ = learn.get_preds(dl=learn.data.test_dl(list(reviews.text[80:])))
    assert torch.allclose(of_test, preds, atol=1e-6)
    assert learn.predict("A dull film. A dull film!").decoded == "neg"


def test_an_exported_learner_reads_texts(reviews, tmp_path):
    learn = Learner(classifier_data(reviews), Bag(), path=tmp_path)
    loaded = load_learner(learn.export(), custom={"Bag": Bag})
    assert loaded.data.blocks == learn.data.blocks
    text = "A great new film"
    assert torch.allclose(loaded.predict(text).probs, learn.predict(text).probs)


def test_the_order_follows_from_seed_and_epoch(reviews):
    first, again, other = (classifier_data(reviews, seed=seed) for seed in (0, 0, 1))
    epochs = [[x for x, _ in data.train_dl] for data in (first, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[1], strict=True))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(epochs[0], epochs[2], strict=True))
    second = [x for x, _ in first.train_dl]
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(epochs[0], second, strict=True))


def test_workers_give_the_same_batches(reviews):
    alone, helped = (classifier_data(reviews, num_workers=n) for n in (0, 2))
    for a, b in zip(alone.train_dl, helped.train_dl, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_an_epoch_goes_on_from_any_batch(reviews):
    data = classifier_data(reviews)
    data.train_dl.set_epoch(1)
    whole = list(data.train_dl)
    data.train_dl.set_epoch(1)
    data.train_dl.begin = 6
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[6:], data.train_dl, strict=True))


def test_processes_share_the_texts(reviews):
    data = classifier_data(reviews)
    parts = [data.sharded(rank, 2, seeds=[0, 0]) for rank in range(2)]
    items = []
    for part in parts:
        part.train_dl.set_epoch(0)
        for _ in part.train_dl:
            items += part.train_dl.items
    assert sorted(items) == list(range(80))


def test_a_language_model_has_windows_of_all_texts(reviews, capsys):
    data = TextDataBunch.from_df(reviews, is_lm=True, valid_col="is_valid", seq_len=10, bs=4, device="cpu", min_freq=1)
    x, y = data.one_batch()
    assert x.shape == y.shape == (4, 10) and torch.equal(x[:, 1:], y[:, :-1])
    assert data.vocab == data.blocks[0].vocab and data.c == len(data.vocab)
    assert data.bs == 4 and data.n_inp == 1 and data.blocks[0].is_lm
    data.show_batch(2)
    assert "input" in capsys.readouterr().out
    (new, _), *_ = data.test_dl(["A great film about a dull film"] * 8)
    assert new.shape == (4, 10)
    plain = torch.cat([x for x, _ in data.train_eval_dl()], 1).flatten()
    stream = torch.cat([data.blocks[0].encode(text) for text in reviews.text[:80]])
    assert torch.equal(plain, stream[: len(plain)])


def test_a_language_model_learns_what_comes_next():
    texts = pd.DataFrame({"text": ["one two three four five six seven eight nine ten " * 30] * 10})
    data = TextDataBunch.from_df(texts, is_lm=True, seq_len=8, bs=4, device="cpu", seed=0, tokenizer=str.split)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(data.c, 16), nn.Linear(16, data.c))
    learn = Learner(data, model, metrics=accuracy)
    with learn.no_bar():
        learn.fit(3, 0.05)
    assert learn.recorder.history.accuracy.iloc[-1] > 0.95


def test_a_classifier_takes_the_vocabulary_of_a_language_model(reviews):
    lm = TextDataBunch.from_df(reviews, is_lm=True, bs=4, device="cpu", min_freq=1, seed=0)
    data = classifier_data(reviews.iloc[70:], vocab=lm.vocab, bs=4)
    assert data.blocks[0].vocab == lm.vocab


def test_several_columns_are_one_text(reviews):
    data = classifier_data(reviews.assign(title="A title"), text_col=["title", "text"])
    assert (data.one_batch()[0][:, 1] == SPECIAL.index("xxfld")).all()
    shown = data.decode(data.one_batch())[0][0]
    assert shown.startswith("A title A ")


def test_labels_may_be_several_or_numbers(reviews):
    several = classifier_data(reviews.assign(label="a;b"), label_delim=";")
    assert several.vocab == ["a", "b"] and several.one_batch()[1].tolist()[0] == [1.0, 1.0]
    assert isinstance(classifier_data(reviews.assign(label=0.5)).targets[0], RegressionBlock)


def test_a_csv_file_is_read(reviews, tmp_path):
    reviews.to_csv(tmp_path / "labels.csv", index=False)
    data = TextDataBunch.from_csv(tmp_path, valid_col="is_valid", bs=8, device="cpu", seed=0)
    assert torch.equal(data.one_batch()[0], classifier_data(reviews).one_batch()[0])
    assert data.path == tmp_path


def test_a_csv_file_in_another_encoding_is_named_with_its_byte(reviews, tmp_path):
    reviews.assign(text="Schön").to_csv(tmp_path / "labels.csv", index=False, encoding="latin-1")
    with pytest.raises(ValueError, match=r"labels\.csv is not utf-8: it holds the byte 0xf6.*encoding='latin-1'"):
        TextDataBunch.from_csv(tmp_path, bs=8)
    assert TextDataBunch.from_csv(tmp_path, bs=8, encoding="latin-1").decode is not None


@pytest.fixture
def folder(reviews, tmp_path):
    for i, row in enumerate(reviews.itertuples()):
        file = tmp_path / ("valid" if row.is_valid else "train") / row.label / f"{i:03}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(row.text, encoding="utf-8")
    (tmp_path / "train" / "loose.txt").write_text("A film of no class.")
    return tmp_path


def test_folders_are_classes(folder):
    (folder / "train" / "loose.txt").unlink()
    data = TextDataBunch.from_folder(folder, bs=8, device="cpu", seed=0)
    assert (len(data.train_ds), len(data.valid_ds), data.vocab) == (80, 20, ["neg", "pos"])
    (new,) = next(iter(data.test_dl(["A great film", folder / "valid" / "neg" / "080.txt"])))
    assert data.blocks[0].decode(new[0]) == "A great film"
    at_random = TextDataBunch.from_folder(folder / "train", valid_pct=0.25, bs=8, device="cpu", seed=0)
    assert (len(at_random.train_ds), len(at_random.valid_ds)) == (60, 20)


def test_a_language_model_reads_files_at_any_depth(folder):
    data = TextDataBunch.from_folder(folder, is_lm=True, bs=4, device="cpu", min_freq=1)
    assert (len(data.train_ds.items), len(data.valid_ds.items)) == (81, 20)
    assert "class" in data.vocab


def test_a_block_of_ones_own_is_taken(reviews):
    block = DataBlock((TextBlock(min_freq=1), CategoryBlock), get_x=ColReader("text"), get_y=ColReader("label"))
    data = TextDataBunch.from_block(block, reviews, bs=8, device="cpu")
    assert (len(data.train_ds), data.vocab) == (80, ["neg", "pos"])
    pairs = DataBlock((TextBlock(min_freq=1), CategoryBlock))
    data = TextDataBunch.from_block(pairs, [("a text", i % 2) for i in range(20)], bs=8, device="cpu")
    assert data.vocab == [0, 1]
    with pytest.raises(TypeError, match="The first block is a CategoryBlock"):
        TextDataBunch.from_block(DataBlock((CategoryBlock, CategoryBlock)), [(1, 2)])


def batches_of(dl):
    return [tuple(batch) for batch in dl]


@pytest.mark.parametrize("is_lm", [False, True])
def test_a_data_block_makes_the_same_batches(reviews, is_lm):
    text = TextBlock(is_lm=is_lm, seq_len=10, text_cols="text")
    blocks = text if is_lm else (text, CategoryBlock)
    block = DataBlock(blocks, get_y=None if is_lm else ColReader("label"), splitter=ColSplitter())
    plain = block.databunch(reviews, bs=8, device="cpu", seed=0)
    data = classifier_data(reviews, is_lm=is_lm, seq_len=10)
    loaders = [(plain.train_dl, data.train_dl), (plain.valid_dl, data.valid_dl),
               (plain.train_eval_dl(), data.train_eval_dl()),
               (plain.test_dl(reviews), data.test_dl(reviews))]  # fmt: skip
    for ours, theirs in loaders:
        assert type(ours) is type(theirs)
        for a, b in zip(batches_of(ours), batches_of(theirs), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_language_model_has_an_order_of_its_own(reviews):
    block = DataBlock(TextBlock(is_lm=True, seq_len=10, text_cols="text"))
    with pytest.raises(ValueError, match=r"sampler=\[0, 1\]: TextBlock\(.*makes batches of its own, leave it out"):
        block.databunch(reviews, bs=4, sampler=[0, 1])
    fixed = block.databunch(reviews, bs=4, seed=0, device="cpu", shuffle=False)
    first, second = (torch.cat([x for x, _ in fixed.train_dl], 1) for _ in range(2))
    assert torch.equal(first, second)


def test_texts_may_keep_their_order_or_have_that_of_a_sampler(reviews):
    block = DataBlock((TextBlock(text_cols="text"), CategoryBlock), get_y=ColReader("label"), splitter=ColSplitter())
    fixed = block.databunch(reviews, bs=8, seed=0, device="cpu", shuffle=False)
    next(iter(fixed.train_dl))
    assert fixed.train_dl.items == list(range(8))
    sampled = block.databunch(reviews, bs=8, seed=0, device="cpu", sampler=range(60, 70))
    next(iter(sampled.train_dl))
    assert sampled.train_dl.items == list(range(60, 68))


def test_an_exported_language_model_still_makes_windows(reviews, tmp_path):
    data = classifier_data(reviews, is_lm=True, seq_len=10)
    config = {"emb_sz": 8, "n_hid": 8, "n_layers": 1}
    learn = language_model_learner(data, AWD_LSTM, config, pretrained=False)
    loaded = load_learner(learn.export(tmp_path / "lm.pt"))
    texts = list(reviews.text)
    for a, b in zip(loaded.data.test_dl(texts), data.test_dl(texts), strict=True):
        assert torch.equal(a[0], b[0])


def test_all_texts_are_tokenised_once_before_training(reviews):
    calls = []
    data = classifier_data(reviews, tokenizer=lambda text: calls.append(text) or text.split(), num_workers=0)
    for _ in range(2):
        assert len(list(data.train_dl)) == 10 and len(list(data.valid_dl)) == 3
    assert sorted(calls) == sorted(set(reviews.text))


@pytest.mark.parametrize(
    ("column", "value", "error", "message"),
    [
        (
            "text",
            "",
            ItemError,
            r"the text is empty in 1 of 100 rows \(index 0\): leave them out, df\[df\['text'\]\.str",
        ),
        (
            "text",
            None,
            ItemError,
            r"column 'text' has no value in 1 of 100 rows \(index 0\): leave them out, df\.dropna",
        ),
        ("text", float("nan"), ItemError, r"text_col: column 'text' has no value in 1 of 100 rows \(index 0\)"),
        ("text", 7, ItemError, r"failed on item 0 of 80 .*got '7' \(int\).*is it the right column"),
        ("label", None, ItemError, r"label_col: column 'label' has no value .*df\.dropna\(subset=\['label'\]\)"),
    ],
)
def test_a_bad_cell_is_reported_with_its_row(reviews, column, value, error, message):
    df = reviews.astype({"text": object, "label": object})
    df.at[0, column] = value
    with pytest.raises(error, match=message):
        classifier_data(df)


def test_a_column_of_numbers_is_no_text(reviews):
    with pytest.raises(ItemError, match=r"TextBlock needs a text, .*got '\d+' \(int\)"):
        classifier_data(reviews.assign(number=range(100)), text_col="number")


def test_a_missing_column_lists_those_there_are(reviews):
    with pytest.raises((KeyError, ItemError), match="no column 'txt'; the columns are"):
        classifier_data(reviews, text_col="txt")
    with pytest.raises(KeyError, match="no column 'lable'; the columns are"):
        classifier_data(reviews, label_col="lable")


def test_a_single_class_is_nothing_to_learn(reviews):
    with pytest.raises(ValueError, match="All 80 training texts have the label 'pos'"):
        classifier_data(reviews.assign(label="pos"))


def test_a_batch_that_is_larger_than_the_training_set_is_refused(reviews):
    with pytest.raises(ValueError, match="bs=81 is larger than the training set of 80 items"):
        classifier_data(reviews, bs=81)


def test_a_path_is_no_list_of_texts(reviews, tmp_path):
    data = classifier_data(reviews)
    with pytest.raises(TypeError, match=r"test_dl takes a list of texts, got the Path .*get_text_files"):
        data.test_dl(tmp_path)
    with pytest.raises(TypeError, match=r"got the str A great film: test_dl\(\[text\]\) is of one text"):
        data.test_dl("A great film")
    (tmp_path / "new.txt").write_text("A great film")
    with pytest.raises(ValueError, match=r"new\.txt' is a file: .*test_dl\(\[Path"):
        data.test_dl([str(tmp_path / "new.txt")])


def test_empty_texts_are_predicted_from_their_beginning_and_in_place(reviews):
    data = classifier_data(reviews)
    learn = Learner(data, Bag())
    texts = ["a great film", "", "a dull plot", " \n "]
    preds = learn.get_preds(dl=data.test_dl(texts))[0]
    assert [p.decoded for p in learn.batch_predict(texts)] == [data.vocab[i] for i in preds.argmax(1)]
    assert torch.equal(preds[1], preds[3]) and not torch.equal(preds[1], preds[0])
    for text in ("", " \n "):
        assert torch.allclose(learn.predict(text).probs, preds[1])


def test_empty_files_are_no_training_data(tmp_path):
    for i in range(20):
        file = tmp_path / "ab"[i % 2] / f"{i}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text("" if i == 7 else "a film")
    with pytest.raises(ItemError, match=r"gave no value .* item \d+ of \d+ .*b.7\.txt"):
        TextDataBunch.from_folder(tmp_path, valid_pct=0.2, seed=0, bs=4, device="cpu")


@pytest.mark.skipif(not IMDB.exists(), reason="needs the sample of IMDb")
def test_real_reviews_are_classified():
    torch.manual_seed(0)
    data = TextDataBunch.from_csv(IMDB, "texts.csv", valid_col="is_valid", bs=32, device="cpu", num_workers=0, seed=0)
    assert 5000 < len(data.blocks[0].vocab) < 8000
    shares = [(x == 1).float().mean().item() for x, _ in data.train_dl]
    assert np.mean(shares) < 0.2  # padding
    learn = Learner(data, Bag(len(data.blocks[0].vocab)), metrics=accuracy)
    with learn.no_bar():
        learn.fit_one_cycle(3, 0.05)
    assert learn.recorder.history.accuracy.iloc[-1] > 0.7
