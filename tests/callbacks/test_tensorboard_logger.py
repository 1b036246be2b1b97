"""What TensorBoard finds in its folder, by its own reader."""

import sys

import pytest
import torch
from torch import nn
from warmstart.callbacks import Callback
from warmstart.callbacks.tensorboard_logger import TensorBoardLogger
from warmstart.learner import accuracy

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture
def learn(make_learn, tmp_path):
    return make_learn(path=tmp_path, metrics=accuracy)


def events(folder):
    return accumulator.EventAccumulator(str(folder), {accumulator.TENSORS: 0, accumulator.IMAGES: 0}).Reload()


def scalars(folder):
    """By name, the steps and values."""
    found = events(folder)
    named = {name: found.Scalars(name) for name in found.Tags()["scalars"]}
    return {name: ([e.step for e in points], [e.value for e in points]) for name, points in named.items()}


def assert_holds(found, learn, first_step=1, first_epoch=0):
    """That steps and epochs from those on are all that was found, in single precision."""
    recorder = learn.recorder
    expected = {name: getattr(recorder, f"{name}{'e' * (name == 'loss')}s") for name in ("loss", "lr", "mom")}
    for name, values in expected.items():
        assert found[name][0] == list(range(first_step, len(values) + 1))
        assert found[name][1] == pytest.approx(values[first_step - 1 :], rel=1e-6)
    history = recorder.history[first_epoch:]
    for name in history:
        assert found[name][0] == recorder.epoch_ends[first_epoch:]
        assert found[name][1] == pytest.approx(history[name].tolist(), rel=1e-6)
    assert set(found) == {*expected, *history}


def test_steps_and_epochs_are_scalars(learn, tmp_path):
    learn.fit_one_cycle(2, 0.1, cbs=TensorBoardLogger("logs"))
    assert_holds(scalars(tmp_path / "logs"), learn)


def test_hyper_parameters_are_a_table_in_a_text(learn, tmp_path):
    learn.fit(1, 0.1, cbs=TensorBoardLogger("logs"))
    (event,) = events(tmp_path / "logs").Tensors("hyper-parameters/text_summary")
    lines = event.tensor_proto.string_val[0].decode().splitlines()
    assert lines[:2] == ["| name | value |", "|-|-|"] and "| lr | 0.1 |" in lines and "| opt | AdamW |" in lines


def test_each_fit_has_a_folder_of_its_own_and_steps_go_on(learn, tmp_path):
    learn.add_cb(TensorBoardLogger())
    learn.fit(1)
    learn.fit(1)
    first, second = sorted((tmp_path / "runs").iterdir(), key=lambda folder: folder.name)
    assert scalars(first)["loss"][0] == [1, 2, 3, 4]
    assert_holds(scalars(second), learn, first_step=5, first_epoch=1)


def test_fits_that_are_given_a_folder_share_it(learn, tmp_path):
    for _ in range(2):
        learn.fit(1, cbs=TensorBoardLogger(tmp_path / "logs"))
    assert_holds(scalars(tmp_path / "logs"), learn)


def test_a_learner_that_begins_anew_in_a_folder_hides_the_old_run(make_learn, tmp_path):
    for n in (3, 2):
        learn = make_learn(path=tmp_path)
        learn.fit(n, cbs=TensorBoardLogger("logs"))
    assert_holds(scalars(tmp_path / "logs"), learn)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_fit_that_breaks_off_leaves_what_it_has(learn, tmp_path, error):
    class Fail(Callback):
        def before_step(self, learn):
            if (learn.epoch, learn.iter) == (1, 2):
                raise error

    with pytest.raises(error):
        learn.fit(3, cbs=[logger := TensorBoardLogger("logs"), Fail()])
    found = scalars(tmp_path / "logs")
    assert found["loss"][1] == pytest.approx(learn.recorder.losses, rel=1e-6) and len(found["loss"][0]) == 7
    assert found["epoch"] == ([4], [0.0])
    assert logger.writer.file_writer is None  # it is closed


# ---- pictures


def test_predictions_are_images(make_picture_learn, tmp_path):
    learn = make_picture_learn()
    learn.fit(2, cbs=TensorBoardLogger("logs", log_preds="epoch"))
    images = events(tmp_path / "logs").Images("predictions")
    assert [image.step for image in images] == [3, 6]
    assert all(image.encoded_image_string.startswith(b"\x89PNG") for image in images)


def test_the_graph_is_logged_without_a_trace_in_the_training(make_learn, tmp_path):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))

    plain, logged = (make_learn(path=tmp_path, model=model()) for _ in range(2))
    torch.manual_seed(1)
    plain.fit(1)
    torch.manual_seed(1)
    logged.fit(1, cbs=TensorBoardLogger("logs", log_graph=True))
    nodes = {node.name for node in events(tmp_path / "logs").Graph().node}
    assert any("Linear[3]" in name for name in nodes)
    state = plain.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in logged.model.state_dict().items())


def test_a_model_that_cannot_be_traced_is_trained_all_the_same(make_learn, tmp_path, capsys):
    class Odd(nn.Linear):
        def forward(self, x):
            assert not torch.jit.is_tracing(), "no"
            return super().forward(x)

    with pytest.warns(UserWarning, match="cannot be traced, so TensorBoard gets no graph"):
        make_learn(path=tmp_path, model=Odd(4, 3)).fit(1, cbs=TensorBoardLogger("logs", log_graph=True))
    assert len(scalars(tmp_path / "logs")["loss"][0]) == 4


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'needs TensorBoard: `pip install "warmstart\[track\]"`'):
        TensorBoardLogger()
