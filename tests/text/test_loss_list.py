"""The list of texts that a model gets wrong, on paper and on a page."""

import pytest
from warmstart.text import loss_list
from warmstart.text.loss_list import LossList, show

ROWS = [["a film that has everything but a story, and yet is too long", "pos", "neg", "7.42", "0.99"],
        ["<b>bold</b>\033[2J", "neg", "pos", "1.00", ""]]  # fmt: skip
COLUMNS = ["text", "prediction", "actual", "loss", "probability"]


def test_lines_fit_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert repr(LossList(COLUMNS, ROWS)).splitlines() == [
        "prediction / actual / loss / probability",
        "1. pos / neg / 7.42 / 0.99",
        "   a film that has everything but a",
        "   story, and yet is too long",
        "2. neg / pos / 1.00",
        "   <b>bold</b>\\x1b[2J",
    ]


def test_a_page_has_a_table_with_all_of_the_text():
    page = LossList(COLUMNS, ROWS)._repr_html_()
    assert page.count("<tr>") == 3 and page.count("<td") == 10 and ROWS[0][0] in page
    assert "<b>" not in page and "&lt;b&gt;bold&lt;/b&gt;\\x1b[2J" in page


def test_it_is_shown_richly_in_a_notebook_and_printed_elsewhere(monkeypatch, capsys):
    show(LossList(COLUMNS, ROWS))
    assert capsys.readouterr().out.startswith("prediction / actual")
    display = pytest.importorskip("IPython.display")
    shown = []
    monkeypatch.setattr(loss_list, "in_notebook", lambda: True)
    monkeypatch.setattr(display, "display", shown.append)
    show(found := LossList(COLUMNS, ROWS))
    assert shown == [found] and not capsys.readouterr().out
