"""Stopping, saving and slowing down by a result that is set by hand, epoch by epoch."""

import math
import operator
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from warmstart.callbacks import (
    Callback,
    CancelEpoch,
    CancelFit,
    CancelValidate,
    ParamScheduler,
    progress,
    sched_cos,
    trackers,
)
from warmstart.callbacks.averaging import EMA
from warmstart.callbacks.fetch_preds import FetchPreds
from warmstart.callbacks.gradients import GradientAccumulation
from warmstart.callbacks.monitor import Monitor, result_names
from warmstart.callbacks.torch_scheduler import TorchScheduler
from warmstart.callbacks.trackers import EarlyStopping, ReduceLROnPlateau, SaveModel, TerminateOnNaN
from warmstart.learner import accuracy

NAN, INF = math.nan, math.inf


class Results(Callback):
    """Makes `name` the given value in each epoch; None: there is no such value."""

    order = -11  # before the recorder takes it

    def __init__(self, *values, name="valid_loss"):
        self.values, self.name = values, name

    def after_epoch(self, learn):
        learn.results.pop(self.name, None)
        if (value := self.values[learn.epoch]) is not None:
            learn.results[self.name] = value


class Worse(Callback):
    """Keeps how many epochs a callback has counted as no better."""

    order = 91

    def __init__(self, cb):
        self.cb, self.seen = cb, []

    def after_epoch(self, learn):
        self.seen.append(self.cb.monitor.n_worse)


class Weights(Callback):
    """Keeps the weights as they are after each epoch."""

    order = 59

    def __init__(self):
        self.after = []

    def after_epoch(self, learn):
        self.after.append(copied(learn.model.state_dict()))


class FailIn(Callback):
    """Raises an error in the last training batch of an epoch."""

    def __init__(self, epoch, error):
        self.epoch, self.error = epoch, error

    def after_loss(self, learn):
        if learn.training and (learn.epoch, learn.iter) == (self.epoch, 3):
            raise self.error


def copied(state):
    return {name: value.clone() for name, value in state.items()}


def same(state, other):
    return all(torch.equal(state[name], other[name]) for name in state | other)


def n_epochs(learn, *cbs, n=5, name="valid_loss", values=()):
    """How many epochs a fit of `n` had, whose `name` was `values`."""
    learn.fit(n, cbs=[Results(*values, name=name), *cbs])
    return len(learn.recorder.rows)


@pytest.fixture
def learn(make_learn, tmp_path):
    return make_learn(path=tmp_path, metrics=accuracy)


# ---- which way is better


@pytest.mark.parametrize(
    ("name", "smaller_is_better"),
    [
        ("valid_loss", True), ("train_loss", True), ("error_rate", True), ("mean_squared_error", True), ("rmse", True),
        ("exp_rmspe", True), ("MAE", True), ("perplexity", True), ("hamming_loss", True), ("kl_divergence", True),
        ("accuracy", False), ("f1_score", False), ("r2_score", False), ("dice", False), ("matthews_corr_coef", False),
    ],
)  # fmt: skip
def test_names_of_losses_and_errors_are_better_small_and_others_great(name, smaller_is_better, learn):
    monitor = Monitor(name)
    monitor.best = 1.0
    learn.recorder.rows.append({name: 0.5})
    assert monitor.update(learn) == smaller_is_better


@pytest.mark.parametrize("comp", [operator.gt, np.greater, torch.gt, lambda new, best: new > best])
def test_a_comparison_may_be_pythons_numpys_torchs_or_ones_own(learn, comp):
    assert n_epochs(learn, EarlyStopping("valid_loss", comp), values=(0.1, 0.2, 0.30000000001, 0.3, 0.4)) == 4


def test_what_float32_rounds_away_is_no_improvement(learn):
    values = [0.983333333333, 0.983333333333, 0.983333337307, 0.983334, 0.984]
    for sign, comp in {1: operator.gt, -1: operator.lt}.items():
        cb, results = EarlyStopping("accuracy", comp, patience=9), Results(*(sign * v for v in values), name="accuracy")
        learn.fit(5, cbs=[results, cb, counts := Worse(cb)])
        assert counts.seen == [0, 1, 2, 3, 0]


