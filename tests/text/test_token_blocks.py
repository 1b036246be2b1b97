import numpy as np
import pandas as pd
import pytest
import torch
from warmstart.data import ColReader, DataBlock, IndexSplitter, ItemError
from warmstart.data.portable import describe, restore
from warmstart.text import SubwordTokenizer
from warmstart.text.special import SPECIAL
from warmstart.text.token_blocks import TokenCategoryBlock, WordsBlock

SENTENCES = [["Bob", "lives", "in", "New", "York", "."], ["Ann", "does", "n't", "."]]
LABELS = [["B-PER", "O", "O", "B-LOC", "I-LOC", "O"], ["B-PER", "O", "O", "O"]]


@pytest.fixture
def block():
    return WordsBlock(min_freq=1).setup(SENTENCES)


def letters(word):
    return list(word)


def marked(block, sentence):
    """The tokens of a sentence, with the words' numbers at those that bear their labels."""
    encoded = block.encode(sentence)
    return [block.vocab[i] for i in encoded[:, 0].tolist()], encoded[:, 1].tolist()


def test_a_sentence_is_a_row_for_each_token_with_the_number_of_the_word(block):
    tokens, marks = marked(block, SENTENCES[0])
    assert tokens == ["xxbos", "xxmaj", "bob", "lives", "in", "xxmaj", "new", "xxmaj", "york", "."]
    assert marks == [-1, -1, 0, 1, 2, -1, 3, -1, 4, 5]  # at the word, not at the mark that says it had a capital


def test_of_several_tokens_the_first_bears_the_label():
    block = WordsBlock(tokenizer=letters, min_freq=1).setup([["ab", "c"]])
    assert marked(block, ["ab", "c"]) == (["xxbos", "a", "b", "c"], [-1, 0, -1, 1])


def test_pieces_of_words_are_those_that_the_tokenizer_gives_for_the_sentence():
    tokenizers = pytest.importorskip("tokenizers", reason="comes with the extra text")
    subwords = SubwordTokenizer.train([" ".join(words) for words in SENTENCES], "wordpiece", 60)
    around = tokenizers.processors.TemplateProcessing("xxbos $A xxeos", None, [("xxbos", 2), ("xxeos", 3)])
    fast = tokenizers.Tokenizer.from_str(subwords.json)
    fast.post_processor = around
    block = WordsBlock(SubwordTokenizer(fast.to_str()))
    tokens, marks = marked(block, SENTENCES[0])
    assert tokens[-1] == "xxeos" and marks[-1] == -1
    assert [mark for mark in marks if mark >= 0] == list(range(6))
    assert len(marked(block, ["Bobs", "lives"])[0]) > 4
    for words in (SENTENCES[0], ["Bobs", "York", "Annie"]):
        for token, mark in zip(*marked(block, words), strict=True):
            assert mark < 0 or (words[mark].startswith(token) and not token.startswith("##"))


def test_bytes_know_the_space_before_a_word():
    pytest.importorskip("tokenizers", reason="comes with the extra text")
    subwords = SubwordTokenizer.train([" ".join(words) for words in SENTENCES] * 5, "bpe", 300)
    tokens, owners = subwords.of_words(["in", "York"])
    assert subwords.decode(tokens) == "in York" and owners[0] == 0 and owners[-1] == 1


def test_a_batch_has_labels_at_the_words_and_nothing_elsewhere():
    pairs = list(zip(SENTENCES, LABELS, strict=True))
    blocks = DataBlock((WordsBlock(min_freq=1), TokenCategoryBlock), splitter=IndexSplitter([1]))
    data = blocks.databunch([pairs[0], pairs[1], pairs[0]], bs=2, device="cpu", seed=0)
    assert data.vocab == ["B-LOC", "B-PER", "I-LOC", "O"] and data.c == 4
    x, y = next(iter(data.valid_dl))
    assert x.dtype == y.dtype == torch.int64 and x.shape == y.shape
    assert [data.blocks[0].vocab[i] for i in x[0]] == ["xxbos", "xxmaj", "xxunk", "xxunk", "xxunk", "."]
    assert y[0].tolist() == [-100, -100, 1, 3, 3, 3]
    assert data.decode((x, y)) == [("xxunk xxunk xxunk.", LABELS[1])]
    (only,) = next(iter(data.test_dl([pairs[1][0], "Bob lives in York."])))
    assert only.shape == (2, 8) and only[0, -2:].tolist() == [1, 1]
    weights = data.class_weights()
    torch.testing.assert_close(weights, 12 / (4 * torch.tensor([2.0, 2, 2, 6])))


