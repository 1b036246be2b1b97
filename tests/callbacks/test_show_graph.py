"""The graph of losses in a notebook, and nothing elsewhere."""

import io

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from warmstart.callbacks import progress
from warmstart.callbacks.show_graph import ShowGraph


class Handle:
    """An output below a cell, with all that it has shown."""

    def __init__(self, first):
        self.shown = [first.data]

    def update(self, content):
        self.shown.append(content.data)


@pytest.fixture
def outputs(monkeypatch):
    """The outputs of a notebook's cell."""
    found = []
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(
        "IPython.display.display", lambda content, display_id: found.append(Handle(content)) or found[-1]
    )
    return found


@pytest.fixture
def axes(monkeypatch):
    """The axes that were drawn on."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **options: drawn.append(self.axes[0]))
    return drawn


@pytest.fixture
def loud(make_learn):
    """A learner that shows its progress."""

    def make(**kwargs):
        learn = make_learn(**kwargs)
        learn.progress.bar = True
        return learn

    return make


def test_one_picture_is_renewed_after_each_epoch(loud, outputs):
    loud().fit(3, cbs=ShowGraph())
    bar, graph = outputs
    assert "<progress" in "".join(bar.shown)
    assert len(graph.shown) == 3 and len(set(graph.shown)) == 3
    pixels = [plt.imread(io.BytesIO(png)) for png in graph.shown]
    assert {picture.shape for picture in pixels} == {(280, 480, 4)} and not plt.get_fignums()


def test_it_draws_the_losses_of_this_fit_over_its_whole_length(loud, outputs, axes):
    learn = loud(train=(8,) * 6)
    learn.fit(1)
    learn.fit(3, cbs=ShowGraph())
    losses, valid = learn.recorder.losses[6:], learn.recorder.history["valid_loss"][1:]
    assert len(axes) == 3
    for epoch, ax in enumerate(axes, 1):
        steps, smooth, dots = ax.lines
        assert list(steps.get_xdata()) == list(range(1, 6 * epoch + 1))
        assert list(steps.get_ydata()) == losses[: 6 * epoch]
        assert list(dots.get_xdata()) == [6, 12, 18][:epoch] and list(dots.get_ydata()) == list(valid[:epoch])
        assert ax.get_xlim() == (0, 18)
    weights = (1 - 2 / 6) ** np.arange(3)[::-1]  # a span of 5
    assert smooth.get_ydata()[2] == pytest.approx(np.average(losses[:3], weights=weights))


def test_without_a_validation_set_there_is_one_curve(loud, outputs, axes):
    loud(valid=None).fit(1, cbs=ShowGraph())
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["train, smoothed"]


def test_elsewhere_nothing_is_shown(loud, capsys, monkeypatch):
    loud().fit(2, cbs=ShowGraph())
    loud().lr_find(show_plot=False)
    assert capsys.readouterr().out == "" and not plt.get_fignums()


def test_no_bar_keeps_it_still(loud, outputs):
    learn = loud()
    with learn.no_bar():
        learn.fit(1, cbs=ShowGraph())
    assert outputs == []