def test_min_delta_is_measured_in_the_direction_of_the_comparison(make_learn):
    smaller = EarlyStopping("valid_loss", min_delta=0.1)
    assert n_epochs(make_learn(), smaller, values=(1.0, 0.8, 0.75, 0.1, 0.1)) == 3
    assert smaller.monitor.best == 0.8
    greater = EarlyStopping("valid_loss", comp=np.greater, min_delta=0.1)
    assert n_epochs(make_learn(), greater, values=(1.0, 1.2, 1.25, 2.0, 2.0)) == 3
    assert greater.monitor.best == 1.2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"comp": "max"}, TypeError, "comp='max': pass a function"),
        ({"comp": np.maximum}, ValueError, "which of the two is better"),
        ({"min_delta": -0.1}, ValueError, "min_delta=-0.1"),
        ({"patience": 0}, ValueError, "patience=0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, error, message):
    for callback in (EarlyStopping, ReduceLROnPlateau):
        with pytest.raises(error, match=message):
            callback("valid_loss", **arguments)


# ---- names


@pytest.mark.parametrize("callback", [EarlyStopping, SaveModel, ReduceLROnPlateau])
def test_a_misspelt_name_is_found_before_training(learn, callback):
    with pytest.raises(ValueError, match="no 'acuracy' to monitor: this fit gives train_loss, valid_loss, accuracy"):
        learn.fit(1, cbs=callback("acuracy"))
    assert not learn.recorder.lrs


def test_without_a_validation_set_only_the_training_loss_can_be_monitored(make_learn):
    learn = make_learn(valid=None, metrics=accuracy)
    learn.fit(2, 0.01, cbs=EarlyStopping("train_loss"))
    assert len(learn.recorder.rows) == 2
    with pytest.raises(ValueError, match="this fit gives train_loss"):
        learn.fit(1, cbs=EarlyStopping("valid_loss"))


class Halves:
    """A metric that computes two numbers."""

    def reset(self): ...
    def update(self, pred, targ): ...
    def compute(self):
        return {"left": 0.25, "right": 0.75}


def test_names_that_only_the_first_epoch_can_tell_are_looked_for_there(make_learn):
    learn = make_learn(metrics=Halves())
    assert result_names(make_learn(metrics=accuracy)) == ["train_loss", "valid_loss", "accuracy"]
    assert result_names(learn) is None
    learn.fit(5, cbs=EarlyStopping("left", patience=2))
    assert len(learn.recorder.rows) == 3
    with pytest.raises(ValueError, match="no 'middle' to monitor: this epoch gave train_loss, valid_loss, left, right"):
        learn.fit(3, cbs=EarlyStopping("middle"))
    assert len(learn.recorder.rows) == 4


class Autoencoder(nn.Linear):
    """A system, which logs what it wants."""

    def training_step(self, batch, batch_idx):
        loss = (self(batch[0]) - batch[0]).square().mean()
        self.log("reconstruction", loss)
        return loss


def test_a_system_logs_what_it_wants(make_learn):
    learn, stop = make_learn(model=Autoencoder(4, 4)), EarlyStopping("reconstruction", comp=np.greater, patience=2)
    learn.fit(5, 0.1, cbs=stop)
    assert len(learn.recorder.rows) == 3
    assert stop.monitor.best == learn.recorder.history["reconstruction"][0]
    with pytest.raises(ValueError, match="no 'reconstructoin' to monitor: this epoch gave train_loss, reconstruction"):
        learn.fit(1, cbs=EarlyStopping("reconstructoin"))


# ---- EarlyStopping


@pytest.mark.parametrize(
    ("patience", "values", "n"),
    [
        (1, (3.0, 2.0, 1.0, 0.9, 0.8), 5),
        (1, (3.0, 2.0, 2.0, 1.0, 0.9), 3),
        (2, (3.0, 3.1, 2.0, 2.1, 2.2), 5),
        (2, (3.0, 3.1, 3.2, 1.0, 0.9), 3),
        (2, (3.0, NAN, NAN, 1.0, 0.9), 3),
        (3, (NAN, INF, 5.0, 4.0, 3.0), 5),
        (2, (3.0, None, 3.1, None, 3.2), 5),  # epochs that were not validated say nothing
    ],
)
def test_a_fit_stops_after_as_many_epochs_without_improvement_as_it_has_patience(learn, patience, values, n):
    assert n_epochs(learn, EarlyStopping(patience=patience), values=values) == n


def test_epochs_without_a_validation_do_not_count(make_learn):
    class EverySecond(Callback):
        def before_validate(self, learn):
            if learn.epoch % 2:
                raise CancelValidate

    class Leave(Callback):
        def before_train(self, learn):
            raise CancelEpoch

    learn = make_learn()
    learn.fit(4, 1e-3, cbs=[EverySecond(), EarlyStopping()])
    learn.fit(2, cbs=[Leave(), EarlyStopping()])
    assert len(learn.recorder.rows) == 6


def test_each_fit_begins_anew(learn):
    stop = EarlyStopping()
    assert n_epochs(learn, stop, values=(1.0, 2.0, 3.0)) == 2
    assert n_epochs(learn, stop, n=3, values=(9.0, 8.0, 7.0)) == 5


def test_everybody_else_sees_the_epoch_in_which_the_fit_stops(learn):
    save, weights = SaveModel("accuracy"), Weights()
    cbs = [EarlyStopping(), save, Results(0.1, 0.9, name="accuracy"), weights]
    assert n_epochs(learn, *cbs, values=(1.0, 2.0)) == 2
    assert save.monitor.best == 0.9 and same(learn.model.state_dict(), weights.after[1])


def test_why_a_fit_stopped_stands_below_the_table(learn, capsys):
    learn.progress.table = True
    n_epochs(learn, EarlyStopping(patience=2), values=(0.5, 0.75, 0.5))
    *table, reason = capsys.readouterr().out.splitlines()
    assert len(table) == 4 and reason == "valid_loss has not improved on 0.5 for 2 epochs: the fit ends early."
    with learn.no_logging():
        n_epochs(learn, EarlyStopping(), values=(NAN,))
    assert capsys.readouterr().out == ""


def test_what_is_said_does_not_run_into_the_moving_line_of_a_terminal(learn, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_richest_display", progress.TerminalDisplay)
    monkeypatch.setattr(progress, "REFRESH", 0)
    learn.progress.bar = learn.progress.table = True
    n_epochs(learn, FetchPreds(), EarlyStopping(), values=(0.5, 0.75))  # predicting draws the line after the row
    *_, reason, end = re.split(r"\n|\r\x1b\[K", capsys.readouterr().out)
    assert reason.startswith("valid_loss has not improved on 0.5") and end == ""


# ---- SaveModel


def test_the_best_model_is_saved_and_loaded_in_the_end(learn):
    weights = Weights()
    learn.fit(4, 0.1, cbs=[Results(3.0, 1.0, 2.0, NAN), weights, SaveModel()])
    assert same(learn.model.state_dict(), weights.after[1]) and not same(weights.after[1], weights.after[3])
    assert same(learn.load("model", with_opt=False).model.state_dict(), weights.after[1])


def test_the_best_model_is_loaded_also_when_a_callback_ends_the_fit(learn):
    weights = Weights()
    cbs = [Results(3.0, 1.0, 2.0, 3.0), weights, SaveModel(fname="best"), EarlyStopping(patience=2)]
    learn.fit(9, 0.1, cbs=cbs)
    assert len(weights.after) == 4 and same(learn.model.state_dict(), weights.after[1])
    learn.fit(4, 0.1, cbs=[Results(3.0, 1.0, 2.0), weights, SaveModel(fname="best"), FailIn(2, CancelFit())])
    assert same(learn.model.state_dict(), weights.after[5])


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()])
def test_a_fit_that_breaks_off_keeps_its_weights_and_leaves_the_file(learn, error):
    weights = Weights()
    with pytest.raises(type(error)):
        learn.fit(4, 0.1, cbs=[Results(1.0, 2.0), weights, SaveModel(), FailIn(2, error)])
    assert not same(learn.model.state_dict(), weights.after[0])
    assert same(learn.load("model", with_opt=False).model.state_dict(), weights.after[0])