def test_a_text_is_parted_into_words(block):
    assert block.words("Bob doesn't live in N.Y.") == ["Bob", "does", "n't", "live", "in", "N.Y."]


def test_blocks_travel_as_json(block):
    labels = TokenCategoryBlock().setup(LABELS)
    for one in (block, labels):
        assert restore(describe(one)) == one
    assert torch.equal(restore(describe(block)).encode(["Bob", "Dylan"]), block.encode(["Bob", "Dylan"]))


def test_each_word_is_tokenised_once_before_training():
    calls = []
    blocks = DataBlock((WordsBlock(lambda word: calls.append(word) or [word], min_freq=1), TokenCategoryBlock),
                       splitter=IndexSplitter([1]))  # fmt: skip
    data = blocks.databunch(list(zip(SENTENCES, LABELS, strict=True)), bs=1, device="cpu", num_workers=0)
    for _ in range(2):
        list(data.train_dl), list(data.valid_dl)
    assert sorted(calls) == sorted(set(SENTENCES[0] + SENTENCES[1]))


@pytest.mark.parametrize(
    ("words", "labels", "message"),
    [
        ([], ["O"], "the sentence has no words"),
        (7, ["O"], "WordsBlock needs a list of words, or a text, got '7'"),
        (["a", 7], ["O", "O"], "WordsBlock needs a list of words"),
        (["a", "xxpad"], ["O", "O"], "gives no token for word 1, 'xxpad'"),
        (["a"], "O", "TokenCategoryBlock needs a list of labels"),
        (None, ["O"], r"gave no value \(None, NaN or empty\)"),
        (["a"], ["new"], "the label 'new' is not in the vocabulary"),
    ],
)
def test_a_bad_item_is_reported_with_its_number(words, labels, message):
    blocks = DataBlock((WordsBlock(min_freq=1), TokenCategoryBlock(vocab=["O"])), splitter=IndexSplitter([0]))
    with pytest.raises(ItemError, match=rf"(?s)item 1 of 2.*{message}|{message}.*item 1 of 2"):
        blocks.datasets([(["b"], ["O"]), (["b"], ["O"]), (words, labels)])


def test_a_table_may_hold_lists_or_arrays():
    df = pd.DataFrame({"words": [np.array(words) for words in SENTENCES], "labels": LABELS})
    blocks = DataBlock((WordsBlock(min_freq=1), TokenCategoryBlock), splitter=IndexSplitter([1]),
                       get_x=ColReader("words"), get_y=ColReader("labels"))  # fmt: skip
    train, _ = blocks.datasets(df)
    assert train[0][0][:, 1].max() == 5 and (train[0][1] >= 0).sum() == 6


def test_padding_that_somebody_has_written_is_no_token():
    pytest.importorskip("tokenizers", reason="comes with the extra text")
    subwords = SubwordTokenizer.train([" ".join(words) for words in SENTENCES], "wordpiece", 60)
    with pytest.raises(ValueError, match="no token for word 1, 'xxpad'"):
        WordsBlock(subwords).encode(["Bob", "xxpad", "lives"])


def test_words_that_are_cut_off_are_named():
    pytest.importorskip("tokenizers", reason="comes with the extra text")
    subwords = SubwordTokenizer.train([" ".join(words) for words in SENTENCES], "wordpiece", 60)
    block = WordsBlock(SubwordTokenizer(subwords.json, max_len=3))
    with pytest.raises(ValueError, match=r"no token for word \d, '.*'.*or raise its max_len"):
        block.encode(SENTENCES[0])


def test_labels_that_are_too_few_are_reported_when_the_item_is_read(block):
    blocks = DataBlock((block, TokenCategoryBlock), splitter=IndexSplitter([0]))
    train, _ = blocks.datasets([(["a"], ["O"]), (["a", "b"], ["O"])])
    with pytest.raises(ItemError, match=r"AlignLabels failed on item 0 of 1 .*there are 1 labels for 2 words"):
        train[0]


def test_the_vocabulary_is_learned_as_that_of_texts():
    block = WordsBlock(min_freq=2).setup([["A", "film"], ["a", "plot"], ["film", "a"]])
    assert block.vocab == [*SPECIAL, "a", "film"]
