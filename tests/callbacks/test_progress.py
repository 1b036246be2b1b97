"""Progress in a pipe, in a terminal and in a notebook: what one sees, to the character."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from contextlib import suppress

import pytest
import torch
from warmstart.callbacks import Callback, CancelFit, CancelValidate, ProgressBar, progress
from warmstart.callbacks.progress import (
    NotebookDisplay,
    PlainDisplay,
    Progress,
    TerminalDisplay,
    format_time,
    format_value,
)
from warmstart.learner import accuracy


class At(Callback):
    """Raises an exception at an event."""

    order = 100

    def __init__(self, event, error):
        setattr(self, event, self.fail)
        self.error = error

    def fail(self, learn):
        raise self.error


@pytest.fixture
def eager(monkeypatch):
    """The bar is drawn after every batch."""
    monkeypatch.setattr(progress, "REFRESH", 0)


@pytest.fixture
def loud(make_learn):
    """A learner that shows its progress."""

    def make(**kwargs):
        learn = make_learn(**kwargs)
        learn.progress.bar = learn.progress.table = True
        return learn

    return make


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (0.6, "0:01"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00")]
)
def test_times_are_minutes_and_seconds_or_hours_too(seconds, text):
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (0.5, "0.500000"),
        (-12.25, "-12.250000"),
        (0.0, "0.000000"),
        (1e-4, "0.000100"),
        (3.21e-5, "3.21e-05"),
        (123456.7, "1.235e+05"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_values_have_six_decimals_unless_those_show_nothing(value, text):
    assert format_value("accuracy", value) == text
    assert format_value("time", 75.2) == "1:15"


def test_what_is_left_is_judged_by_what_was_done():
    def position(*args):
        return Progress(0, 3, "train", *args, comment="").position

    assert position(0, 10, 0.0) == "0/10 0:00"
    assert position(3, 10, 30.0) == "3/10 0:30<1:10"
    assert position(3, None, 30.0) == "3/? 0:30"
    assert Progress(1, 3, "train", 0, 9, 0, "").title == "epoch 2/3 train"
    assert Progress(1, 0, "valid", 0, 9, 0, "").title == "valid"


# ---- in a pipe or a file


def test_a_pipe_gets_a_header_and_one_plain_line_an_epoch(loud, capsys):
    loud(metrics=accuracy).fit(2)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header == "epoch  train_loss  valid_loss  accuracy    time"
    assert [re.fullmatch(r"(\d)      (\d\.\d{6}    ){3}0:00", row)[1] for row in rows] == ["0", "1"]


def test_the_lines_hold_what_the_history_holds(loud, capsys):
    learn = loud(metrics=accuracy)
    learn.fit(1)
    _, row = capsys.readouterr().out.splitlines()
    assert [float(cell) for cell in row.split()[1:4]] == pytest.approx(
        learn.recorder.history.loc[0, ["train_loss", "valid_loss", "accuracy"]].tolist(), abs=1e-6
    )


def test_each_fit_begins_with_its_header(loud, capsys):
    learn = loud()
    learn.fit(1)
    learn.fit(1)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["epoch", "0", "epoch", "1"]


def test_columns_that_come_later_get_a_header_of_their_own(capsys):
    display = PlainDisplay()
    display.row(["epoch", "loss"], ["0", "1.5"])
    display.row(["epoch", "loss"], ["1", "1.4"])
    display.row(["epoch", "loss", "accuracy"], ["2", "1.3", "0.5"])
    assert capsys.readouterr().out.splitlines() == [
        "epoch  loss",
        "0      1.5",
        "1      1.4",
        "epoch  loss        accuracy",
        "2      1.3         0.5",
    ]


def test_validating_and_predicting_print_nothing_in_a_pipe(loud, capsys, eager):
    learn = loud()
    learn.validate()
    learn.get_preds()
    learn.run_batch((torch.zeros(1, 4),))
    learn.lr_find(show_plot=False)
    learn.fit(0)
    assert capsys.readouterr().out == ""


def test_no_logging_and_no_bar_together_are_silent(loud, capsys, eager):
    learn = loud()
    with learn.no_bar():
        learn.fit(1)
    assert len(capsys.readouterr().out.splitlines()) == 2
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        learn.validate()
    assert capsys.readouterr().out == ""
    learn.fit(1)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_without_a_recorder_or_a_progress_bar_training_goes_on(loud, capsys, eager):
    learn = loud()
    learn.remove_cb(learn.recorder).fit(1)
    learn.remove_cb(ProgressBar).fit(1)
    assert capsys.readouterr().out == ""


# ---- in a terminal


def in_terminal(work, columns):
    """What a terminal of that width receives while `work()` runs in a process of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.environ.pop("COLUMNS", None)
        os.environ["TERM"] = "xterm"
        with open(1, "w", encoding="utf-8", closefd=False) as sys.stdout:
            status = 1
            try:
                work()
                status = 0
            finally:
                sys.stdout.flush()
                os._exit(status)
    output = b"".join(iter(lambda: read(terminal), b""))
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0, output.decode()
    return output.decode()


