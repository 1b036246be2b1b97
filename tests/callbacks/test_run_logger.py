"""What every logger is told, and when."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn
from warmstart.callbacks import Callback
from warmstart.callbacks.gradients import GradientClip
from warmstart.callbacks.run_logger import RunLogger, new_names, run_params
from warmstart.callbacks.trackers import EarlyStopping, SaveModel
from warmstart.learner import accuracy

from .conftest import FailIn


class Notes(RunLogger):
    """Writes down what it is told."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events, self.rows, self.figures, self.files = [], [], [], []

    def open(self, learn):
        self.events.append("open")

    def log_params(self, params):
        self.params = params

    def log_rows(self, rows):
        self.events.append(len(rows))
        self.rows += rows

    def log_figure(self, name, figure, step):
        self.figures.append((name, len(figure.axes), step))

    def log_file(self, file):
        self.files.append(torch.load(file, weights_only=True)["model"])

    def close(self, failed):
        self.events.append("failed" if failed else "done")


@pytest.fixture
def picture_learn(make_picture_learn):
    return make_picture_learn()


def split(rows):
    """Rows of steps, and rows of epochs."""
    return [row for row in rows if "loss" in row], [row for row in rows if "epoch" in row]


def test_steps_and_epochs_are_told_as_they_were_recorded(make_learn):
    learn, notes = make_learn(metrics=accuracy), Notes()
    learn.fit_one_cycle(2, 0.1, cbs=notes)
    steps, epochs = split(notes.rows)
    recorder = learn.recorder
    expected = zip(range(1, 9), recorder.losses, recorder.lrs, recorder.moms, strict=True)
    assert [(row["step"], row["loss"], row["lr"], row["mom"]) for row in steps] == list(expected)
    assert epochs == [{"step": 4, **recorder.rows[0]}, {"step": 8, **recorder.rows[1]}]


def test_steps_are_told_in_blocks_so_that_the_device_is_not_waited_for(make_learn):
    learn, notes = make_learn(train=(8,) * 10), Notes(every=4)
    learn.fit(2, cbs=notes)
    assert notes.events == ["open", 4, 4, 2, 1, 4, 4, 2, 1, "done"]
    assert [row["step"] for row in split(notes.rows)[0]] == list(range(1, 21))


def test_validations_within_an_epoch_are_told_at_once(make_learn):
    learn, notes = make_learn(train=(8,) * 5), Notes()
    learn.fit(1)
    learn.fit(1, cbs=notes, validate_every=2)
    assert notes.events == ["open", 2, 1, 2, 1, 1, 1, "done"]
    _, (first, second, last) = split(notes.rows)
    assert (first["step"], second["step"], last["step"]) == (7, 9, 10)
    assert [row["valid_loss"] for row in (first, second)] == learn.recorder.step_history["valid_loss"].tolist()


def test_steps_go_on_from_fit_to_fit(make_learn):
    learn, notes = make_learn(), Notes()
    learn.fit(1)
    learn.add_cb(notes)
    learn.fit(1)
    learn.lr_find(show_plot=False)
    learn.fit(1)
    steps, epochs = split(notes.rows)
    assert [row["step"] for row in steps] == list(range(5, 13))
    assert [(row["step"], row["epoch"]) for row in epochs] == [(8, 1), (12, 2)]
    assert notes.events == ["open", 4, 1, "done"] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_fit_that_breaks_off_tells_what_it_has_and_closes_the_run(make_learn, error):
    learn, notes = make_learn(), Notes()
    with pytest.raises(error):
        learn.fit(3, cbs=[notes, FailIn(1, error())])
    assert notes.events == ["open", 4, 1, 3, "failed"]
    assert [row["loss"] for row in split(notes.rows)[0]] == learn.recorder.losses
    learn.fit(1, cbs=notes)
    assert notes.events[5:] == ["open", 4, 1, "done"]


def test_a_run_is_closed_also_when_its_logger_fails(make_learn):
    class Full(Notes):
        def log_rows(self, rows):
            raise OSError("no space left")

    learn, notes = make_learn(), Full()
    with pytest.raises(OSError, match="no space left"):
        learn.fit(1, cbs=notes)
    assert notes.events == ["open", "failed"]


def test_a_run_that_never_began_is_not_closed(make_learn):
    class Early(Callback):
        def before_fit(self, learn):
            raise ZeroDivisionError

    notes = Notes()
    with pytest.raises(ZeroDivisionError):
        make_learn().fit(1, cbs=[Early(), notes])
    assert notes.events == []


