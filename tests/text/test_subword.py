import json
import pickle
import sys

import pytest
from warmstart.data.portable import describe, restore
from warmstart.text.blocks import TextBlock
from warmstart.text.special import SPECIAL
from warmstart.text.subword import SubwordTokenizer

TEXTS = [
    f"The {a} {b} was {c}wards, wasn't it?" for a in ("old", "new", "cold") for b in ("film", "films") for c in "abc"
]


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'pip install "warmstart\[text\]"'):
        SubwordTokenizer.train(TEXTS)
    with pytest.raises(ImportError, match=r'pip install "warmstart\[text\]"'):
        SubwordTokenizer("{}")("a text")


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="model='words' is none of bpe, unigram, wordpiece"):
        SubwordTokenizer.train(TEXTS, "words")


def test_a_slow_tokenizer_is_refused():
    class Slow:
        def encode(self, text): ...
        def decode(self, ids): ...

    with pytest.raises(TypeError, match="Slow is a slow tokenizer"):
        TextBlock(tokenizer=Slow())


@pytest.fixture(scope="module", params=["bpe", "unigram", "wordpiece"])
def tokenizer(request):
    pytest.importorskip("tokenizers")
    return SubwordTokenizer.train(TEXTS, request.param, vocab_size=300)


def test_special_tokens_come_first(tokenizer):
    assert tokenizer.vocab[: len(SPECIAL)] == SPECIAL
    assert len(tokenizer.vocab) == len(set(tokenizer.vocab)) <= 310


def test_texts_come_back(tokenizer):
    for text in TEXTS[:5]:
        tokens = tokenizer(text)
        assert set(tokens) <= set(tokenizer.vocab)
        assert tokenizer.decode(["xxbos", *tokens, "xxpad"]).replace(" ", "") == text.replace(" ", "")


def test_what_stands_around_every_text_is_counted(tokenizer):
    package = pytest.importorskip("tokenizers")
    assert tokenizer.around == (0, 0)
    bert = package.Tokenizer.from_str(tokenizer.json)
    bert.post_processor = package.processors.TemplateProcessing(
        single="xxbos $A xxeos xxfld", special_tokens=[("xxbos", 2), ("xxeos", 3), ("xxfld", 4)]
    )
    assert SubwordTokenizer.of(bert).around == (1, 2)


def test_line_breaks_of_html_are_spaces(tokenizer):
    assert tokenizer("The old<br />film<br>was") == tokenizer("The old film was")


def test_a_batch_is_the_same_as_one_by_one(tokenizer):
    assert tokenizer.batch(TEXTS) == [tokenizer(text) for text in TEXTS]


def test_it_travels_as_data_in_a_file_and_to_workers(tokenizer, tmp_path):
    tokenizer(TEXTS[0])
    for other in (restore(json.loads(json.dumps(describe(tokenizer)))), pickle.loads(pickle.dumps(tokenizer))):
        assert other == tokenizer and other(TEXTS[0]) == tokenizer(TEXTS[0])
    assert SubwordTokenizer.load(tokenizer.save(tmp_path / "tokenizer.json")).vocab == tokenizer.vocab


def test_a_block_has_its_vocabulary_and_marks_the_beginning(tokenizer):
    block = TextBlock(tokenizer=tokenizer).setup(TEXTS)
    encoded = block.encode(TEXTS[0])
    assert block.vocab == tokenizer.vocab and block.pad_id == 1
    assert block.tokens(encoded)[0] == "xxbos"
    assert block.decode(encoded).replace(" ", "") == TEXTS[0].replace(" ", "")


def test_fields_are_marked(tokenizer):
    block = TextBlock(tokenizer=tokenizer)
    tokens = block.tokens(block.encode(["The old film", "It was"]))
    assert tokens[:2] == ["xxbos", "xxfld"] and tokens.count("xxfld") == 2


@pytest.fixture(scope="module")
def theirs():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def test_numbers_are_those_of_the_tokenizer(theirs):
    block = TextBlock(tokenizer=theirs).setup(TEXTS)
    assert block.encode(TEXTS[0]).tolist() == theirs.encode(TEXTS[0]).ids
    assert block.decode(block.encode(TEXTS[0])) == theirs.decode(theirs.encode(TEXTS[0]).ids)


def test_padding_has_its_number_and_our_name(theirs):
    block = TextBlock(tokenizer=theirs)
    assert block.vocab[0] == "xxpad" and block.pad_id == 0
    batch = block.collate([block.encode("The old film"), block.encode("The")])
    assert batch[1].tolist() == [*theirs.encode("The").ids, 0, 0]


def test_no_more_than_max_len_tokens_are_read(theirs):
    short = SubwordTokenizer.of(theirs, max_len=5)
    assert short(TEXTS[0]) == ["[CLS]", *theirs.encode(TEXTS[0]).tokens[1:4], "[SEP]"]


def test_padding_that_a_file_asks_for_is_left_to_the_batch(theirs, tmp_path):
    theirs.enable_padding(pad_id=0, pad_token="[PAD]", length=64)
    theirs.save(str(tmp_path / "tokenizer.json"))
    theirs.no_padding()
    assert len(SubwordTokenizer.load(tmp_path / "tokenizer.json")("The old film")) == 5


def test_what_is_no_tokenizer_file_is_refused(theirs, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer\.json"):
        SubwordTokenizer.load(tmp_path / "tokenizer.json")


def test_one_that_cannot_pad_asks_for_a_token():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, "a"))
    with pytest.raises(ValueError, match="no token that fills up batches"):
        TextBlock(tokenizer=tokenizer)
    assert TextBlock(tokenizer=SubwordTokenizer(tokenizer.to_str(), pad_token="b")).pad_id == 1