def read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end was closed
        return b""


def screen(output):
    """The lines that remain, and the widest that there ever was."""
    lines, widest = [""], 0
    for part in re.findall(r"\x1b\[K|\r\n|\r|\n|[^\r\n\x1b]+|.", output):
        if part == "\r":
            column = 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif part in ("\r\n", "\n"):
            lines.append("")
            column = 0
        else:
            assert "\x1b" not in part
            lines[-1] += part
            widest = max(widest, len(lines[-1]))
    return lines, widest


@pytest.mark.parametrize("columns", [80, 40])
def test_no_line_in_a_terminal_is_wider_than_the_terminal(loud, eager, columns):
    def rather_long_name_of_a_metric(pred, targ):
        return pred.mean()

    learn = loud(metrics=[accuracy, rather_long_name_of_a_metric])
    output = in_terminal(lambda: learn.fit(12), columns)
    lines, widest = screen(output)
    assert widest < columns
    assert "epoch 3/12 train" in output and "epoch 12/12 valid" in output and "█" in output
    assert not any("█" in line or "train " in line for line in lines) and lines[-1] == ""
    if columns == 80:
        assert lines[0] == "epoch  train_loss  valid_loss  accuracy    rather_long_name_of_a_metric  time"
        assert [line.split()[0] for line in lines[1:-1]] == [str(epoch) for epoch in range(12)]
    else:
        rows = "\n".join(lines).replace("\n  ", " ").splitlines()
        assert all(re.match(rf"epoch={epoch} +train_loss=\d\.\d+ ", row) for epoch, row in enumerate(rows))
        assert len(rows) == 12 and all("rather_long_name_of_a_metric=" in row for row in rows)


def test_the_line_in_a_terminal_tells_how_far_one_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    display = TerminalDisplay()
    display.update(Progress(1, 3, "train", 5, 10, 5.0, "loss 0.5000"))
    assert capsys.readouterr().out == f"\r\x1b[Kepoch 2/3 train {'█' * 15}{'░' * 15} 5/10 0:05<0:05 loss 0.5000"
    display.update(Progress(1, 3, "train", 5, None, 5.0, ""))
    assert capsys.readouterr().out == "\r\x1b[Kepoch 2/3 train  5/? 0:05"
    monkeypatch.setenv("COLUMNS", "40")  # no room for the comment: half of a number would be another number
    display.update(Progress(1, 3, "train", 5, 10, 5.0, "loss 0.5000"))
    assert capsys.readouterr().out == f"\r\x1b[Kepoch 2/3 train {'█' * 4}{'░' * 4} 5/10 0:05<0:05"
    display.close()
    assert capsys.readouterr().out == "\r\x1b[K"
    display.close()
    assert capsys.readouterr().out == ""


def test_a_loader_that_gives_more_than_it_says_does_not_break_the_bar(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    TerminalDisplay().update(Progress(0, 1, "train", 30, 10, 5.0, ""))
    assert capsys.readouterr().out.count("█") == 30


def test_a_terminal_without_block_characters_gets_others(monkeypatch):
    monkeypatch.setattr(sys, "stdout", open(os.devnull, "w", encoding="ascii"))  # noqa: SIM115
    display = TerminalDisplay()
    display.update(Progress(0, 1, "train", 5, 10, 5.0, ""))
    sys.stdout.close()
    assert (display.full, display.empty) == ("#", ".")


def test_a_terminal_that_knows_no_control_characters_gets_plain_lines(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert type(progress._richest_display()) is PlainDisplay
    monkeypatch.setenv("TERM", "xterm")
    assert type(progress._richest_display()) is TerminalDisplay


# ---- opening and closing


class Screen(PlainDisplay):
    """Notes what it is told."""

    def __init__(self):
        super().__init__()
        self.log = []

    def update(self, progress):
        self.log.append(f"{progress.title} {progress.done}/{progress.total}")

    def row(self, names, cells):
        self.log.append(f"row {cells[0]}")

    def close(self):
        self.log.append("close")


@pytest.fixture
def screens(monkeypatch, eager):
    """The displays that were opened."""
    opened = []
    monkeypatch.setattr(progress, "_richest_display", lambda: opened.append(Screen()) or opened[-1])
    return opened


def test_a_fit_shows_its_stages_and_rows(loud, screens):
    loud(train=(8, 8), valid=(8,)).fit(2)
    (only,) = screens
    one = ["train 0/2", "train 1/2", "train 2/2", "valid 0/1", "valid 1/1"]
    assert only.log == [
        *(f"epoch 1/2 {stage}" for stage in one), "row 0",
        *(f"epoch 2/2 {stage}" for stage in one), "row 1", "close",
    ]  # fmt: skip


def test_a_validation_of_its_own_has_a_display_of_its_own(loud, screens):
    learn = loud()
    learn.validate()
    learn.get_preds()
    assert [s.log for s in screens] == [["valid 0/2", "valid 1/2", "valid 2/2", "close"]] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), CancelFit()])
