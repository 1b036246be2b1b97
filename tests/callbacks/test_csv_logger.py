"""History in files, read back with pandas."""

import json

import pandas as pd
import pytest
from warmstart.callbacks import Callback, CancelValidate
from warmstart.callbacks.csv_logger import CSVLogger
from warmstart.callbacks.trackers import EarlyStopping
from warmstart.learner import accuracy

from .conftest import FailIn


@pytest.fixture
def learn(make_learn, tmp_path):
    return make_learn(path=tmp_path, metrics=accuracy)


def read(file):
    """The table in a file, each number by Python's own reading of it, which is exact."""
    return pd.read_csv(file, dtype=str).map(float)


def history(learn, lrs):
    """What the file should hold."""
    return learn.recorder.history.assign(lr=lrs).astype(float)


def steps(learn):
    recorder = learn.recorder
    numbers = range(1, 1 + len(recorder.lrs))
    table = pd.DataFrame({"step": numbers, "loss": recorder.losses, "lr": recorder.lrs, "mom": recorder.moms})
    return table.astype(float)


def same(file, expected):
    pd.testing.assert_frame_equal(read(file), expected, check_exact=True)
    return True


def test_each_epoch_is_a_row_in_full_precision(learn, tmp_path):
    learn.fit_one_cycle(2, 0.1, cbs=CSVLogger())
    expected = history(learn, [learn.recorder.lrs[3], learn.recorder.lrs[7]])
    assert list(expected) == ["epoch", "train_loss", "valid_loss", "accuracy", "time", "lr"]
    assert same(tmp_path / "history.csv", expected)


def test_steps_and_hyper_parameters_stand_beside_it(learn, tmp_path):
    learn.fit_one_cycle(2, 0.1, cbs=CSVLogger("logs/run.csv"))
    assert same(tmp_path / "logs/run.steps.csv", steps(learn))
    (params,) = json.loads((tmp_path / "logs/run.json").read_text())
    assert params["n_epoch"] == 2 and params["lr"] == 0.1 and params["opt"] == "AdamW"


def test_or_the_history_is_alone(learn, tmp_path):
    learn.fit(1, cbs=CSVLogger("run.csv", with_steps=False))
    assert [file.name for file in tmp_path.iterdir()] == ["run.csv"]


def test_the_file_is_complete_after_each_epoch(learn, tmp_path):
    lengths = []

    class Read(Callback):
        order = 99

        def after_epoch(self, learn):
            lengths.append((len(read(tmp_path / "history.csv")), len(read(tmp_path / "history.steps.csv"))))

    learn.fit(3, cbs=[CSVLogger(), Read()])
    assert lengths == [(1, 4), (2, 8), (3, 12)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_fit_leaves_what_it_has_done(learn, tmp_path, error):
    with pytest.raises(error):
        learn.fit(3, cbs=[CSVLogger(), FailIn(1, error())])
    assert same(tmp_path / "history.csv", history(learn, [1e-3]))
    assert len(learn.recorder.losses) == 4 + 3
    assert same(tmp_path / "history.steps.csv", steps(learn))


def test_a_fit_that_is_stopped_has_its_last_epoch_too(learn, tmp_path):
    learn.fit(9, 0.0, cbs=[EarlyStopping(patience=2), CSVLogger()])
    assert len(read(tmp_path / "history.csv")) == 3


def test_all_fits_with_one_logger_go_into_one_file(learn, tmp_path):
    learn.add_cb(CSVLogger())
    learn.fit(1)
    learn.lr_find(show_plot=False)
    learn.fit(2, 0.1)
    expected = history(learn, [1e-3, 0.1, 0.1])
    assert same(tmp_path / "history.csv", expected)
    assert same(tmp_path / "history.steps.csv", steps(learn))
    assert [fit["n_epoch"] for fit in json.loads((tmp_path / "history.json").read_text())] == [1, 2]


def test_steps_of_an_earlier_fit_are_not_told(learn, tmp_path):
    learn.fit(1)
    learn.fit(1, cbs=CSVLogger())
    assert read(tmp_path / "history.steps.csv")["step"].tolist() == [5, 6, 7, 8]
    assert read(tmp_path / "history.csv")["epoch"].tolist() == [1]


def test_a_fit_that_never_begins_writes_nothing(learn, tmp_path):
    class Early(Callback):
        def before_fit(self, learn):
            raise ZeroDivisionError

    learn.fit(1)
    with pytest.raises(ZeroDivisionError):
        learn.fit(1, cbs=[Early(), CSVLogger()])
    assert not list(tmp_path.iterdir())


def test_another_logger_begins_the_files_anew(make_learn, tmp_path):
    for n in (3, 2):
        learn = make_learn(path=tmp_path)
        learn.fit(n, cbs=CSVLogger())
    assert same(tmp_path / "history.csv", history(learn, [1e-3] * 2))
    assert same(tmp_path / "history.steps.csv", steps(learn))


def test_append_goes_on_with_what_the_files_hold(make_learn, tmp_path):
    parts = []
    for _ in range(2):
        learn = make_learn(path=tmp_path, metrics=accuracy)
        learn.fit(2, cbs=CSVLogger(append=True))
        parts.append((history(learn, [1e-3] * 2), steps(learn)))
    for name, tables in zip(("history.csv", "history.steps.csv"), zip(*parts, strict=True), strict=True):
        expected = pd.concat(tables, ignore_index=True)
        assert same(tmp_path / name, expected)
    assert len(json.loads((tmp_path / "history.json").read_text())) == 2


def test_appending_to_other_columns_is_refused_before_training(make_learn, tmp_path):
    make_learn(path=tmp_path, metrics=accuracy).fit(1, cbs=CSVLogger())
    before = (tmp_path / "history.csv").read_text()
    learn = make_learn(path=tmp_path)
    with pytest.raises(
        ValueError, match=r"has the columns epoch, .* accuracy, time, lr; this fit has epoch, train_loss"
    ):
        learn.fit(1, cbs=CSVLogger(append=True))
    logger = CSVLogger(append=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="Give it another fname"):
            learn.fit(1, cbs=logger)
    assert (tmp_path / "history.csv").read_text() == before and not learn.recorder.lrs


def test_an_epoch_without_a_validation_leaves_its_cells_empty_and_later_columns_find_their_place(learn, tmp_path):
    class EverySecond(Callback):
        def before_validate(self, learn):
            if learn.epoch % 2 == 0:
                raise CancelValidate

    learn.fit(3, cbs=[EverySecond(), CSVLogger()])
    table = read(tmp_path / "history.csv")
    assert table["valid_loss"].isna().tolist() == [True, False, True]
    assert table["accuracy"][1] == learn.recorder.rows[1]["accuracy"]