def test_a_file_of_an_earlier_run_is_never_loaded(learn):
    learn.save("model")
    before = copied(learn.model.state_dict())
    learn.fit(1, 0.1, cbs=[Results(NAN), SaveModel()])
    assert not same(learn.model.state_dict(), before)
    save = SaveModel()
    learn.fit(1, 0.1, cbs=[Results(1.0), save])
    after = copied(learn.model.state_dict())
    learn.fit(1, 0.1, cbs=[Results(NAN), save])
    assert not same(learn.model.state_dict(), after)


def test_a_second_fit_begins_with_no_best(learn):
    save, weights = SaveModel(), Weights()
    for value in (1.0, 5.0):
        learn.fit(1, 0.1, cbs=[Results(value), weights, save])
    assert same(learn.load("model", with_opt=False).model.state_dict(), weights.after[1])


def test_every_epoch_has_a_file_by_its_number_in_the_history(learn, tmp_path):
    weights, save = Weights(), SaveModel(every_epoch=True)
    learn.fit(2, 0.1, cbs=[weights, save])
    learn.fit(1, 0.1, cbs=[weights, save])
    assert sorted(file.name for file in (tmp_path / "models").iterdir()) == [f"model_{i}.pth" for i in range(3)]
    assert same(learn.model.state_dict(), weights.after[2])
    for epoch, expected in enumerate(weights.after):
        assert same(learn.load(f"model_{epoch}", with_opt=False).model.state_dict(), expected)


