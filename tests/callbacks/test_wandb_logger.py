"""What Weights & Biases writes when it is offline, read from its own records."""

import json
import struct
import sys
import time

import pytest
from warmstart.callbacks import Callback
from warmstart.callbacks.wandb_logger import WandbLogger
from warmstart.learner import accuracy

from .conftest import HandOver

wandb = pytest.importorskip("wandb")


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """Runs are written to a temporary folder, and nowhere else; one process of the tool serves all tests."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            patch.setenv(name, str(folder))
        for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}.items():
            patch.setenv(name, value)
        yield folder
        wandb.teardown()


@pytest.fixture
def new_runs(offline):
    """The runs that were written since the test began, in order."""
    before = set(offline.glob("wandb/offline-run-*"))

    def read():
        runs = [Run(folder) for folder in set(offline.glob("wandb/offline-run-*")) - before]
        return sorted(runs, key=lambda run: run.began)

    yield read
    if wandb.run is not None:
        wandb.finish()


class Run:
    """A run as its file has it: config, history, exit code."""

    def __init__(self, folder):
        self.folder, self.config, self.history, self.axes, self.artifacts = folder, {}, [], {}, []
        for record in records(folder):
            kind = record.WhichOneof("record_type")
            getattr(self, f"note_{kind}", lambda content: None)(getattr(record, kind))

    def note_run(self, run):
        self.project, self.name, self.began = run.project, run.display_name, run.start_time.ToNanoseconds()
        self.run_id = run.run_id
        self.config |= values(run.config.update)

    def note_config(self, config):
        self.config |= values(config.update)

    def note_history(self, history):
        row = values(history.item)
        self.history.append({name: value for name, value in row.items() if not name.startswith("_")})

    def note_metric(self, metric):
        self.axes[metric.name] = metric.step_metric

    def note_artifact(self, artifact):
        self.artifacts.append(artifact)

    def note_request(self, request):
        if request.HasField("log_artifact"):
            self.artifacts.append(request.log_artifact.artifact)

    def note_exit(self, exit):
        self.exit_code = exit.exit_code


def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def records(folder, patience=10.0):
    """The records of a run's file, to the last: W&B says that it has finished somewhat before they are written."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = [Record.FromString(data) for data in chunks(file.read_bytes())]
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.01)
    raise TimeoutError(f"{file} has no end.")


def chunks(data):
    """The records of a file in LevelDB's log format: blocks of 32 KiB of pieces (checksum, length, kind, bytes)."""
    position, record = 7, b""  # after W&B's own header
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield record
            record = b""


@pytest.fixture
def learn(make_learn, tmp_path):
    return make_learn(path=tmp_path, metrics=accuracy)


def assert_holds(history, learn, first_step=1, first_epoch=0):
    """That steps and epochs from those on are all that the history has."""
    recorder = learn.recorder
    columns = (range(1, 1 + len(recorder.lrs)), recorder.losses, recorder.lrs, recorder.moms)
    steps = [dict(zip(("step", "loss", "lr", "mom"), row, strict=True)) for row in zip(*columns, strict=True)]
    epochs = [{"step": end, **row} for end, row in zip(recorder.epoch_ends, recorder.rows, strict=True)]
    assert [row for row in history if "loss" in row] == steps[first_step - 1 :]
    assert [row for row in history if "epoch" in row] == epochs[first_epoch:]


def test_a_fit_is_a_run_with_config_and_history(learn, new_runs):
    learn.fit_one_cycle(2, 0.1, cbs=WandbLogger("pets", "first"))
    (run,) = new_runs()
    assert (run.project, run.name, run.exit_code) == ("pets", "first", 0) and wandb.run is None
    assert run.config["lr"] == 0.1 and run.config["n_epoch"] == 2 and run.config["metrics"] == ["accuracy"]
    assert_holds(run.history, learn)
    assert {run.axes[name] for name in ("loss", "lr", "valid_loss", "accuracy")} == {"step"}


def test_a_second_fit_is_a_second_run_and_steps_go_on(learn, new_runs):
    learn.add_cb(WandbLogger())
    learn.fit(1)
    learn.fit(1)
    first, second = new_runs()
    assert [row["step"] for row in first.history] == [1, 2, 3, 4, 4]
    assert_holds(second.history, learn, first_step=5, first_epoch=1)


def test_the_run_that_is_open_gets_all_fits_and_stays_open(learn, new_runs):
    with wandb.init(config={"lr": "mine"}) as run:
        learn.fit(1, 0.1, cbs=WandbLogger("ignored"))
        learn.fit(1, 0.2, cbs=WandbLogger())
        assert wandb.run is run
    (found,) = new_runs()
    assert_holds(found.history, learn)
    assert (found.config["lr"], found.config["fit2/lr"], found.config["fit3/lr"]) == ("mine", 0.1, 0.2)


def test_a_fit_that_breaks_off_finishes_its_run_as_failed(learn, new_runs):
    class Fail(Callback):
        def before_step(self, learn):
            if (learn.epoch, learn.iter) == (1, 2):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        learn.fit(3, cbs=[WandbLogger(), Fail()])
    (run,) = new_runs()
    assert run.exit_code == 1 and wandb.run is None
    assert_holds(run.history, learn)


def test_a_fit_that_resumes_goes_on_with_its_run(learn, new_runs):
    cb = HandOver(lambda: WandbLogger("pets"), epoch=1, before_that=lambda old, learn: old.close(failed=True))
    learn.fit(3, cbs=[cb, cb.taker])
    first, second = new_runs()
    assert first.run_id == second.run_id and second.exit_code == 0 and "lr" not in second.config
    assert_holds(first.history + second.history, learn)


def test_predictions_are_images_and_weights_an_artifact(make_picture_learn, tmp_path, new_runs):
    learn = make_picture_learn()
    learn.fit(1, cbs=WandbLogger(log_model=True))
    (run,) = new_runs()
    (row,) = [row for row in run.history if "predictions/path" in row]
    assert row["step"] == 3 and (run.folder / "files" / row["predictions/path"]).is_file()
    (artifact,) = run.artifacts
    assert artifact.type == "model" and [entry.path for entry in artifact.manifest.contents] == ["model.pth"]


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r'needs Weights & Biases: `pip install "warmstart\[track\]"`'):
        WandbLogger()
