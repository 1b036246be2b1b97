"""Contributions as people see them: in a notebook, in a terminal, and in a file."""

import re
import sys

import pytest
import torch
from warmstart.text.contributions import Contributions, printable


def contributions(tokens=("xxbos", "a", "wonderful", "but", "long", "film"), values=(0.0, 0.01, 2.0, -0.3, -1.0, 0.1)):
    return Contributions(list(tokens), torch.tensor(values), "pos", 0.8, 1.386, 0.576)


@pytest.fixture
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")


def test_those_that_count_have_their_number(columns):
    assert repr(contributions()).splitlines() == [
        "pos 0.80: log-odds +1.39, +0.58 of average words, +0.81 of",
        "these:",
        "xxbos a [+2.00 wonderful] [-0.30 but] [-1.00 long] film",
    ]


def test_where_nothing_counts_there_are_no_numbers(columns):
    assert repr(contributions(values=[0.0] * 6)).endswith("\nxxbos a wonderful but long film")
    assert repr(contributions(values=[0.001] * 6)).endswith("\nxxbos a wonderful but long film")
    assert "rgba(38, 139, 255, 0.00)" not in contributions(values=[0.0] * 6)._repr_html_()


@pytest.mark.parametrize("width", [20, 60, 200])
def test_lines_fit_the_terminal(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    many = contributions(["word"] * 99, [0.5] * 99)
    lines = repr(many).splitlines()
    assert max(map(len, lines)) <= width and " ".join(lines).count("[+0.50 word]") == 99
    longer = contributions(["w" * 300, "a"], [1.0, 0.5])
    assert f"[+1.00 {'w' * 300}]" in repr(longer).splitlines()


def test_colours_are_for_terminals_that_have_them(monkeypatch, columns):
    plain = repr(contributions())
    assert "\033" not in plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = repr(contributions())
    assert "\033[44;97m[+2.00 wonderful]\033[0m" in coloured and "\033[43;30m[-1.00 long]\033[0m" in coloured
    assert re.sub("\033\\[[0-9;]*m", "", coloured) == plain
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
        assert repr(contributions()) == plain
        monkeypatch.delenv(name)


def test_a_notebook_shows_colours_that_a_dark_page_can_show_too():
    page = contributions()._repr_html_()
    assert '<span style="background: rgba(38, 139, 255, 0.55); ' in page and 'title="+2.000">wonderful</span>' in page
    assert 'title="-1.000">long</span>' in page and "rgba(255, 112, 20, 0.28)" in page  # half as strong
    assert ">for</span>" in page and ">against</span> pos</small>" in page
    assert re.search("[^-]color:", page) is None  # letters keep the page's own
    assert page.count("<span") == page.count("</span>") and page.startswith("<div") and page.endswith("</div>")


def test_a_text_cannot_write_into_the_page():
    page = Contributions(["<script>", '"&"'], torch.tensor([1.0, -1.0]), "<b>", 0.5, 0.0, 0.0)._repr_html_()
    assert "<script>" not in page and "<b>" not in page
    assert "&lt;script&gt;" in page and "&quot;&amp;&quot;" in page and "&lt;b&gt;" in page


def test_what_would_move_the_cursor_is_written_out():
    assert printable("a\nb\033[2J\u202eक्\u200dष") == "a\\nb\\x1b[2J\\u202eक्\u200dष"
    assert "\033" not in repr(contributions(["\033[2J", "a"], [1.0, 0.5]))