def test_files_may_come_every_few_epochs_and_at_the_end(learn, tmp_path):
    learn.fit(5, cbs=SaveModel(every_epoch=2, at_end=True, fname="sub/run.pth"))
    names = sorted(file.name for file in (tmp_path / "models/sub").iterdir())
    assert names == ["run.pth", "run_1.pth", "run_3.pth"]


def test_files_may_end_in_pt(learn, tmp_path):
    learn.fit(2, cbs=[SaveModel(every_epoch=True, fname="v1.2.pt"), SaveModel(fname="best.pt")])
    names = sorted(file.name for file in (tmp_path / "models").iterdir())
    assert names == ["best.pt", "v1.2_0.pt", "v1.2_1.pt"]


def test_at_end_saves_what_the_fit_ends_with(learn):
    weights = Weights()
    learn.fit(3, 0.1, cbs=[Results(1.0, 2.0, 3.0), weights, SaveModel(at_end=True)])
    assert same(learn.model.state_dict(), weights.after[2])
    assert same(learn.load("model", with_opt=False).model.state_dict(), weights.after[2])


@pytest.mark.parametrize("with_opt", [False, True])
def test_the_optimizers_state_is_saved_and_loaded_if_one_says_so(learn, with_opt):
    steps = []

    class Steps(Callback):
        def after_epoch(self, learn):
            steps.append(float(learn.opt.state[learn.model[0].weight]["step"]))

    learn.fit(3, cbs=[Results(2.0, 1.0, 3.0), SaveModel(with_opt=with_opt), Steps()])
    assert steps == [4, 8, 12]
    assert float(learn.opt.state[learn.model[0].weight]["step"]) == (8 if with_opt else 12)
    assert learn.epochs_begun == 3


def test_a_schedules_hyper_parameters_are_not_loaded_with_the_optimizer(make_learn, tmp_path):
    def fitted(*cbs):
        learn = make_learn(path=tmp_path)
        learn.fit_one_cycle(3, 0.1, cbs=[Results(1.0, 2.0, 3.0), *cbs])
        return [{key: group[key] for key in group if key != "params"} for group in learn.opt.param_groups]

    assert fitted(SaveModel(with_opt=True)) == fitted()


def test_averaged_weights_are_what_is_saved(learn):
    weights = Weights()
    learn.fit(3, 0.1, cbs=[Results(2.0, 1.0, 3.0), weights, SaveModel(), EMA(0.5)])
    assert same(learn.model.state_dict(), weights.after[1])


def test_two_that_would_write_to_one_file_are_refused(learn):
    with pytest.raises(ValueError, match="Two SaveModel callbacks write to 'model'"):
        learn.fit(1, cbs=[SaveModel(), SaveModel("accuracy")])
    learn.fit(1, cbs=[SaveModel(), SaveModel("accuracy", fname="accurate"), SaveModel(every_epoch=True)])
    with pytest.raises(ValueError, match="every_epoch=-1"):
        SaveModel(every_epoch=-1)


# ---- ReduceLROnPlateau


def test_the_learning_rate_falls_after_each_plateau(make_learn):
    learn = make_learn()
    learn.fit(6, 0.1, cbs=[Results(3.0, 3.0, 3.0, 2.0, 2.0, 2.0), ReduceLROnPlateau(patience=2, factor=5)])
    assert learn.recorder.lrs[::4] == pytest.approx([0.1, 0.1, 0.1, 0.02, 0.02, 0.02])
    learn.fit(1)
    assert learn.recorder.lrs[-1] == 1e-3


def test_it_does_what_torchs_scheduler_of_that_name_does(make_learn):
    values = (3.0, 2.0, 2.5, 2.1, 1.0, 1.5, 1.2, 1.1, 0.9, 0.8)
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=1, threshold=0.0, min_lr=0.01)
    expected = []
    for value in values:
        expected.append(opt.param_groups[0]["lr"])
        reference.step(value)
    learn = make_learn()
    learn.fit(10, 0.1, cbs=[Results(*values), ReduceLROnPlateau(patience=2, factor=2, min_lr=0.01)])
    assert learn.recorder.lrs[::4] == pytest.approx(expected)


