from pathlib import Path

import pandas as pd
import pytest
import torch
from warmstart.data import CategoryBlock, ColReader, DataBlock, ItemError
from warmstart.data.portable import describe, restore
from warmstart.text import tokenize_all as tokenizing
from warmstart.text.blocks import TextBlock
from warmstart.text.special import SPECIAL
from warmstart.text.tokenizer import WordTokenizer

TEXTS = ["A good film, a good one.", "A bad film!", "Good film. Good film."]


@pytest.fixture
def block():
    return TextBlock(min_freq=2).setup(TEXTS)


def test_the_vocabulary_is_learned_from_the_training_texts(block):
    assert block.vocab == [*SPECIAL, "film", "good", ".", "a"]  # 4, 4, 3 and 3 times
    assert block.n_out == len(block.vocab)


def test_a_text_is_a_vector_of_token_numbers(block):
    encoded = block.encode("A good thing")
    assert encoded.dtype == torch.int64
    assert encoded.tolist() == [block.vocab.index(token) for token in ["xxbos", "xxmaj", "a", "good", "xxunk"]]
    assert block.decode(encoded) == "A good xxunk"


def test_a_text_that_was_read_ahead_is_encoded_as_any_other(block):
    fresh = TextBlock(vocab=block.vocab)
    for text in TEXTS:
        assert torch.equal(block.encode(text), fresh.encode(text))


def test_a_text_is_tokenised_once(monkeypatch):
    calls = []
    block = TextBlock(tokenizer=lambda text: calls.append(text) or text.split(), min_freq=1).setup(TEXTS)
    for _ in range(3):
        assert [block.decode(block.encode(text)) for text in TEXTS] == TEXTS
    assert calls == TEXTS


def test_batches_are_padded_at_the_end(block):
    batch = block.collate([block.encode(text) for text in TEXTS])
    assert batch.shape == (3, 10) and batch.dtype == torch.int64
    assert (batch[1] != 1).tolist() == [True] * 6 + [False] * 4
    assert block.decode(batch[1]) == "A xxunk film xxunk"


def test_backwards_begins_with_the_last_token(block):
    backwards = TextBlock(vocab=block.vocab, backwards=True)
    assert backwards.encode(TEXTS[0]).tolist() == block.encode(TEXTS[0]).tolist()[::-1]
    padded = backwards.collate([backwards.encode(text) for text in TEXTS])
    assert padded[1, -1] == 1 and backwards.decode(padded[0]) == block.decode(block.encode(TEXTS[0]))


def test_columns_of_a_row_are_fields():
    row = pd.Series({"title": "A good film", "text": "It was", "n": 3})
    assert TextBlock.from_df("text", min_freq=1).setup([row]).decode is not None
    block = TextBlock.from_df(["title", "text"], min_freq=1).setup([row])
    assert " ".join(block.tokens(block.encode(row))) == "xxbos xxfld 1 xxmaj a good film xxfld 2 xxmaj it was"
    assert block.decode(block.encode(row)) == "A good film It was"
    assert block.tokens(block.encode("A film")) == ["xxbos", "xxmaj", "a", "film"]


def test_files_are_read_below_the_folder(tmp_path):
    (tmp_path / "one.txt").write_text("Schöner film", encoding="utf-8")
    block = TextBlock.from_folder(tmp_path, min_freq=1).setup([Path("one.txt")])
    assert block.decode(block.encode(Path("one.txt"))) == "Schöner film"
    assert block.decode(block.encode(tmp_path / "one.txt")) == "Schöner film"


def test_a_file_in_another_encoding_is_named_with_its_byte(tmp_path):
    (tmp_path / "old.txt").write_bytes("Schön".encode("latin-1"))
    with pytest.raises(ValueError, match=r"old\.txt is not utf-8: byte 0xf6 at position 3.*encoding='latin-1'"):
        TextBlock().encode(tmp_path / "old.txt")
    block = TextBlock.from_folder(tmp_path, min_freq=1, encoding="latin-1").setup([Path("old.txt")])
    assert block.decode(block.encode(Path("old.txt"))) == "Schön"


def test_an_encoding_that_is_none_is_named_at_once(tmp_path):
    with pytest.raises(LookupError, match="unknown encoding: latin-99"):
        TextBlock.from_folder(tmp_path, encoding="latin-99")


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere is not a folder"):
        TextBlock.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (3, TypeError, r"got '3' \(int\).*astype\(str\)"),
        (["title", 3.5], TypeError, r"got '3.5' \(float\)"),
        ({"text": "a"}, TypeError, r"say which columns, TextBlock.from_df\('text'\)"),
    ],
)
def test_what_is_no_text_is_refused(block, value, error, message):
    with pytest.raises(error, match=message):
        block.encode(value)


