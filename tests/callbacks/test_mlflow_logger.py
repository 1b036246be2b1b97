"""What MLflow has in its store, by its own client."""

import logging
import os
import sys

import pytest
import torch
from warmstart.callbacks import Callback
from warmstart.callbacks.mlflow_logger import MLflowLogger
from warmstart.callbacks.run_logger import run_params
from warmstart.learner import accuracy

from .conftest import HandOver

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # which it reads when it is imported
mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The store of all tests, a database in a temporary folder; making it takes a second."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri, before = f"sqlite:///{folder}/runs.db", mlflow.get_tracking_uri()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    yield uri
    mlflow.set_tracking_uri(before)


@pytest.fixture
def experiment(store, tmp_path, request):
    """The name of an experiment for one test."""
    mlflow.MlflowClient(store).create_experiment(request.node.name, artifact_location=tmp_path.as_uri())
    yield request.node.name
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def learn(make_learn, tmp_path):
    return make_learn(path=tmp_path, metrics=accuracy)


def runs(store, experiment):
    """Its runs, in order."""
    client = mlflow.MlflowClient(store)
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])


def assert_holds(store, run, learn, first_step=1, first_epoch=0):
    """That steps and epochs from those on are all that the run has."""
    client, recorder = mlflow.MlflowClient(store), learn.recorder
    numbers, ends = range(first_step, 1 + len(recorder.lrs)), recorder.epoch_ends[first_epoch:]
    expected = {
        name: list(zip(numbers, values[first_step - 1 :], strict=True))
        for name, values in {"loss": recorder.losses, "lr": recorder.lrs, "mom": recorder.moms}.items()
    }
    history = recorder.history[first_epoch:]
    expected |= {name: list(zip(ends, history[name], strict=True)) for name in history}
    found = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert {name: [(m.step, m.value) for m in values] for name, values in found.items()} == expected


def test_a_fit_is_a_run_with_parameters_and_metrics(learn, store, experiment):
    class Ask(Callback):
        def before_fit(self, learn):
            self.params = {name: str(value) for name, value in run_params(learn).items()}

    learn.fit_one_cycle(2, 0.1, cbs=[MLflowLogger(experiment, "first", store), ask := Ask()])
    (run,) = runs(store, experiment)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED") and mlflow.active_run() is None
    assert run.data.params == ask.params and run.data.params["lr"] == "0.1"
    assert_holds(store, run, learn)


def test_a_second_fit_is_a_second_run_and_steps_go_on(learn, store, experiment):
    learn.add_cb(MLflowLogger(experiment, tracking_uri=store))
    learn.fit(1)
    learn.fit(1)
    _, second = runs(store, experiment)
    assert_holds(store, second, learn, first_step=5, first_epoch=1)


def test_the_run_that_is_active_gets_all_fits_and_stays_active(learn, store, experiment):
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment(experiment)
    with mlflow.start_run() as active:
        learn.fit(1, 0.1, cbs=MLflowLogger())
        learn.fit(1, 0.2, cbs=MLflowLogger())
        assert mlflow.active_run() is active
    (run,) = runs(store, experiment)
    assert (run.data.params["lr"], run.data.params["fit2/lr"]) == ("0.1", "0.2")
    assert_holds(store, run, learn)


def test_a_fit_that_breaks_off_ends_its_run_as_failed(learn, store, experiment):
    class Fail(Callback):
        def before_step(self, learn):
            if (learn.epoch, learn.iter) == (1, 2):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        learn.fit(3, cbs=[MLflowLogger(experiment, tracking_uri=store), Fail()])
    (run,) = runs(store, experiment)
    assert run.info.status == "FAILED" and mlflow.active_run() is None
    assert_holds(store, run, learn)


def test_a_fit_that_resumes_goes_on_with_its_run(learn, store, experiment):
    def make():
        return MLflowLogger(experiment, tracking_uri=store)

    cb = HandOver(make, epoch=1, before_that=lambda old, learn: old.close(failed=True))
    learn.fit(3, cbs=[cb, cb.taker])
    (run,) = runs(store, experiment)
    assert run.info.status == "FINISHED" and not any("fit2" in name for name in run.data.params)
    assert_holds(store, run, learn)
    learn.fit(1, cbs=cb.cb)
    assert len(runs(store, experiment)) == 2


def test_a_fit_that_resumes_in_an_active_run_takes_that(learn, store, experiment):
    def another(old, learn):
        old.close(failed=True)
        mlflow.start_run()

    cb = HandOver(lambda: MLflowLogger(experiment, tracking_uri=store), epoch=1, before_that=another)
    learn.fit(3, 0.1, cbs=[cb, cb.taker])
    first, second = runs(store, experiment)
    assert first.data.params["lr"] == second.data.params["lr"] == "0.1"
    assert_holds(store, second, learn, first_step=9, first_epoch=2)


def test_long_blocks_and_long_values_are_taken_too(make_learn, store, experiment):
    learn = make_learn(train=(1,) * 400, valid=None)

    class Long(Callback):
        def __repr__(self):
            return "long" * 5000

    learn.fit(1, cbs=[MLflowLogger(experiment, tracking_uri=store, every=1000), Long()])
    (run,) = runs(store, experiment)
    assert_holds(store, run, learn)
    assert len(run.data.params["callbacks"]) == 500


def test_predictions_and_weights_are_artifacts(make_picture_learn, tmp_path, store, experiment):
    learn = make_picture_learn()
    learn.fit(1, cbs=MLflowLogger(experiment, tracking_uri=store, log_model=True))
    (run,) = runs(store, experiment)
    client = mlflow.MlflowClient(store)
    assert [a.path for a in client.list_artifacts(run.info.run_id, "predictions")] == ["predictions/step-000003.png"]
    learn.model[0].bias.data.zero_()
    learn.load(client.download_artifacts(run.info.run_id, "model.pth", str(tmp_path)), with_opt=False)
    assert torch.any(learn.model[0].bias != 0)


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r'needs MLflow: `pip install "warmstart\[track\]"`'):
        MLflowLogger()
