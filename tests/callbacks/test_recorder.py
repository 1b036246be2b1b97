"""The recorder: every step, a row for every epoch over all fits, and plots of both."""

import math

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn
from warmstart.callbacks import Callback, CancelEpoch, CancelFit, Recorder
from warmstart.learner import accuracy


class Losses(Callback):
    """What the recorder should have seen."""

    def __init__(self):
        self.losses, self.sizes = [], []

    def before_backward(self, learn):
        self.losses.append(learn.loss.item())
        self.sizes.append(len(learn.xb[0]))


def test_history_has_a_row_per_epoch_over_all_fits(make_learn):
    learn = make_learn(metrics=accuracy)
    learn.fit(2)
    learn.fit_one_cycle(1)
    history = learn.recorder.history
    assert list(history) == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert history["epoch"].tolist() == [0, 1, 2]
    assert history["valid_loss"].is_monotonic_decreasing and (history["time"] > 0).all()
    assert learn.recorder.epoch_ends == [4, 8, 12]


def test_every_step_has_its_loss_learning_rate_momentum_and_size(make_learn):
    learn, expected = make_learn(train=(8, 8, 3)), Losses()
    learn.fit(2, 0.1, cbs=expected)
    assert learn.recorder.losses == expected.losses
    assert learn.recorder.sizes == expected.sizes == [8, 8, 3, 8, 8, 3]
    assert learn.recorder.lrs == [0.1] * 6 and learn.recorder.moms == [0.9] * 6


def test_train_loss_is_averaged_by_sample(make_learn):
    learn, seen = make_learn(train=(8, 8, 3)), Losses()
    learn.fit(2, 0.1, cbs=seen)
    expected = [np.average(seen.losses[i : i + 3], weights=[8, 8, 3]) for i in (0, 3)]
    assert learn.recorder.history["train_loss"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("splits", "lrs"), [(1, [0.1] * 4), (2, [0.2] * 4)])
def test_the_learning_rate_is_the_last_groups(make_learn, splits, lrs):
    def splitter(model):
        first, second = list(model[0].parameters()), list(model[2].parameters())
        return [first, second] if splits == 2 else [*first, *second]

    learn = make_learn(splitter=splitter)
    learn.fit(1, [0.1, 0.2] if splits == 2 else 0.1)
    assert learn.recorder.lrs == lrs


def test_without_a_validation_set_there_are_no_results_of_one(make_learn):
    learn = make_learn(valid=None)
    learn.fit(1)
    assert list(learn.recorder.history) == ["epoch", "train_loss", "time"]
    learn.recorder.plot_losses()
    assert [line.get_label() for line in plt.gca().lines] == ["train"]


def test_metrics_that_come_later_have_no_values_before(make_learn):
    learn = make_learn()
    learn.fit(1)
    learn.metrics = accuracy
    learn.fit(1)
    history = learn.recorder.history
    assert list(history) == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert history["accuracy"].isna().tolist() == [True, False]


def test_an_epoch_without_a_step_has_no_training_loss(make_learn):
    class Skip(Callback):
        def before_train(self, learn):
            raise CancelEpoch

    learn = make_learn()
    learn.fit(1, cbs=Skip())
    assert math.isnan(learn.recorder.history["train_loss"][0])
    learn.recorder.plot_losses()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_losses_keep_the_precision_that_they_have(make_learn, dtype):
    learn, seen = make_learn(model=nn.Linear(4, 3).to(dtype)), Losses()

    class Convert(Callback):
        def before_batch(self, learn):
            learn.xb = (learn.xb[0].to(dtype),)

    learn.fit(1, cbs=[Convert(), seen])
    assert learn.recorder.losses == seen.losses


def test_smooth_loss_weighs_the_last_steps_of_the_epoch_most(learn):
    learn.fit(1)
    last = learn.recorder.losses
    weights = [0.9**3, 0.9**2, 0.9, 1]
    assert learn.recorder.smooth_loss(beta=0.9) == pytest.approx(np.average(last, weights=weights))
    assert learn.recorder.smooth_loss(beta=0.9, window=2) == pytest.approx(np.average(last[2:], weights=[0.9, 1]))
    learn.fit(1)
    assert learn.recorder.smooth_loss(beta=0.9) == pytest.approx(np.average(learn.recorder.losses[4:], weights=weights))