def test_missing_values_are_seen_in_any_field():
    block = TextBlock.from_df(["title", "text"])
    assert block.is_missing(pd.Series({"title": "a", "text": None}))
    assert block.is_missing(float("nan"))
    assert not block.is_missing(pd.Series({"title": "a", "text": "", "other": None}))


@pytest.mark.parametrize("value", ["", " \n", ["", " "]])
def test_an_empty_text_is_its_beginning_alone_and_nothing_to_learn_from(block, value):
    assert block.tokens(block.encode(value)) == ["xxbos"] and block.decode(block.encode(value)) == ""
    assert block.is_missing(value)


def test_an_empty_file_is_nothing_to_learn_from(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    assert TextBlock.from_folder(tmp_path).is_missing(Path("empty.txt"))
    assert not TextBlock.from_folder(tmp_path).is_missing(Path("nowhere.txt"))  # which is reported when it is read


def test_where_a_tokenizer_has_no_token_an_empty_text_is_padding():
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[PAD]": 1}, "a"))
    words.add_special_tokens(["[PAD]"])
    block = TextBlock(words)
    assert block.encode("").tolist() == [block.pad_id]
    assert block.encode("a").tolist() == [0]


def test_a_data_block_names_the_item_with_a_bad_text():
    df = pd.DataFrame({"text": ["good", "bad", "", "fine"], "label": list("abab"), "is_valid": [0, 0, 0, 1]})
    blocks = DataBlock((TextBlock(min_freq=1), CategoryBlock), get_x=ColReader("text"), get_y=ColReader("label"),
                       splitter=lambda items: ([0, 1, 2], [3]))  # fmt: skip
    with pytest.raises(ItemError, match=r"gave no value .* for 1 of 3 items, first: item 2 of 3"):
        blocks.datasets(df)
    df.loc[2, "text"] = None
    with pytest.raises(ItemError, match=r"gave no value \(None, NaN or empty\) for 1 of 3 items"):
        blocks.datasets(df)


def test_a_tokenizer_that_fails_names_its_item():
    def tokenizer(text):
        return text.split() if text != "bad" else 1 / 0

    blocks = DataBlock((TextBlock(tokenizer, min_freq=1),), splitter=lambda items: ([0, 1], [2]))
    with pytest.raises(ItemError, match=r"failed on item 1 of 2 \(bad\): ZeroDivisionError"):
        blocks.datasets(["good", "bad", "fine"])


def test_a_block_prints_without_its_vocabulary_and_travels_with_it(block):
    assert "film" not in repr(block) and "WordTokenizer" in repr(block)
    restored = restore(describe(block))
    assert restored == block
    assert torch.equal(restored.encode("A good new film"), block.encode("A good new film"))


def test_documents_of_a_language_model_are_no_batch():
    block = TextBlock(is_lm=True, min_freq=1).setup(TEXTS)
    with pytest.raises(ValueError, match=r"DataBlock\(TextBlock\(is_lm=True\)\)\.databunch"):
        block.collate([block.encode(text) for text in TEXTS])


@pytest.mark.parametrize("tokenizer", [WordTokenizer, "words"])
def test_what_is_no_tokenizer_is_refused(tokenizer):
    with pytest.raises(TypeError, match=r"pass an instance|neither a tokenizer nor a function"):
        TextBlock(tokenizer=tokenizer)


def test_reading_ahead_leaves_bad_values_for_later():
    block = TextBlock(min_freq=1).read_ahead(["a good film", None, 3, "", Path("nowhere.txt")])
    assert block.setup(["a good film"]).vocab == [*SPECIAL, "a", "film", "good"]


def test_the_vocabulary_is_of_the_training_texts_only():
    block = TextBlock(min_freq=1).read_ahead(["train", "valid"]).setup(["train", "train"])
    assert block.vocab == [*SPECIAL, "train"]


def test_long_texts_are_cut_in_tables(block):
    assert len(block.text("word " * 100)) == 150 and block.text("two\nlines") == "two lines"


def test_texts_are_tokenised_in_processes_that_are_asked_for(monkeypatch):
    asked = []
    whole = tokenizing._in_processes
    monkeypatch.setattr(tokenizing, "_in_processes", lambda *args: asked.append(args[2]) or whole(*args))
    TextBlock().read_ahead(TEXTS, n_workers=2)
    assert asked == [2]
