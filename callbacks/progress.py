"""Progress: bars and a live table in a notebook, one line in a terminal, a plain line an epoch in a file or pipe."""

import html
import math
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from .core import Callback

__all__ = ["ProgressBar", "with_bar"]

T = TypeVar("T")

REFRESH = 0.2  # seconds between two updates of a bar


def format_time(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(max(0, int(seconds + 0.5)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_value(name: str, value: Any) -> str:
    """A cell of the table: times as `m:ss`, whole numbers as they are, others with 6 decimals, or 4 digits if those
    would not show them."""
    if name == "time":
        return format_time(value)
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{value:.6f}" if value == 0 or 1e-4 <= abs(value) < 1e4 else f"{value:.4g}"


@dataclass
class Progress:
    """How far a stage of an epoch is: `done` batches of `total` (None: unknown) in `seconds`."""

    epoch: int
    n_epoch: int  # 0 for a validation outside any fit
    stage: str
    done: int
    total: int | None
    seconds: float
    comment: str

    @property
    def title(self) -> str:
        """Which stage it is."""
        return f"epoch {self.epoch + 1}/{self.n_epoch} {self.stage}" if self.n_epoch else self.stage

    @property
    def position(self) -> str:
        """How much of it is done, in what time, and how much is left."""
        left = self.seconds / self.done * (self.total - self.done) if self.total and self.done else None
        times = format_time(self.seconds) + ("" if left is None else f"<{format_time(left)}")
        return f"{self.done}/{self.total or '?'} {times}"


class Display(Protocol):
    """Where progress is shown."""

    def update(self, progress: Progress) -> None: ...
    def row(self, names: Sequence[str], cells: Sequence[str]) -> None: ...
    def close(self) -> None: ...


class PlainDisplay:
    """Lines of text without control characters: a header once, then one line an epoch."""

    def __init__(self):
        self.names: list[str] = []

    def update(self, progress: Progress) -> None: ...

    def row(self, names: Sequence[str], cells: Sequence[str]) -> None:
        if list(names) != self.names:
            self.names = list(names)
            print(table_line(names, names))
        print(table_line(names, cells), flush=True)

    def close(self) -> None: ...


def table_line(names: Sequence[str], cells: Sequence[str]) -> str:
    """The cells below a header of `names`."""
    widths = [max(len(name), 5 if name in ("epoch", "time") else 10) for name in names]
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


class TerminalDisplay(PlainDisplay):
    """The same lines, and below them one line that is written over and over while an epoch runs.

    No line is longer than the terminal is wide; where a row of the table would be, it becomes `name=value …`.
    """

    def __init__(self):
        super().__init__()
        self.shown = False
        self.full, self.empty = "█░" if _can_print("█░") else "#."

    def update(self, progress: Progress) -> None:
        head, tail, width = f"{progress.title} ", f" {progress.position}", _columns() - 1
        if progress.comment and len(head) + len(tail) + 1 + len(progress.comment) <= width:
            tail += f" {progress.comment}"
        room = min(30, width - len(head) - len(tail))
        bar = ""
        if progress.total and room >= 5:
            filled = min(room, room * progress.done // progress.total)
            bar = self.full * filled + self.empty * (room - filled)
        print(f"\r\x1b[K{(head + bar + tail)[:width]}", end="", flush=True)
        self.shown = True

    def row(self, names: Sequence[str], cells: Sequence[str]) -> None:
        self.close()
        if len(table_line(names, names)) < _columns():
            return super().row(names, cells)
        pairs = "  ".join(f"{name}={cell}" for name, cell in zip(names, cells, strict=True))
        print(textwrap.fill(pairs, _columns() - 1, subsequent_indent="  ", break_on_hyphens=False), flush=True)

    def close(self) -> None:
        if self.shown:
            print("\r\x1b[K", end="", flush=True)
            self.shown = False


def _columns() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


class NotebookDisplay:
    """fastprogress' bars and table: a bar of epochs, the rows so far, a bar of batches. In the end the rows stay."""

    def __init__(self):
        from IPython.display import HTML, display

        _let_forks_display()
        self.lines: list[Sequence[str]] = []  # of the table, the header first
        self.html: Callable[[str], Any] = HTML
        self.handle: Any = display(HTML(""), display_id=True)

    def update(self, progress: Progress) -> None:
        from fastprogress.core import html_progress_bar, html_progress_bar_styles

        epochs = html_progress_bar(progress.epoch, progress.n_epoch, "") if progress.n_epoch else ""
        label = html.escape(f"{progress.title} {progress.position} {progress.comment}")
        batches = html_progress_bar(progress.done, progress.total, label)
        self.show(html_progress_bar_styles + epochs + self.table() + batches)

    def row(self, names: Sequence[str], cells: Sequence[str]) -> None:
        self.lines = [names, *self.lines[1:], cells]
        self.show(self.table())

    def table(self) -> str:
        from fastprogress.core import text2html_table

        return text2html_table([[html.escape(cell) for cell in line] for line in self.lines]) if self.lines else ""

    def show(self, code: str) -> None:
        self.handle.update(self.html(code))

    def close(self) -> None:
        self.show(self.table())


def _richest_display() -> Display:
    """The richest display that this process's output can show."""
    if _in_notebook():
        return NotebookDisplay()
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return TerminalDisplay() if is_terminal else PlainDisplay()


def _in_notebook() -> bool:
    """Whether a front end shows what a cell displays: Jupyter's and its relatives', such as Colab's."""
    return any(cls.__name__ == "ZMQInteractiveShell" for cls in type(_shell()).__mro__)


def _shell() -> Any:
    """What runs a notebook's cells; None outside of IPython."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _let_forks_display() -> None:
    """Let a process that `launch` has forked from a notebook's show more than text, which ipykernel else drops.

    ipykernel does the same itself in a fork that prints. What is sent goes through the notebook's process either way.
    """
    session = getattr(getattr(_shell(), "kernel", None), "session", None)
    if session is not None:
        session.pid = os.getpid()


def with_bar(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """The items of what takes a while; meanwhile a notebook or a terminal shows how many of `total` are done."""
    display, begin, next_refresh = _richest_display(), time.perf_counter(), 0.0
    try:
        for done, item in enumerate(items):
            if (now := time.perf_counter()) >= next_refresh:
                display.update(Progress(0, 0, title, done, total, now - begin, ""))
                next_refresh = now + REFRESH
            yield item
    finally:
        display.close()


class ProgressBar(Callback):
    """Shows how far training is, and each epoch's results.

    `bar` and `table` switch the moving bar and the epochs' lines; `learn.no_bar()` and `learn.no_logging()` do so for a
    while.
    """

    order = 50
    rank0_only = True

    def __init__(self):
        self.bar, self.table = True, True
        self.display: Display | None = None
        self.next_refresh = 0.0
        self.begin = {True: 0.0, False: 0.0}  # when the last training stage began, and the last validation

    def before_fit(self, learn: Any) -> None:
        self._open()

    def before_train(self, learn: Any) -> None:
        self._begin(learn)

    def before_validate(self, learn: Any) -> None:
        if not learn.fitting:  # a validation of its own
            self._open()
        self._begin(learn)

    def after_batch(self, learn: Any) -> None:
        if self.bar and self.display and time.perf_counter() >= self.next_refresh:
            self._refresh(learn, learn.iter + 1)

    def after_validate(self, learn: Any) -> None:
        if not learn.fitting:
            self._close()

    after_cancel_validate = after_validate

    def after_epoch(self, learn: Any) -> None:
        if self.table and self.display and learn.recorder in learn.cbs and learn.recorder.rows:
            row = learn.recorder.rows[-1]
            self.display.row(list(row), [format_value(name, value) for name, value in row.items()])

    def after_fit(self, learn: Any) -> None:
        self._close()

    after_cancel_fit = after_fit

    def _open(self) -> None:
        self.display = _richest_display() if self.bar else PlainDisplay()
        self.next_refresh = 0.0

    def _begin(self, learn: Any) -> None:
        self.begin[learn.training] = now = time.perf_counter()
        if self.bar and self.display and now >= self.next_refresh:
            self._refresh(learn, 0)

    def _refresh(self, learn: Any, done: int) -> None:
        now = time.perf_counter()
        self.next_refresh = now + REFRESH
        n_epoch, stage = learn.n_epoch if learn.fitting else 0, "train" if learn.training else "valid"
        with_loss = learn.training and done and learn.recorder in learn.cbs
        comment = f"loss {learn.recorder.smooth_loss():.4f}" if with_loss else ""
        seconds = now - self.begin[learn.training]
        if self.display:
            self.display.update(Progress(learn.epoch, n_epoch, stage, done, learn.n_iter, seconds, comment))

    def _close(self) -> None:
        if self.display:
            self.display.close()
        self.display = None