def test_a_fit_that_a_callback_ends_is_done(make_learn):
    learn, notes = make_learn(), Notes()
    learn.fit(9, 0.0, cbs=[EarlyStopping(), notes])
    assert notes.events == ["open", 4, 1, 4, 1, "done"]


def test_the_weights_are_those_that_the_fit_ends_with(make_learn, tmp_path):
    learn, notes = make_learn(path=tmp_path), Notes(log_model=True)
    learn.fit(2, 0.01, cbs=[SaveModel(comp=np.greater), notes])  # the first is the best, as losses fall
    (state,) = notes.files
    assert all(torch.equal(state[name], value) for name, value in learn.model.state_dict().items())


# ---- hyper-parameters


def test_hyper_parameters_are_those_of_the_fit(make_learn):
    learn, notes = make_learn(metrics=accuracy, wd=0.02), Notes()
    learn.fit_one_cycle(3, 0.1, cbs=[GradientClip(), notes])
    assert notes.params == {
        "n_epoch": 3, "lr": 0.1, "wd": 0.02, "opt": "AdamW", "loss": "CrossEntropyLoss", "model": "Sequential",
        "n_params": 4 * 8 + 8 + 8 * 3 + 3, "n_trainable": 67, "metrics": ["accuracy"],
        "callbacks": ["ParamScheduler", "GradientClip", "Notes"], "device": "cpu",
    }  # fmt: skip


def test_each_layer_group_has_its_learning_rate_and_a_frozen_one_no_trainable_parameters(make_learn):
    class Ask(Callback):
        def before_fit(self, learn):
            self.params = run_params(learn)

    def groups(model):
        return [list(model[0].parameters()), list(model[2].parameters())]

    learn, ask = make_learn(splitter=groups, wd_bn_bias=False, loss_func=nn.functional.cross_entropy), Ask()
    learn.freeze()
    learn.fit(1, slice(1e-3, 1e-1), cbs=ask)
    assert ask.params["lr"] == pytest.approx([1e-3, 1e-1]) and ask.params["wd"] == 0.01
    assert ask.params["n_trainable"] == 27 and ask.params["loss"] == "cross_entropy"


def test_a_second_fit_in_one_run_has_names_of_its_own():
    params = {"lr": 0.1, "wd": 0.0}
    assert new_names(params, {}) == params
    assert new_names(params, {"lr": 1}) == {"fit2/lr": 0.1, "fit2/wd": 0.0}
    assert new_names(params, {"lr": 1, "fit2/lr": 2}) == {"fit3/lr": 0.1, "fit3/wd": 0.0}


@pytest.mark.parametrize("arguments", [{"log_preds": "batch"}, {"every": 0}])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}="):
        Notes(**arguments)


# ---- predictions


def test_predictions_are_drawn_when_a_fit_ends_and_nobody_sees_the_figures(picture_learn):
    plt.figure()
    learn, notes = picture_learn, Notes(n_preds=4)
    learn.fit(2, cbs=notes)
    assert notes.figures == [("predictions", 4, 6)] and len(plt.get_fignums()) == 1
    notes = Notes(log_preds="epoch", n_preds=2)
    learn.fit(2, cbs=notes)
    assert notes.figures == [("predictions", 2, 9), ("predictions", 2, 12)]
    notes = Notes(log_preds=False)
    learn.fit(1, cbs=notes)
    assert notes.figures == [] and len(plt.get_fignums()) == 1


def test_data_without_pictures_has_none_of_predictions(make_learn, capsys):
    learn, notes = make_learn(), Notes(log_preds="epoch")
    learn.fit(1, cbs=notes)
    assert notes.figures == [] and capsys.readouterr().out == ""


def test_a_fit_does_not_fail_where_predictions_cannot_be_drawn(picture_learn, monkeypatch):
    def fail(max_n):
        plt.figure()
        raise RuntimeError("three outputs")

    learn, notes = picture_learn, Notes()
    monkeypatch.setattr(learn, "show_results", fail)
    with pytest.warns(UserWarning, match="Notes logged no predictions: show_results failed. three outputs"):
        learn.fit(1, cbs=notes)
    assert notes.events == ["open", 3, 1, "done"] and not plt.get_fignums()


def test_logging_does_not_change_the_training(make_picture_learn):
    class NoNotes(Callback): ...

    states = []
    for cb in (NoNotes(), Notes(log_preds="epoch", log_model=True, every=1)):
        learn = make_picture_learn(nn.Dropout(0.5))
        learn.fit(2, cbs=cb)
        states.append(learn.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
