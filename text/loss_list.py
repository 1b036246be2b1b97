"""The texts that a model gets most wrong, as a table in a notebook, and as a list of paragraphs elsewhere.

prediction / actual / loss / probability
1. pos / neg / 7.42 / 0.99
   a film that has everything but a story
"""

import html
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data.show import in_notebook
from .contributions import printable

__all__ = ["LossList", "show"]

LEFT = ' style="text-align: left; vertical-align: top"'
MARGIN = "   "


@dataclass(frozen=True)
class LossList:
    """Rows of texts to show under the names of `columns`: the text itself, and then what is said of it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __repr__(self) -> str:
        width = max(20, shutil.get_terminal_size((80, 24)).columns)
        lines = [" / ".join(self.columns[1:])]
        for number, (text, *said) in enumerate(self.rows, 1):
            for paragraph, margin in ((" / ".join(filter(None, said)), f"{number}. "), (text, MARGIN)):
                lines += textwrap.wrap(printable(paragraph), width, initial_indent=margin, subsequent_indent=MARGIN)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [_row("th", self.columns), *(_row("td", row) for row in self.rows)]
        return f"<table>{''.join(rows)}</table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}{LEFT}>{html.escape(printable(cell))}</{tag}>' for cell in cells)}</tr>"


def show(shown: Any) -> None:
    """Show an object in its rich form in a notebook, as text elsewhere."""
    if in_notebook():
        from IPython.display import display

        display(shown)
    else:
        print(shown)
