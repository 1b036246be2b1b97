"""A fit that stopped, however it did, goes on to the same weights when the same script is run again."""

import json
import multiprocessing
import os
import signal
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from warmstart.callbacks import (
    EMA,
    SWA,
    Callback,
    CSVLogger,
    EarlyStopping,
    GradientAccumulation,
    GradientClip,
    MixedPrecision,
    MixUp,
    ReduceLROnPlateau,
    SaveModel,
    StopAfter,
    TorchScheduler,
    Unfreeze,
    ValidateEvery,
)
from warmstart.data import DataBunch
from warmstart.learner import Checkpoint, Learner, accuracy, launch, set_seed
from warmstart.learner.files import FileError, WriteError

pytestmark = pytest.mark.filterwarnings("ignore:EMA", "ignore:This CPU has no")


PLAN = SimpleNamespace(where=None, how=None)  # apart from the callback, whose code is part of the recipe


class Crash(Callback):
    """Ends the run, or the process, at a place that is planned: (fit, epoch, batch), counted from 0."""

    order = 99  # when the checkpoint has been written, if it was

    def after_batch(self, learn):
        if learn.training and (learn.fits_done, learn.epoch, learn.iter) == PLAN.where:
            PLAN.how()


@contextmanager
def crashing(where, how=lambda: 1 / 0):
    """Inside, a `Crash` happens there."""
    PLAN.where, PLAN.how = where, how
    try:
        yield
    finally:
        PLAN.where = None


def images(n=104):
    x = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.mean((1, 2, 3)) > 0).long())


def own_data():
    return DataBunch.from_dsets(images(), images(), bs=8, val_bs=32, seed=3)


def plain_data():
    return DataBunch(DataLoader(images(), 8, shuffle=True), DataLoader(images(), 32))


def data_with_generator():
    generator = torch.Generator().manual_seed(4)
    return DataBunch(DataLoader(images(), 8, shuffle=True, generator=generator), DataLoader(images(), 32))


def list_of_batches():
    return DataBunch(list(DataLoader(images(), 8)), list(DataLoader(images(), 32)))


def learner(data=own_data, **kwargs):
    set_seed(1)
    head = nn.Dropout(0.3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), nn.Sequential(*head))
    learn = Learner(data(), model, nn.CrossEntropyLoss(), lr=1e-2, metrics=accuracy, **kwargs)
    learn.progress.bar = learn.progress.table = False
    return learn


def one_cycle(learn, cbs):
    learn.fit_one_cycle(2, cbs=[MixUp(), GradientAccumulation(16), EMA(0.9), *cbs])
    learn.fit_flat_cos(2, cbs=cbs)


def what_came_out(learn):
    weights = torch.cat([value.double().flatten() for value in learn.model.state_dict().values()]).tolist()
    return weights, learn.recorder.history.drop(columns="time").to_dict("list"), learn.recorder.losses


def undisturbed(script=one_cycle, **kwargs):
    learn = learner(**kwargs)
    script(learn, [])
    return what_came_out(learn)


def crashed_and_run_again(folder, where, every="epoch", script=one_cycle, **kwargs):
    with crashing(where), pytest.raises(ZeroDivisionError):
        script(learner(**kwargs), [Checkpoint(folder, every), Crash()])
    learn = learner(**kwargs)
    script(learn, [Checkpoint(folder, every), Crash()])
    return what_came_out(learn)


@pytest.mark.parametrize("every", ["epoch", 3, "0.005s"])
@pytest.mark.parametrize("where", [(0, 0, 4), (0, 1, 12), (1, 0, 0), (1, 1, 7)])
def test_a_run_that_broke_off_ends_with_the_weights_of_one_that_did_not(tmp_path, every, where):
    assert crashed_and_run_again(tmp_path, where, every) == undisturbed()


