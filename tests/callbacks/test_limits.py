"""Fits that end early, read less, or validate more often: steps, schedules, results, and loaders afterwards."""

import copy
import math
import random
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from warmstart.callbacks import (
    Callback,
    GradientAccumulation,
    LimitBatches,
    OverfitBatches,
    ParamScheduler,
    SaveModel,
    StopAfter,
    ValidateEvery,
    combined_cos,
    sched_lin,
)
from warmstart.data import DataBunch
from warmstart.learner import SGD, accuracy

from .conftest import batches


def one_cycle(n_steps, lr=0.1):
    """The learning rates of a one-cycle fit of so many steps."""
    cycle = combined_cos(0.25, lr / 25, lr, lr / 1e5)
    return pytest.approx([cycle(step / n_steps) for step in range(n_steps)])


class Log(Callback):
    """Keeps the batches of each stage, and how the stages ended."""

    def __init__(self):
        self.train, self.valid, self.n_validations, self.n_epochs = [], [], 0, 0

    def before_batch(self, learn):
        (self.train if learn.training else self.valid).append(learn.xb[0].clone())

    def after_validate(self, learn):
        self.n_validations += 1

    def after_epoch(self, learn):
        self.n_epochs += 1


def fit_logged(learn, n_epoch=1, **kwargs):
    log = Log()
    learn.fit(n_epoch, cbs=log, **kwargs)
    return log


def limits(learn):
    return [(dl.limit, dl.replay) for dl in learn.data.dls]


def dataset(n=40):
    (x, y) = batches(n)[0]
    return TensorDataset(x, y)


class Endless(IterableDataset):
    """Samples without a known number."""

    def __iter__(self):
        return iter([*dataset()])


class Fails(Callback):
    def __init__(self, event, error=ZeroDivisionError):
        self.error = error
        setattr(self, event, self.fail)

    def fail(self, learn):
        raise self.error


# ---- StopAfter


