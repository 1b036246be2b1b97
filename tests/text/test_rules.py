import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmstart.text.rules import RULES, fix_html, replace_repeats, space_symbols


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("Fish &amp; chips", "Fish & chips"),
        ("it&#39;s", "it's"),
        ("it #39;s", "it 's"),
        ("one<br /><br/>two<BR>three", "one\n\ntwo\nthree"),
        (r"one\ntwo", "one\ntwo"),
        ("wait...", "wait … "),
        ("wait....", "wait...."),
        ("3 @.@ 5 of the <unk>", "3.5 of the xxunk"),
        ("plain", "plain"),
    ],
)
def test_html_and_its_remains_become_characters(text, fixed):
    assert fix_html(text) == fixed


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("cccc", "xxrep 4 c"),
        ("ccc", "ccc"),
        ("wow!!!!!", "wow xxrep 5 !"),
        ("1000000", "1000000"),
        ("very very very", "xxwrep 3 very"),
        ("very very", "very very"),
        ("very  very\nvery veryest", "xxwrep 3 very veryest"),
        ("every very very very", "every xxwrep 3 very"),
        ("7 7 7 7", "7 7 7 7"),
        ("aaaa a a", "xxrep 4 a a a"),
        ("a a a aaaa", "xxwrep 3 a xxrep 4 a"),
    ],
)
def test_repetitions_are_counted(text, tokens):
    assert replace_repeats(text).split() == tokens.split()


@given(st.text(alphabet="ab ", max_size=40))
def test_what_was_repeated_can_be_written_again(text):
    def again(found):
        return (found[2] + " ") * int(found[1])

    words = re.sub(r"xxwrep (\d+) (\w+)", again, replace_repeats(text))
    words = re.sub(r"\s*xxrep (\d+) (\S)\s*", lambda found: found[2] * int(found[1]), words)
    assert words.replace(" ", "") == text.replace(" ", "")


def test_slashes_and_hashes_stand_alone():
    assert space_symbols(r"and/or #1 c:\dir").split() == ["and", "/", "or", "#", "1", "c:", "\\", "dir"]


@given(st.text())
def test_no_rule_fails_on_any_text(text):
    for rule in RULES:
        text = rule(text)
    assert isinstance(text, str)