@pytest.mark.parametrize("event", ["before_fit", "before_batch", "after_loss", "before_validate", "after_epoch"])
def test_the_bar_closes_whatever_ends_the_fit(loud, screens, event, error):
    learn = loud()
    if isinstance(error, CancelFit):
        learn.fit(1, cbs=At(event, error))
    else:
        with pytest.raises(type(error)):
            learn.fit(1, cbs=At(event, error))
    assert screens[0].log.count("close") == 1 and screens[0].log[-1] == "close"
    assert learn.progress.display is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), CancelValidate()])
@pytest.mark.parametrize("event", ["before_validate", "after_batch"])
def test_the_bar_closes_whatever_ends_a_validation(loud, screens, event, error):
    learn = loud().add_cb(At(event, error))
    with suppress(KeyboardInterrupt, ZeroDivisionError, ValueError):  # ValueError: there was nothing to validate on
        learn.validate()
    assert screens[0].log[-1] == "close" and learn.progress.display is None


def test_a_validation_within_a_fit_shares_its_display(loud, screens):
    class Often(Callback):
        def after_batch(self, learn):
            if learn.training:
                learn.validate()

    loud(train=(8, 8), valid=(8,)).fit(1, cbs=Often())
    (only,) = screens
    validation = ["valid 0/1", "valid 1/1"]
    expected = ["train 0/2", *validation, "train 1/2", *validation, "train 2/2"]
    assert only.log[:7] == [f"epoch 1/1 {stage}" for stage in expected]


def test_predicting_one_batch_opens_nothing(loud, screens):
    loud().run_batch((torch.zeros(1, 4),))
    assert not screens


def test_the_bar_is_drawn_a_few_times_a_second_and_shows_the_loss(loud, screens, monkeypatch):
    monkeypatch.setattr(progress, "REFRESH", 0.05)
    comments = []
    monkeypatch.setattr(Screen, "update", lambda self, progress: comments.append(progress.comment))

    class Slow(Callback):
        def after_batch(self, learn):
            time.sleep(0.01)

    learn = loud(train=(8,) * 20, valid=None)
    learn.fit(1, cbs=Slow())
    assert 3 <= len(comments) <= 6
    assert comments[0] == "" and all(re.fullmatch(r"loss \d\.\d{4}", comment) for comment in comments[1:])


# ---- in a notebook


class Handle:
    def __init__(self):
        self.shown = []

    def update(self, html):
        self.shown.append(html.data)


@pytest.fixture
def notebook(monkeypatch):
    """The outputs below a cell, with all that each has shown."""
    outputs = []
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *args, display_id: outputs.append(Handle()) or outputs[-1])
    return outputs


def test_a_notebook_shows_bars_while_it_trains_and_the_table_in_the_end(loud, notebook, eager):
    learn = loud(metrics=accuracy)
    learn.fit(2)
    (output,) = notebook
    during, end = output.shown[-3], output.shown[-1]
    assert during.count("<progress") == 2 and "epoch 2/2 valid 2/2" in during and "<td>0</td>" in during
    assert "<progress" not in end and re.findall(r"<th>(.*)</th>", end) == list(learn.recorder.history)
    assert re.findall(r"<td>(\d)</td>", end) == ["0", "1"]


def test_a_validation_in_a_notebook_leaves_nothing_behind(loud, notebook, eager):
    loud().validate()
    assert "<progress" in notebook[0].shown[0] and notebook[0].shown[0].count("<progress") == 1
    assert notebook[0].shown[-1] == ""


def test_a_notebook_shows_no_html_of_names(notebook):
    display = NotebookDisplay()
    display.row(["epoch", "<lambda>"], ["0", "0.5"])
    assert "<th>&lt;lambda&gt;</th>" in notebook[0].shown[-1]


def test_without_bar_a_notebook_prints_lines(loud, notebook, capsys):
    learn = loud()
    with learn.no_bar():
        learn.fit(1)
    assert not notebook and len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("how", ["learn.fit(2)", "launch(lambda: learn.to_distributed().fit(2)); None"])
def test_fit_in_a_real_notebook_leaves_one_table(how):
    if "launch" in how and sys.platform != "linux":
        pytest.skip("processes are forked")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    code = """
        import torch
        from torch import nn
        from warmstart.data import DataBunch
        from warmstart.learner import Learner, launch
        batches = [(torch.randn(8, 4), torch.randn(8, 1))] * 4
        learn = Learner(DataBunch(batches, batches, device="cpu"), nn.Linear(4, 1), nn.MSELoss())
    """
    code += how
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(map(str.strip, code.splitlines())))])
    nbclient.NotebookClient(notebook, timeout=120).execute()
    (output,) = notebook.cells[0].outputs
    table = output["data"]["text/html"]
    assert re.findall(r"<th>(.*)</th>", table) == ["epoch", "train_loss", "valid_loss", "time"]
    assert re.findall(r"<td>(\d)</td>", table) == ["0", "1"] and "<progress" not in table