@pytest.mark.parametrize("data", [plain_data, data_with_generator, list_of_batches])
@pytest.mark.parametrize("every", ["epoch", 2])
def test_loaders_of_other_makers_are_read_to_their_place_again(tmp_path, data, every):
    assert crashed_and_run_again(tmp_path, (0, 1, 9), every, data=data) == undisturbed(data=data)


def with_everything_that_decides(learn, cbs):
    def step(opt):
        return torch.optim.lr_scheduler.StepLR(opt, 5, 0.5)

    learn.fit(3, cbs=[TorchScheduler(step), GradientClip(0.1), ValidateEvery(4), SaveModel("accuracy"),
                      EarlyStopping(patience=5), *cbs])  # fmt: skip
    learn.fit(4, cbs=[ReduceLROnPlateau("accuracy", patience=1), SWA(0.4), *cbs])
    learn.fit(9, cbs=[StopAfter(steps=20), CSVLogger(), *cbs])


@pytest.mark.parametrize("where", [(0, 0, 10), (0, 2, 3), (1, 1, 5), (1, 3, 12), (2, 1, 2)])
def test_callbacks_that_decide_decide_the_same(tmp_path, where):
    script = with_everything_that_decides
    expected = undisturbed(script, path=tmp_path / "a")
    assert crashed_and_run_again(tmp_path / "run", where, 3, script, path=tmp_path / "b") == expected
    rows = [(tmp_path / name / "history.csv").read_text().splitlines() for name in "ab"]
    assert [without_time(row) for row in rows[0]] == [without_time(row) for row in rows[1]]
    steps = [(tmp_path / name / "history.steps.csv").read_text() for name in "ab"]
    assert steps[0] == steps[1]


def without_time(row):
    cells = row.split(",")
    return cells[:4] + cells[5:]


def frozen_at_first(learn, cbs):
    learn.freeze()
    learn.fit(4, cbs=[Unfreeze(2), *cbs])


def two_groups(model):
    return [list(model[0].parameters()), list(model[1].parameters())]


@pytest.mark.parametrize("where", [(0, 1, 5), (0, 2, 1), (0, 3, 3)])
def test_what_was_frozen_or_thawed_still_is(tmp_path, where):
    kwargs = {"splitter": two_groups, "script": frozen_at_first}
    assert crashed_and_run_again(tmp_path, where, 3, **kwargs) == undisturbed(**kwargs)


def half_precision(learn, cbs):
    learn.fit(2, cbs=[MixedPrecision(torch.float16), *cbs])


def test_the_scale_of_half_precision_goes_on(tmp_path):
    assert crashed_and_run_again(tmp_path, (0, 1, 3), 4, half_precision) == undisturbed(half_precision)


def test_fine_tuning_goes_on_in_the_fit_it_was_in(tmp_path, capsys):
    def script(learn, cbs):
        learn.progress.table = True
        learn.fine_tune(2, 1e-2, cbs=cbs)

    expected = undisturbed(script, splitter=two_groups)
    assert crashed_and_run_again(tmp_path, (1, 1, 2), 5, script, splitter=two_groups) == expected
    printed = capsys.readouterr().out
    assert f"{tmp_path} holds the result of this fit, which was done before: nothing is trained." in printed
    assert "Going on from" in printed and "epoch 2 of 2" in printed


def test_a_run_that_is_done_is_recognised(tmp_path):
    first = learner()
    one_cycle(first, [Checkpoint(tmp_path)])
    again = learner()
    with crashing((1, 0, 0)):  # which would tell of any training
        one_cycle(again, [Checkpoint(tmp_path)])
    assert what_came_out(again) == what_came_out(first) == undisturbed()


def test_a_fit_that_was_interrupted_goes_on_with_the_same_learner_too(tmp_path):
    learn = learner()
    with crashing((0, 1, 4)), pytest.raises(ZeroDivisionError):
        one_cycle(learn, [Checkpoint(tmp_path, 2), Crash()])
    one_cycle(learn, [Checkpoint(tmp_path, 2), Crash()])
    assert what_came_out(learn) == undisturbed()