def test_all_layer_groups_are_reduced_and_none_below_its_least(make_learn, capsys):
    learn = make_learn(splitter=lambda model: [list(model[0].parameters()), list(model[2].parameters())])
    learn.progress.table = True
    learn.fit(4, [1e-4, 0.1], cbs=[Results(*[1.0] * 4), ReduceLROnPlateau(factor=10, min_lr=1e-3)])
    assert [group["lr"] for group in learn.opt.param_groups] == pytest.approx([1e-4, 1e-3])
    said = [line for line in capsys.readouterr().out.splitlines() if "improved" in line]
    assert said == [
        f"valid_loss has not improved on 1 for 1 epoch: the learning rate is now {lr}." for lr in (0.01, 0.001)
    ]


def test_schedules_that_would_override_it_are_warned_of(make_learn):
    step = TorchScheduler(lambda opt: torch.optim.lr_scheduler.StepLR(opt, 1))
    with pytest.warns(UserWarning, match=r"TorchScheduler sets the learning rate .* use learn.fit"):
        make_learn().fit(1, cbs=[step, ReduceLROnPlateau()])
    with pytest.warns(UserWarning, match="ParamScheduler sets the learning rate"):
        make_learn().fit_one_cycle(1, cbs=ReduceLROnPlateau())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_learn().fit(1, cbs=[ParamScheduler({"wd": sched_cos(0.1, 0.2)}), ReduceLROnPlateau()])
    with pytest.raises(ValueError, match=r"factor=0\.1"):
        ReduceLROnPlateau(factor=0.1)


# ---- TerminateOnNaN


class Spoil(Callback):
    """Makes the loss of one batch NaN or infinite."""

    def __init__(self, number, epoch=0, iter=2):
        self.number, self.at = number, (epoch, iter)

    def before_batch(self, learn):
        self.weights = copied(learn.model.state_dict())
        if learn.training and (learn.epoch, learn.iter) == self.at:
            learn.xb = (learn.xb[0] * self.number,)


@pytest.mark.parametrize("number", [NAN, INF])
def test_a_loss_that_is_not_finite_ends_the_fit_before_the_weights_take_it_in(learn, number):
    spoil = Spoil(number, epoch=1)
    with pytest.warns(UserWarning, match=r"not finite in batch 2 of epoch 1, at a learning rate of 0.01"):
        learn.fit(3, 0.01, cbs=[spoil, TerminateOnNaN()])
    assert len(learn.recorder.rows) == 1 and len(learn.recorder.lrs) == 4 + 3
    assert same(learn.model.state_dict(), spoil.weights)
    learn.fit(1)
    assert math.isfinite(learn.recorder.rows[-1]["train_loss"])


def test_every_batch_of_an_accumulated_step_is_looked_at(learn):
    before = copied(learn.model.state_dict())
    with pytest.warns(UserWarning, match="batch 2 of epoch 0"):
        learn.fit(1, cbs=[Spoil(NAN), GradientAccumulation(32), TerminateOnNaN()])
    assert same(learn.model.state_dict(), before)


def test_a_validation_loss_may_be_what_it_is(learn):
    class SpoilValidation(Callback):
        def before_batch(self, learn):
            if not learn.training:
                learn.xb = (learn.xb[0] * NAN,)

    learn.fit(2, cbs=[SpoilValidation(), TerminateOnNaN()])
    assert len(learn.recorder.rows) == 2


def test_on_an_accelerator_the_loss_is_waited_for_when_the_backward_pass_is_under_way(learn, monkeypatch):
    log = []

    class Event:
        def __init__(self, device):
            log.append("recorded")

        def synchronize(self):
            log.append("arrived")

    class Watch(Callback):
        order = 61

        def before_backward(self, learn):
            log.append("backward")

        def before_step(self, learn):
            log.append("step")

    monkeypatch.setattr(trackers, "_event", Event)
    learn.fit(1, cbs=[Watch(), TerminateOnNaN()])
    assert log == ["recorded", "backward", "arrived", "step"] * 4


def test_trying_out_leaves_them_all_out(learn, tmp_path):
    learn.add_cbs([SaveModel(every_epoch=True), EarlyStopping("accuracy"), ReduceLROnPlateau(), TerminateOnNaN()])
    learn.lr_find(show_plot=False)
    learn.fit(1, fast_dev_run=True)
    assert not list(tmp_path.iterdir())
