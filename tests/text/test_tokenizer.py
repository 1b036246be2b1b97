import time
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmstart.data.portable import describe, restore
from warmstart.text.rules import fix_html
from warmstart.text.tokenizer import WordTokenizer

tokenizer = WordTokenizer()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The movie wasn't GREAT!!!!", "xxmaj the movie was n't xxup great xxrep 4 !"),
        ("I've seen it's so.", "xxmaj i 've seen it 's so ."),
        ("it’s DON’T", "it ’s xxup do xxup n’t"),
        ("o'clock at 10:30, $5.50 or 10%", "o'clock at 10:30 , $ 5.50 or 10 %"),
        ("Dr. Who lives in the U.S. now.", "xxmaj dr. xxmaj who lives in the xxup u.s. now ."),
        ("well-known (see below) :-)", "well - known ( see below ) :-)"),
        ("Very Very Very good -- yes", "xxwrep 3 xxmaj very good -- yes"),
        ("AAAA", "xxrep 4 xxmaj a"),
        ("iPhone", "iphone"),
        ("हिन्दी में", "हिन्दी में"),
        ("cafe\u0301s", "cafe\u0301s"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_text_is_parted_into_words(text, tokens):
    assert tokenizer(text) == tokens.split()


@pytest.mark.parametrize(
    "text",
    [
        "The movie wasn't GREAT!!!!",
        "It was gooood, and I'd see it again again again.",
        'He said "hi there" (twice) to Mr. Smith; she didn\'t.',
        "Well-known and/or cheap: $5.50, 10% off at 10:30!",
        "NO NO NO, I won't. WON'T!",
        "हिन्दी में",
    ],
)
def test_tokens_are_written_again_as_the_text_was(text):
    expected = text.replace("gooood", "goooo d")  # whether letters go on after a run, no token says
    assert tokenizer.decode(tokenizer(text)) == expected


words = st.text(ascii_lowercase, min_size=2, max_size=8).filter(lambda word: not word.startswith("xx"))
cased = st.tuples(words, st.sampled_from([str, str.upper, str.capitalize])).map(lambda pair: pair[1](pair[0]))
ends = st.sampled_from(["", "", "", ",", ".", "!", "?", ";"])


@given(st.lists(st.tuples(cased, ends), min_size=1).map(lambda parts: " ".join(word + end for word, end in parts)))
def test_sentences_of_any_case_come_back(text):
    for abbreviation in ("mr.", "mrs.", "ms.", "dr.", "st.", "jr.", "sr.", "vs."):
        text = text.lower().replace(abbreviation, "m") if abbreviation in text.lower() else text
    tokens = tokenizer(text)
    if "xxrep" not in tokens:  # a run in the middle of a word
        assert tokenizer.decode(tokens) == text


@given(st.text())
def test_any_text_has_tokens_without_spaces_and_can_be_decoded(text):
    tokens = tokenizer(text)
    assert all(token and not any(c.isspace() for c in token) for token in tokens)
    assert isinstance(tokenizer.decode(tokens), str)


def test_rules_and_case_may_be_chosen():
    assert WordTokenizer(rules=[], lower=False)("Soooo GOOD") == ["Soooo", "GOOD"]
    assert WordTokenizer(rules=[fix_html, str.swapcase])("a &amp; B") == ["xxmaj", "a", "&", "b"]


def test_a_tokenizer_travels_as_data():
    restored = restore(describe(tokenizer))
    assert restored == tokenizer
    assert restored("Hello there!!!!") == tokenizer("Hello there!!!!")


def test_anything_but_a_text_is_refused():
    with pytest.raises(TypeError, match=r"takes a text, got 3 \(int\)"):
        tokenizer(3)


@pytest.mark.parametrize("part", ["a", "a ", "'", "ab'", "1.", "\\", "x.", "very ", "aab"])
def test_no_text_takes_long(part):
    text = part * 50_000
    begin = time.perf_counter()
    tokenizer.decode(tokenizer(text))
    assert time.perf_counter() - begin < 5