def test_looking_for_a_learning_rate_is_no_part_of_the_run(tmp_path):
    def script(learn, cbs):
        learn.lr_find(num_it=10, show_plot=False)
        learn.fit(2, cbs=cbs)

    assert crashed_and_run_again(tmp_path, (0, 1, 2), 3, script) == undisturbed(script)


def run_in_a_process(folder):
    """The exit code of a run; it leaves what came out in a file."""

    def target():
        learn = learner()
        one_cycle(learn, [Checkpoint(folder, 2), Crash()])
        torch.save(what_came_out(learn), folder / "out.pt")

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join()
    return process.exitcode


def test_a_process_that_is_killed(tmp_path):
    kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    with crashing((0, 1, 5), kill):
        assert run_in_a_process(tmp_path) == -signal.SIGKILL
    assert run_in_a_process(tmp_path) == 0
    assert tuple(torch.load(tmp_path / "out.pt")) == undisturbed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("where", [(0, 0, 0), (0, 0, 1), (0, 1, 12), (1, 1, 12)])
def test_a_signal_leaves_with_a_checkpoint_and_the_code_to_run_it_again(tmp_path, number, where):
    with crashing(where, lambda: os.kill(os.getpid(), number)):
        assert run_in_a_process(tmp_path) == Checkpoint.EXIT_CODE
    assert run_in_a_process(tmp_path) == 0
    assert tuple(torch.load(tmp_path / "out.pt")) == undisturbed()


def test_after_a_fit_signals_mean_what_they_did(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    learner().fit(1, cbs=Checkpoint(tmp_path))
    with crashing((0, 0, 0)), pytest.raises(ZeroDivisionError):
        learner().fit(1, cbs=[Checkpoint(tmp_path / "other"), Crash()])
    assert signal.getsignal(signal.SIGTERM) is before


# ---- files


def checkpoints(folder):
    return sorted(file.name for file in folder.glob("checkpoint-*"))


def test_the_last_files_are_kept(tmp_path):
    learner().fit(5, cbs=Checkpoint(tmp_path, keep=2))
    assert checkpoints(tmp_path) == ["checkpoint-4.pt", "checkpoint-5.pt"]


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip_a_bit, truncate])
def test_where_the_last_file_is_damaged_the_one_before_is_used_and_that_is_said(tmp_path, damage):
    with crashing((0, 1, 7)), pytest.raises(ZeroDivisionError):
        one_cycle(learner(), [Checkpoint(tmp_path, 2), Crash()])
    damage(tmp_path / checkpoints(tmp_path)[-1])
    learn = learner()
    with pytest.warns(UserWarning, match=r"checkpoint-\d.pt.* Going on from checkpoint-\d.pt, the one before"):
        one_cycle(learn, [Checkpoint(tmp_path, 2), Crash()])
    assert what_came_out(learn) == undisturbed()


def test_where_all_are_damaged_nothing_is_begun_anew_by_itself(tmp_path):
    learner().fit(2, cbs=Checkpoint(tmp_path))
    for name in checkpoints(tmp_path):
        flip_a_bit(tmp_path / name)
    with pytest.raises(FileError, match=r"No checkpoint in .* can be used; remove them to start afresh"):
        learner().fit(2, cbs=Checkpoint(tmp_path))


def test_another_kind_of_file_is_no_checkpoint(tmp_path):
    learner().save(tmp_path / "weights")
    (tmp_path / "weights.pth").rename(tmp_path / "checkpoint-1.pt")
    with pytest.raises(FileError, match="is not a checkpoint that this version can read"):
        learner().fit(1, cbs=Checkpoint(tmp_path))


