"""What a plot of a schedule shows."""

from functools import partial

import pytest
from matplotlib import pyplot as plt
from torch.optim.lr_scheduler import StepLR
from warmstart.callbacks import ParamScheduler, TorchScheduler, combined_cos, plot_schedule, sched_lin


def curves():
    """What the last figure shows: by the label of its y axis the lines' values."""
    return {ax.get_ylabel(): [line.get_ydata() for line in ax.get_lines()] for ax in plt.gcf().axes}


def test_a_plot_shows_the_steps_of_a_scheduler():
    plot_schedule(TorchScheduler(partial(StepLR, step_size=2, gamma=0.5)), n=5, lr=0.1)
    assert [list(line) for line in curves()["learning rate"]] == [[0.1, 0.1, 0.05, 0.05, 0.025]]


def test_a_plot_shows_a_line_for_each_layer_group_and_a_picture_for_each_hyper_parameter():
    cycle = combined_cos(0.25, 0.01, 0.1, 0.001)
    scheds = {"lr": [cycle, sched_lin(1, 0)], "mom": sched_lin(0.9, 0.8)}
    for schedule in (scheds, ParamScheduler(scheds)):
        plot_schedule(schedule, n=5)
        shown = curves()
        assert list(shown) == ["learning rate", "momentum"]
        first, second = map(list, shown["learning rate"])
        assert first == [cycle(i / 4) for i in range(5)] and second == [1, 0.75, 0.5, 0.25, 0]
        assert list(shown["momentum"][0]) == pytest.approx([0.9, 0.875, 0.85, 0.825, 0.8])


def test_a_function_of_progress_can_be_plotted_by_itself():
    plot_schedule(lambda pct: pct**2, n=3)
    assert [list(line) for line in curves()["value"]] == [[0, 0.25, 1]]