def test_nothing_is_read_from_the_device_in_a_step(make_learn, device_reads):
    """Reading a tensor's value makes the host wait for the device: an epoch may, a step may not."""

    def reads_of_an_epoch(n):
        device_reads.clear()
        make_learn(train=(8,) * n, valid=(8,) * n, metrics=accuracy).fit_one_cycle(1)
        return len(device_reads)

    assert 0 < reads_of_an_epoch(2) == reads_of_an_epoch(20)


def test_validating_and_predicting_leave_the_record_alone(learn):
    learn.fit(1)
    before = learn.recorder.history, list(learn.recorder.losses)
    learn.validate()
    learn.get_preds()
    assert learn.recorder.history.equals(before[0]) and learn.recorder.losses == before[1]


def test_before_training_the_history_is_empty_and_plots_are_too():
    recorder = Recorder()
    assert list(recorder.history) == ["epoch", "train_loss", "valid_loss", "time"] and recorder.history.empty
    assert recorder.losses == [] and math.isnan(recorder.smooth_loss()) and math.isnan(recorder.mean_loss(0))
    for plot in (recorder.plot_losses, recorder.plot_sched, recorder.plot_metrics):
        plot()
        assert all(len(line.get_xdata()) == 0 for ax in plt.gcf().axes for line in ax.lines)


# ---- plots


def curves(ax):
    """What is drawn: label → (x, y)."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


def test_plot_losses_shows_the_steps_and_the_validation_at_each_epochs_end(learn):
    learn.fit(2)
    learn.recorder.plot_losses()
    drawn = curves(plt.gca())
    assert drawn["train"] == ([5, 6, 7], learn.recorder.losses[5:])
    assert drawn["valid"] == ([3, 7], learn.recorder.history["valid_loss"].tolist())


def test_plot_losses_starts_and_leaves_out_what_one_says(learn):
    learn.fit(2)
    learn.recorder.plot_losses(skip_start=0, with_valid=False)
    assert curves(plt.gca()) == {"train": (list(range(8)), learn.recorder.losses)}


def test_plot_losses_adds_a_smooth_curve_to_many_steps(make_learn):
    learn = make_learn(train=(8,) * 60)
    learn.fit(1)
    learn.recorder.plot_losses()
    steps, smooth = curves(plt.gca())["train, smoothed"]
    expected = np.average(learn.recorder.losses[:10], weights=(2 / 3) ** np.arange(9, -1, -1))
    assert steps[4] == 9 and smooth[4] == pytest.approx(expected)


def test_plot_sched_shows_learning_rate_and_momentum(learn):
    learn.fit_one_cycle(1, 0.1)
    learn.recorder.plot_sched()
    left, right = plt.gcf().axes
    assert list(left.lines[0].get_ydata()) == learn.recorder.lrs and left.get_ylabel() == "learning rate"
    assert list(right.lines[0].get_ydata()) == learn.recorder.moms and right.get_ylabel() == "momentum"


def test_plot_metrics_shows_losses_and_each_metric_by_epoch(make_learn):
    def targets_mean(pred, targ):
        return targ.float().mean()

    learn = make_learn(metrics=[accuracy, targets_mean])
    learn.fit(2)
    learn.recorder.plot_metrics()
    history, axes = learn.recorder.history, plt.gcf().axes
    assert [ax.get_title() for ax in axes] == ["loss", "accuracy", "targets_mean"]
    assert curves(axes[0]) == {name: ([0, 1], history[name].tolist()) for name in ("train_loss", "valid_loss")}
    assert curves(axes[1]) == {"accuracy": ([0, 1], history["accuracy"].tolist())}


def test_an_epoch_whose_results_end_the_fit_is_recorded(make_learn):
    class GoodEnough(Callback):
        def after_validate(self, learn):
            raise CancelFit

    learn = make_learn()
    learn.fit(3, cbs=GoodEnough())
    history = learn.recorder.history
    assert len(history) == 1 and history["valid_loss"][0] == pytest.approx(learn.validate()["valid_loss"])
    assert learn.recorder.epoch_ends == [4]