def test_a_run_that_filled_the_disk_goes_on_when_there_is_room_again(small_disk):
    folder, _ = small_disk
    filler = folder / "filler"
    filler.write_bytes(bytes(800_000))
    with pytest.raises(WriteError, match=r"checkpoint-\d+\.pt could not be written: No space left on device"):
        one_cycle(learner(), [Checkpoint(folder, 1, keep=100)])
    assert len(checkpoints(folder)) > 1
    filler.unlink()
    learn = learner()
    one_cycle(learn, [Checkpoint(folder, 1)])
    assert what_came_out(learn) == undisturbed()


def test_a_folder_that_cannot_be_written_is_reported_before_anything_is_trained(small_disk):
    folder, make_read_only = small_disk
    make_read_only()
    learn = learner()
    with pytest.raises(WriteError, match="could not be written: Read-only file system"):
        learn.fit(1, cbs=Checkpoint(folder / "run"))
    assert not learn.recorder.losses


# ---- what the run is


def test_the_run_record_stands_next_to_the_weights(tmp_path):
    learner().fit(1, cbs=Checkpoint(tmp_path))
    (record,) = json.loads((tmp_path / "run.json").read_text())["fits"]
    assert {"recipe", "data", "environment"} <= record.keys()
    assert record["environment"]["versions"]["torch"] == torch.__version__


def test_another_recipe_is_refused_with_what_differs(tmp_path):
    learner().fit(2, cbs=Checkpoint(tmp_path))
    with pytest.raises(ValueError, match=r"holds a run that differs from this one: .*epochs.*2.*3"):
        learner().fit(3, cbs=Checkpoint(tmp_path))


def test_other_data_is_refused_with_what_differs(tmp_path):
    learner().fit(2, cbs=Checkpoint(tmp_path))
    learn = learner(data=lambda: DataBunch.from_dsets(images(96), images(), bs=8, val_bs=32, seed=3))
    with pytest.raises(ValueError, match=r"differs from this one: .*104.*96"):
        learn.fit(2, cbs=Checkpoint(tmp_path))


def test_another_model_is_refused_with_what_differs(tmp_path):
    learner().fit(1, cbs=Checkpoint(tmp_path))
    other = learner()
    other.model[1][3] = nn.Linear(16, 3)
    with pytest.raises(ValueError, match=r"differs from this one: .*model"):
        other.fit(1, cbs=Checkpoint(tmp_path))
    with pytest.raises(ValueError, match="another architecture"):
        other.fit(1, cbs=Checkpoint(tmp_path, allow_changes=True))


def test_changes_can_be_allowed(tmp_path):
    with crashing((0, 1, 3)), pytest.raises(ZeroDivisionError):
        learner().fit(2, cbs=[Checkpoint(tmp_path), Crash()])
    learn = learner()
    learn.fit(3, 1e-3, cbs=Checkpoint(tmp_path, allow_changes=True))
    assert len(learn.recorder.rows) == 3 and learn.recorder.lrs[-1] == 1e-2  # the optimizer's state goes on


@pytest.mark.parametrize("every", [0, -1, True, "sometimes", "10 apples", "0s", 2.5])
def test_when_to_write_is_checked(tmp_path, every):
    with pytest.raises(ValueError, match="'epoch', a number of steps, or a time"):
        Checkpoint(tmp_path, every)


# ---- several processes


def on_two_ranks(folder, where, how):
    learn = learner()
    learn.to_distributed(timeout=20)
    with crashing(where if learn.ranks.rank == 1 else None, how):
        try:
            learn.fit_one_cycle(2, cbs=[GradientAccumulation(32), EMA(0.9), Checkpoint(folder, 2), Crash()])
        except SystemExit as error:
            return error.code
    return what_came_out(learn)


def test_processes_that_train_together_go_on_together(tmp_path):
    expected = launch(on_two_ranks, (tmp_path / "a", None, None))
    terminate = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    codes = launch(on_two_ranks, (tmp_path / "b", (0, 1, 1), terminate))  # one is told, all stop
    assert codes == [Checkpoint.EXIT_CODE] * 2
    assert launch(on_two_ranks, (tmp_path / "b", None, None)) == expected
    assert expected[0] == expected[1]
