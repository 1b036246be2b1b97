import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from warmstart.data.portable import describe, restore
from warmstart.text.numericalize import Numericalize, make_vocab
from warmstart.text.special import SPECIAL


def test_the_most_frequent_come_first_and_the_alphabet_decides_ties():
    counts = {"rare": 1, "b": 3, "a": 3, "often": 9, "xxbos": 50}
    assert make_vocab(counts, min_freq=2) == [*SPECIAL, "often", "a", "b"]
    assert make_vocab(dict(reversed(counts.items())), min_freq=2) == make_vocab(counts, min_freq=2)


def test_a_vocabulary_has_at_most_so_many_tokens():
    vocab = make_vocab({f"w{i}": 10 + i for i in range(50)}, max_vocab=12)
    assert vocab[len(SPECIAL) :] == ["w49", "w48", "w47"]
    with pytest.raises(ValueError, match="leaves no place for a word"):
        make_vocab({}, max_vocab=9)


@given(st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1)))
def test_known_tokens_come_back_and_others_are_unknown(texts):
    numericalize = Numericalize(min_freq=2).setup(texts)
    for text in texts:
        ids = numericalize.encode(text)
        assert ids.dtype == torch.int64
        known = [token if token in numericalize.vocab else "xxunk" for token in text]
        assert numericalize.decode(ids) == known


def test_a_list_of_words_gets_the_special_tokens_in_front():
    numericalize = Numericalize(["film", "xxbos", "good"])
    assert numericalize.vocab == [*SPECIAL, "film", "good"]
    assert numericalize.setup([["other"]]) is numericalize


def test_a_vocabulary_that_has_them_stays_as_it_is():
    vocab = ["xxunk", "xxpad", "film"]
    assert Numericalize(vocab).vocab == vocab


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        (["xxpad", "xxunk", "film"], "'xxpad' as number 1"),
        (["xxunk"], "'xxpad' as number 1"),
        (["film", "film"], "'film' more than once"),
        (["film", None], "holds None"),
    ],
)
def test_a_wrong_vocabulary_is_refused(vocab, message):
    with pytest.raises(ValueError, match=message):
        Numericalize(vocab)


def test_it_is_saved_as_a_list_and_loaded(tmp_path):
    numericalize = Numericalize(["schön", "film"])
    file = numericalize.save(tmp_path / "vocab.json")
    assert json.loads(file.read_text(encoding="utf-8")) == numericalize.vocab
    assert Numericalize.load(file) == numericalize
    file.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="holds no list of tokens, but a dict"):
        Numericalize.load(file)


def test_it_travels_as_data():
    numericalize = Numericalize(["film"])
    assert restore(describe(numericalize)) == numericalize


def test_without_a_vocabulary_the_error_says_how_to_get_one():
    with pytest.raises(ValueError, match=r"setup\(texts\) learns one"):
        Numericalize().encode(["film"])
