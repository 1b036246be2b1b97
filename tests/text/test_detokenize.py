import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmstart.text.detokenize import detokenize
from warmstart.text.special import SPECIAL


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("xxbos xxmaj well , it 's ( xxwrep 3 very ) good xxpad xxpad", "Well, it's (very very very) good"),
        ('xxmaj he said " hi " .', 'He said "hi".'),
        ("xxfld 1 a title xxfld 2 the text", "a title the text"),
        ("no xxrep 4 ! xxup yes", "no!!!! YES"),
        ("g xxrep 4 o", "goooo"),
        ("xxmaj xxunk and xxup xxunk", "xxunk and xxunk"),
        ("and / or well - known", "and/or well-known"),
        ("", ""),
    ],
)
def test_tokens_become_text(tokens, text):
    assert detokenize(tokens.split()) == text


@given(st.lists(st.sampled_from([*SPECIAL, "4", "word", "!", "(", '"', "-"])))
def test_tokens_in_any_order_as_a_model_may_write_them_become_text(tokens):
    assert isinstance(detokenize(tokens), str)


def test_a_count_that_no_text_would_have_stays_small():
    assert len(detokenize(["xxrep", "999999999999", "a"])) <= 10_000