@pytest.mark.parametrize(("steps", "n_epochs"), [(1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (11, 3)])
def test_a_fit_ends_after_its_steps_with_a_last_validation(learn, steps, n_epochs):
    log = Log()
    learn.fit(5, cbs=[StopAfter(steps), log])
    assert learn.n_steps == len(log.train) == steps == len(learn.recorder.losses)
    assert log.n_validations == log.n_epochs == n_epochs == len(learn.recorder.history)
    assert learn.recorder.history["valid_loss"].iloc[-1] == pytest.approx(learn.validate()["valid_loss"])
    assert learn.max_steps is None


def test_schedules_come_to_their_end_with_the_steps(make_learn):
    learn = make_learn()
    learn.fit_one_cycle(5, 0.1, cbs=StopAfter(9))
    assert learn.recorder.lrs == one_cycle(9)
    learn.fit_one_cycle(2, 0.1)
    assert learn.recorder.lrs[9:] == one_cycle(8)  # the next fit is whole


@pytest.mark.parametrize("cb", [StopAfter(100), StopAfter(8), StopAfter(seconds=1000)])
def test_schedules_keep_to_the_epochs_where_these_end_first(learn, cb):
    learn.fit_one_cycle(2, 0.1, cbs=cb)
    assert learn.recorder.lrs == one_cycle(8) and len(learn.recorder.history) == 2


def test_steps_are_those_of_the_optimizer(make_learn):
    learn = make_learn(train=(8,) * 12)
    learn.fit_one_cycle(5, 0.1, cbs=[StopAfter(7), GradientAccumulation(24)])
    assert learn.n_steps == 7 and len(learn.recorder.losses) == 21
    cycle = combined_cos(0.25, 0.1 / 25, 0.1, 0.1 / 1e5)
    assert learn.recorder.lrs[::3] == pytest.approx([cycle(step / 7) for step in range(7)])


def test_with_accumulation_the_epochs_may_end_before_the_steps(make_learn):
    learn = make_learn(train=(8,) * 12)
    learn.fit_one_cycle(1, 0.1, cbs=[StopAfter(10), GradientAccumulation(24)])
    assert learn.n_steps == 4 and learn.recorder.lrs == one_cycle(12)


@pytest.mark.parametrize("order", [1, -1])
def test_limited_epochs_may_end_before_the_steps(learn, order):
    learn.fit_one_cycle(2, 0.1, cbs=[LimitBatches(2), StopAfter(7)][::order])
    assert learn.recorder.lrs == one_cycle(4)


def test_a_loader_without_length_has_a_schedule_by_its_steps(make_learn):
    learn = make_learn()
    learn.data = DataBunch(DataLoader(Endless(), 8), device="cpu")
    learn.fit(9, cbs=[StopAfter(10), ParamScheduler({"lr": sched_lin(0, 10)})])
    assert learn.recorder.lrs == pytest.approx(list(range(10)))


def test_a_fit_ends_after_its_seconds_with_a_last_validation(learn):
    class Slow(Callback):
        def after_batch(self, learn):
            time.sleep(0.05)

    start, log = time.perf_counter(), Log()
    learn.fit(1000, cbs=[StopAfter(seconds=0.3), Slow(), log])
    assert time.perf_counter() - start < 2 and 1 <= len(log.train) <= 6
    assert log.n_validations == log.n_epochs == len(learn.recorder.history)


def test_whichever_limit_comes_first_ends_the_fit(learn):
    learn.fit(9, cbs=StopAfter(3, seconds=1000))
    assert learn.n_steps == 3


# ---- LimitBatches


def test_an_epoch_reads_the_first_batches_of_each_loader(learn):
    expected = [[x for x, _ in dl] for dl in learn.data.dls]
    log = Log()
    learn.fit(2, cbs=[LimitBatches(3, 1), log])
    assert torch.stack(log.train).equal(torch.stack(expected[0][:3] * 2))
    assert torch.stack(log.valid).equal(torch.stack(expected[1][:1] * 2))


def test_the_schedule_knows_of_the_limit(learn):
    learn.fit_one_cycle(3, 0.1, cbs=LimitBatches(3))
    assert learn.recorder.lrs == one_cycle(9) and limits(learn) == [(None, None)] * 2


def test_a_limit_of_ones_own_stays(learn):
    learn.data.train_dl.limit = 2
    learn.fit(1, cbs=LimitBatches(valid=1))
    assert len(learn.recorder.losses) == 2 and limits(learn) == [(2, None), (None, None)]
    learn.fit(1, n_batches=3)
    assert len(learn.recorder.losses) == 5 and limits(learn)[0] == (2, None)


def test_two_limits_contradict_each_other(learn):
    with pytest.raises(ValueError, match="Two LimitBatches in one fit"):
        learn.fit(1, cbs=LimitBatches(3), n_batches=2)
    assert limits(learn) == [(None, None)] * 2


def test_limited_epochs_are_shuffled_and_use_other_items(make_learn):
    learn, log = make_learn(), Log()
    learn.data = DataBunch.from_dsets(dataset(), dataset(), bs=8, device="cpu", seed=0)
    learn.fit(2, cbs=[LimitBatches(1), log])
    assert not log.train[0].equal(log.train[1])


@pytest.mark.parametrize("kwargs", [{"n_batches": 2}, {"overfit_batches": 2}, {"max_steps": 2}, {"fast_dev_run": True}])
def test_loaders_with_workers_are_as_usable_afterwards(make_learn, kwargs):
    def epochs(num_workers, **kwargs):
        learn = make_learn()
        learn.data = DataBunch.from_dsets(dataset(), dataset(16), bs=8, num_workers=num_workers, device="cpu", seed=0)
        logs = [fit_logged(learn, **kwargs), fit_logged(learn), fit_logged(learn, **kwargs)]
        assert len(logs[1].train) == 5 and len(logs[1].valid) == 2
        return [torch.stack(log.train + log.valid) for log in logs]

    for ours, expected in zip(epochs(2, **kwargs), epochs(0, **kwargs), strict=True):
        assert ours.equal(expected)


@pytest.mark.parametrize("cb", [LimitBatches(2, 1), OverfitBatches(2), StopAfter(2)], ids=repr)
def test_loaders_without_length_are_limited_too(make_learn, cb):
    learn, log = make_learn(), Log()
    learn.data = DataBunch(DataLoader(Endless(), 8), DataLoader(Endless(), 8), device="cpu")
    learn.fit(1, cbs=[cb, log])
    assert len(log.train) == 2 and limits(learn) == [(None, None)] * 2


@pytest.mark.parametrize("cb", [LimitBatches(2, 1), OverfitBatches(2)], ids=repr)
@pytest.mark.parametrize("event", ["before_fit", "after_loss", "before_validate", "after_fit"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("order", [-100, 0])
def test_loaders_are_whole_again_after_errors(learn, cb, event, error, order):
    fails = Fails(event, error)
    fails.order = order
    with pytest.raises(error):
        learn.fit(1, cbs=[cb, fails])
    assert limits(learn) == [(None, None)] * 2


# ---- OverfitBatches


def test_the_same_batches_are_trained_and_validated_on_in_every_fit(make_learn):
    learn = make_learn()
    learn.data = DataBunch.from_dsets(dataset(), dataset(16), bs=8, device="cpu", seed=0)
    logs = [fit_logged(learn, 2, overfit_batches=2), fit_logged(learn, 1, overfit_batches=2)]
    first, second = logs[0].train[:2]
    assert not first.equal(second)
    for seen in (logs[0].train[2:], logs[0].valid[:2], logs[0].valid[2:], logs[1].train, logs[1].valid):
        assert torch.stack(seen).equal(torch.stack([first, second]))


def test_more_batches_than_there_are_is_all_of_them(learn):
    log = fit_logged(learn, 2, overfit_batches=9)
    assert len(log.train) == len(log.valid) == 2 * 4


def test_a_small_network_learns_a_batch_by_heart(make_learn):
    learn = make_learn(metrics=accuracy, lr=0.05)
    learn.fit(150, overfit_batches=1)
    last = learn.recorder.history.iloc[-1]
    assert last["train_loss"] < 0.01 and last["valid_loss"] < 0.01 and last["accuracy"] == 1
    assert learn.recorder.losses[0] > 0.5


def test_a_limit_holds_for_batches_learnt_by_heart_too(learn):
    log = fit_logged(learn, 1, overfit_batches=3, n_batches=2)
    assert len(log.train) == len(log.valid) == 2
    dl = learn.data.train_dl
    dl.replay, dl.limit = [1, 2, 3], 2
    assert list(dl) == [1, 2] and len(dl) == 2


# ---- ValidateEvery


def test_validation_comes_every_so_many_steps_and_changes_nothing(make_learn):
    plain, learn, results = make_learn(metrics=accuracy), make_learn(metrics=accuracy), []

    class Expect(Callback):
        order = 79  # just before

        def after_step(self, learn):
            with torch.no_grad():
                losses = [nn.functional.cross_entropy(learn.model(x), y).item() for x, y in learn.data.valid_dl]
            results.append(sum(losses) / len(losses))

    plain.fit(3)
    learn.fit(3, cbs=Expect(), validate_every=3)
    assert learn.recorder.losses == plain.recorder.losses
    history = learn.recorder.step_history
    assert list(history) == ["epoch", "step", "train_loss", "valid_loss", "accuracy"]
    assert history["epoch"].tolist() == [0, 1, 2, 2] and history["step"].tolist() == [3, 6, 9, 12]
    assert history["valid_loss"].tolist() == pytest.approx([results[step - 1] for step in (3, 6, 9, 12)])
    losses = learn.recorder.losses
    assert history["train_loss"].tolist() == pytest.approx(
        [np.mean(losses[a:b]) for a, b in [(0, 3), (4, 6), (8, 9), (8, 12)]]
    )
    pd.testing.assert_frame_equal(
        learn.recorder.history.drop(columns="time"), plain.recorder.history.drop(columns="time")
    )


def test_steps_between_validations_are_the_optimizers_and_begin_anew_with_a_fit(make_learn):
    learn, cb = make_learn(train=(8,) * 6), ValidateEvery(2)
    learn.fit(1, cbs=[cb, GradientAccumulation(16)])
    learn.fit(1, cbs=cb)
    assert learn.recorder.step_history["step"].tolist() == [2, 2, 4, 6]


def test_there_is_no_row_without_such_a_validation(learn):
    learn.fit(1)
    assert learn.recorder.step_history.empty


def test_without_a_validation_set_there_is_nothing_to_validate_on(make_learn):
    with pytest.raises(ValueError, match="nothing to validate on: the data has no validation set"):
        make_learn(valid=()).fit(1, validate_every=2)


# ---- the keywords of fit


def test_the_keywords_go_together(learn):
    log = fit_logged(learn, 9, max_steps=7, n_batches=3, validate_every=2)
    assert len(log.train) == 7 and learn.recorder.epoch_ends == [3, 6, 7]
    assert learn.recorder.step_history["step"].tolist() == [2, 4, 6]
    assert log.n_validations == 3 + 3 and len(log.valid) == 6 * 2


def test_the_keywords_are_for_one_fit(learn):
    n_cbs = len(learn.cbs)
    learn.fit(2, max_steps=3, n_batches=2, validate_every=1, overfit_batches=1)
    learn.fit(1)
    assert len(learn.cbs) == n_cbs and learn.n_steps == 4


def everything(learn, folder):
    """All that a fit would change."""
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    opt = None if learn.opt is None else learn.opt.state_dict()
    return copy.deepcopy([learn.model.state_dict(), opt, learn.epochs_begun, learn.recorder.losses, learn.recorder.rows,
                          generators, limits(learn), [m.training for m in learn.model.modules()],
                          sorted(folder.iterdir())])  # fmt: skip


def assert_same(value, expected):
    torch.testing.assert_close(value[:2], expected[:2], rtol=0, atol=0)
    assert str(value[2:]) == str(expected[2:])


class Draws(nn.Module):
    """Draws from all generators."""

    def forward(self, x):
        return x + torch.rand(()) + np.random.rand() + random.random()


@pytest.mark.parametrize("opt_func", [torch.optim.AdamW, SGD])
@pytest.mark.parametrize("fitted", [False, True])
def test_a_dry_run_changes_nothing_but_tries_everything(make_learn, tmp_path, opt_func, fitted):
    model = nn.Sequential(nn.Linear(4, 8), Draws(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    learn = make_learn(model=model, path=tmp_path, opt_func=opt_func, metrics=accuracy, cbs=SaveModel(every_epoch=True))
    if fitted:
        learn.fit(1)
    before, log = everything(learn, tmp_path), Log()
    learn.fit(
        5, 0.3, 0.2, cbs=[log, GradientAccumulation(16), LimitBatches(2), StopAfter(1), SaveModel()], fast_dev_run=True
    )
    assert_same(everything(learn, tmp_path), before)
    assert (len(log.train), len(log.valid), log.n_epochs) == (1, 1, 1)


def test_a_dry_run_finds_errors_and_changes_nothing_even_then(learn, tmp_path):
    before = everything(learn, tmp_path)
    with pytest.raises(ZeroDivisionError):
        learn.fit(1, fast_dev_run=True, cbs=Fails("before_validate"))
    assert_same(everything(learn, tmp_path), before)


def test_training_after_a_dry_run_is_as_without(make_learn):
    dry, plain = make_learn(), make_learn()
    dry.fit(3, 0.5, fast_dev_run=True)
    for learn in (dry, plain):
        learn.fit(2)
    assert dry.recorder.losses == plain.recorder.losses


def test_a_dry_run_of_no_epochs_does_nothing(learn):
    assert fit_logged(learn, 0, fast_dev_run=True).train == []


def test_the_learning_rate_finder_runs_its_course_whatever_the_limits(make_learn):
    learn = make_learn(cbs=[StopAfter(3), LimitBatches(1), OverfitBatches(1), ValidateEvery(1)])
    learn.lr_find(num_it=20, show_plot=False, stop_div=False)
    assert len(learn.recorder.lr_finder.lrs) == 20 and math.isfinite(learn.recorder.lr_finder.losses[-1])


# ---- wrong values


@pytest.mark.parametrize("value", [0, -3, 1.5, "2"])
@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("max_steps", "steps={}: the number of steps until the fit ends is a whole number, 1 or more"),
        ("n_batches", "train={}: the number of batches to read, if not all, is a whole number, 1 or more"),
        ("validate_every", "steps={}: the number of steps between validations is a whole number, 1 or more"),
        ("overfit_batches", "n={}: the number of batches to learn by heart is a whole number, 1 or more"),
    ],
)
def test_limits_are_whole_numbers_from_1_on(learn, keyword, message, value):
    with pytest.raises(ValueError, match=message.format(repr(value))):
        learn.fit(1, **{keyword: value})
    assert not learn.recorder.losses


def test_stop_after_needs_to_know_when():
    with pytest.raises(ValueError, match="when is the fit to end"):
        StopAfter()
    for seconds in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"seconds={seconds}: the time until the fit ends, more than 0"):
            StopAfter(seconds=seconds)


def test_the_validations_limit_is_checked_too():
    with pytest.raises(ValueError, match="valid=0: the number of batches to read"):
        LimitBatches(1, 0)
