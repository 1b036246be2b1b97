"""Progress: a bar and a live table in a notebook, one line in a terminal, a plain line an epoch in a file or pipe."""

import math
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from .core import Callback

__all__ = ["ProgressBar"]

REFRESH = 0.2  # seconds between two updates of a bar


def format_time(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(max(0, int(seconds + 0.5)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_value(name: str, value: Any) -> str:
    """A cell of the table: times as `m:ss`, whole numbers as they are, others with 6 decimals at most."""
    if name == "time":
        return format_time(value)
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{value:.6f}" if abs(value) < 1e4 else f"{value:.4g}"


class Display(Protocol):
    """Where progress is shown."""

    def start(self, n_epoch: int) -> None: ...
    def stage(self, name: str, total: int | None) -> None: ...
    def update(self, done: int, comment: str) -> None: ...
    def row(self, names: Sequence[str], cells: Sequence[str]) -> None: ...
    def close(self) -> None: ...


class PlainDisplay:
    """Lines of text without control characters: a header once, then one line an epoch."""

    def __init__(self):
        self.widths: list[int] = []
        self.names: list[str] = []

    def start(self, n_epoch: int) -> None:
        self.names = []

    def stage(self, name: str, total: int | None) -> None: ...

    def update(self, done: int, comment: str) -> None: ...

    def row(self, names: Sequence[str], cells: Sequence[str]) -> None:
        if list(names) != self.names:
            self.names, self.widths = list(names), [max(len(n), 5 if n in ("epoch", "time") else 10) for n in names]
            self.write(names)
        self.write(cells)

    def write(self, cells: Sequence[str]) -> None:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, self.widths, strict=True)).rstrip(), flush=True)

    def close(self) -> None: ...


class TerminalDisplay(PlainDisplay):
    """The same lines, and below them one line that is written over and over while an epoch runs."""

    def start(self, n_epoch: int) -> None:
        super().start(n_epoch)
        self.epoch, self.n_epoch, self.shown = 0, n_epoch, False

    def stage(self, name: str, total: int | None) -> None:
        self.name, self.total, self.begin = name, total, time.perf_counter()

    def update(self, done: int, comment: str) -> None:
        spent = time.perf_counter() - self.begin
        left = f"<{format_time(spent / done * (self.total - done))}" if self.total and done else ""
        head = f"epoch {self.epoch + 1}/{self.n_epoch} {self.name} " if self.n_epoch else f"{self.name} "
        tail = f" {done}/{self.total or '?'} {format_time(spent)}{left} {comment}".rstrip()
        width = shutil.get_terminal_size((80, 24)).columns - 1
        room = min(30, width - len(head) - len(tail))
        filled = int(room * done / self.total) if self.total and room > 0 else 0
        bar = "█" * filled + "░" * (room - filled) if self.total and room >= 5 else ""
        print(f"\r\x1b[K{(head + bar + tail)[:width]}", end="", flush=True)
        self.shown = True

    def row(self, names: Sequence[str], cells: Sequence[str]) -> None:
        self.close()
        super().row(names, cells)
        self.epoch += 1

    def close(self) -> None:
        if getattr(self, "shown", False):
            print("\r\x1b[K", end="", flush=True)
            self.shown = False


class NotebookDisplay:
    """fastprogress' bars, with the table of epochs below."""

    def start(self, n_epoch: int) -> None:
        from fastprogress.fastprogress import NBMasterBar

        self.master: Any = NBMasterBar(range(n_epoch))
        self.master.on_iter_begin()
        self.master.update(0)
        self.names: list[str] = []
        self.child: Any = None
        self.epoch = 0

    def stage(self, name: str, total: int | None) -> None:
        from fastprogress.fastprogress import NBProgressBar

        self.child = NBProgressBar(range(total or 0), total=total or "noinfer", parent=self.master, leave=False)
        self.child.update(0)

    def update(self, done: int, comment: str) -> None:
        self.child.comment = comment
        if done and self.child.last_v is not None:
            self.child.last_t = time.time()
            self.child.pred_t = None if self.child.total is None else (self.child.last_t - self.child.start_t) / done * self.child.total
            self.child.update_bar(done)

    def row(self, names: Sequence[str], cells: Sequence[str]) -> None:
        if list(names) != self.names:
            self.names = list(names)
            self.master.write(names, table=True)
        self.master.write(cells, table=True)
        self.epoch += 1
        self.master.update(self.epoch)

    def close(self) -> None:
        self.master.on_iter_end()


def _display() -> Display:
    """The richest display that this process's output can show."""
    if _in_notebook():
        return NotebookDisplay()
    return TerminalDisplay() if sys.stdout.isatty() else PlainDisplay()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class ProgressBar(Callback):
    """Shows how far training is, and each epoch's results.

    `bar` and `table` switch the moving bar and the epochs' lines; `learn.no_bar()` and `learn.no_logging()` do so for a while.
    """

    order = 50

    def __init__(self):
        self.bar, self.table = True, True
        self.display: Display | None = None

    def before_fit(self, learn: Any) -> None:
        self._open(learn.n_epoch)

    def before_train(self, learn: Any) -> None:
        self._stage("train", learn)

    def before_validate(self, learn: Any) -> None:
        if self.display is None:  # a validation of its own
            self._open(0)
            self.alone = True
        self._stage("valid", learn)

    def after_batch(self, learn: Any) -> None:
        if self.display and self.bar and (now := time.perf_counter()) >= self.next_refresh:
            self.next_refresh = now + REFRESH
            self.display.update(learn.iter + 1, f"loss {learn.recorder.smooth_loss():.4f}" if learn.training and learn.recorder.sizes else "")

    def after_validate(self, learn: Any) -> None:
        if self.alone:
            self._close()

    after_cancel_validate = after_validate

    def after_epoch(self, learn: Any) -> None:
        rows = learn.recorder.rows
        if self.table and self.display and rows and learn.recorder in learn.cbs:
            self.display.row(list(rows[-1]), [format_value(name, value) for name, value in rows[-1].items()])

    def after_fit(self, learn: Any) -> None:
        self._close()

    after_cancel_fit = after_fit

    def _open(self, n_epoch: int) -> None:
        self.display = _display() if self.bar else PlainDisplay()
        self.alone, self.next_refresh = False, time.perf_counter() + REFRESH
        if self.bar or self.table:
            self.display.start(n_epoch)

    def _stage(self, name: str, learn: Any) -> None:
        if self.bar and self.display:
            self.display.stage(name, learn.n_iter)

    def _close(self) -> None:
        if self.display and (self.bar or self.table):
            self.display.close()
        self.display, self.alone = None, False
