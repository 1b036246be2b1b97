from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from warmstart.text.tokens import Tokens

texts = st.lists(st.lists(st.sampled_from("abcdef")))


@given(texts)
def test_texts_come_back(lists):
    tokens = Tokens.of(lists)
    assert [tokens[i] for i in range(len(tokens))] == lists
    assert tokens.ids.dtype == np.int32
    assert tokens.words == list(dict.fromkeys(word for text in lists for word in text))


@given(texts, texts)
def test_joining_is_the_same_as_taking_all_at_once(first, second):
    joined, at_once = Tokens.join([Tokens.of(first), Tokens.of(second)]), Tokens.of(first + second)
    assert joined.words == at_once.words
    assert joined.ids.tolist() == at_once.ids.tolist()
    assert joined.ends.tolist() == at_once.ends.tolist()


@given(texts)
def test_tokens_are_counted(lists):
    some = range(0, len(lists), 2)
    assert Tokens.of(lists).counts(some) == Counter(word for i in some for word in lists[i])
