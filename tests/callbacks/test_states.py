"""What callbacks have to tell a fit that resumes: it fits into a file, and whoever gets it goes on alike."""

import functools
import json
import time
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler
from torch.optim.swa_utils import SWALR
from torch.utils.data import DataLoader, TensorDataset
from warmstart import callbacks
from warmstart.callbacks import (
    EMA,
    SAM,
    SWA,
    ActivationStats,
    BatchSizeSchedule,
    BnFreeze,
    Callback,
    CancelFit,
    ChannelsLast,
    CSVLogger,
    CutMix,
    DetectAnomaly,
    EarlyStopping,
    FetchPreds,
    GradientAccumulation,
    GradientCheckpointing,
    GradientClip,
    GradientStats,
    LimitBatches,
    LRFinder,
    MemoryUse,
    MixedPrecision,
    MixUp,
    OverfitBatches,
    ParamScheduler,
    Profiler,
    ProgressiveResize,
    Recorder,
    ReduceLROnPlateau,
    SaveModel,
    ShowGraph,
    StopAfter,
    TensorBoardLogger,
    TerminateOnNaN,
    TorchScheduler,
    Unfreeze,
    ValidateEvery,
    sched_lin,
)
from warmstart.callbacks.nested import map_tensors
from warmstart.callbacks.plain import plain
from warmstart.data import DataBunch
from warmstart.learner import Learner, accuracy

from .conftest import HandOver, through_a_file
from .test_run_logger import Notes

pytestmark = pytest.mark.filterwarnings("ignore:EMA", "ignore:This CPU has no", "ignore:.*lr_scheduler.step")


# ---- all of them

WITHOUT_OPTIONS = [ActivationStats, ChannelsLast, CSVLogger, CutMix, DetectAnomaly, EarlyStopping, FetchPreds,
                   GradientAccumulation, GradientClip, GradientStats, LimitBatches, LRFinder, MemoryUse, MixedPrecision,
                   MixUp, OverfitBatches, Profiler, ReduceLROnPlateau, SAM, SWA, SaveModel, ShowGraph,
                   TerminateOnNaN]  # fmt: skip
MAKERS = {cls.__name__: cls for cls in WITHOUT_OPTIONS} | {
    "BatchSizeSchedule": lambda: BatchSizeSchedule({0: 4}),
    "BnFreeze": lambda: BnFreeze(nn.BatchNorm2d(4)),
    "EMA": lambda: EMA(0.5),
    "GradientCheckpointing": lambda: GradientCheckpointing(lambda model: model[0]),
    "ParamScheduler": lambda: ParamScheduler({"mom": sched_lin(0.9, 0.8)}),
    "ProgressiveResize": lambda: ProgressiveResize(multiple=2),
    "StopAfter": lambda: StopAfter(seconds=1000),
    "TorchScheduler": lambda: TorchScheduler(functools.partial(lr_scheduler.StepLR, step_size=1)),
    "Unfreeze": lambda: Unfreeze(1),
    "ValidateEvery": lambda: ValidateEvery(2),
}
IN_EVERY_LEARNER = {"Evaluate", "Recorder", "ProgressBar"}
BASES = {"Callback", "HookCallback", "RunLogger"}
LOGGERS = {"TensorBoardLogger", "WandbLogger", "MLflowLogger"}  # of the extra track, in modules of their own


def test_no_callback_is_forgotten_here():
    exported = [getattr(callbacks, name) for name in callbacks.__all__]
    names = {cb.__name__ for cb in exported if isinstance(cb, type) and issubclass(cb, Callback)}
    assert names - MAKERS.keys() - {"DistributedTraining"} == IN_EVERY_LEARNER | BASES | LOGGERS


class SaveStates(Callback):
    """Saves the states of all callbacks after each training batch and each epoch."""

    order = 10000

    def __init__(self):
        self.found = []

    def after_batch(self, learn):
        if learn.training:
            self.after_epoch(learn)

    def after_epoch(self, learn):
        states = [through_a_file(cb.state_dict()) for cb in learn.cbs]
        self.found.append({type(cb).__name__: state for cb, state in zip(learn.cbs, states, strict=True)})


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_state_survives_a_file_that_runs_no_code(name, tmp_path):
    torch.manual_seed(0)
    dataset = TensorDataset(torch.randn(16, 3, 8, 8), torch.arange(16) % 2)
    data = DataBunch(DataLoader(dataset, 8), DataLoader(dataset, 8), device="cpu")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    learn = Learner(data, model, nn.CrossEntropyLoss(), metrics=accuracy, path=tmp_path)
    learn.progress.bar = learn.progress.table = False
    learn.fit(2, cbs=[MAKERS[name](), save := SaveStates()])
    assert save.found and all({name, "Recorder", "Evaluate", "ProgressBar"} <= states.keys() for states in save.found)


# ---- those that go on


def scheduler(make, **kwargs):
    return functools.partial(TorchScheduler, functools.partial(make, **kwargs))


def sequence(opt):
    first, then = lr_scheduler.LinearLR(opt, 0.1, total_iters=3), lr_scheduler.MultiStepLR(opt, [2, 5])
    return lr_scheduler.SequentialLR(opt, [first, then], [4])


def chain(opt):
    return lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(opt, 3), lr_scheduler.ExponentialLR(opt, 0.9)])


class Shrink:
    def __init__(self):
        self.calls = 0

    def __call__(self, step):
        self.calls += 1
        return 0.9**self.calls


def weights(cb, learn):
    return list(learn.model.state_dict().values())


def rates(cb, learn):
    groups = [{k: v for k, v in g.items() if k not in ("params", "initial_lr")} for g in learn.opt.param_groups]
    return learn.recorder.lrs, learn.recorder.moms, groups, learn.recorder.losses


GOES_ON = {
    "EMA": (lambda: EMA(0.5), weights),
    "SWA": (lambda: SWA(0.1, lr=0.01), weights),
    "MixedPrecision": (MixedPrecision, lambda cb, learn: (cb.scale, cb.scaler.state_dict(), weights(cb, learn))),
    "GradientAccumulation": (lambda: GradientAccumulation(16), weights),
    "ValidateEvery": (lambda: ValidateEvery(3), lambda cb, learn: learn.recorder.step_rows),
    "EarlyStopping": (
        lambda: EarlyStopping(patience=2, min_delta=9.0), lambda cb, learn: (len(learn.recorder.rows), cb.monitor),
    ),
    "SaveModel": (lambda: SaveModel(min_delta=9.0), weights),
    "ReduceLROnPlateau": (lambda: ReduceLROnPlateau(patience=2, min_delta=9.0), rates),
    "ParamScheduler": (lambda: ParamScheduler({"mom": sched_lin(0.9, 0.1), "lr": sched_lin(0.1, 0.0)}), rates),
    "ActivationStats": (ActivationStats, lambda cb, learn: (cb.stats.to_dict(), cb.hist(-1))),
    "GradientStats": (GradientStats, lambda cb, learn: cb.norms.to_dict()),
    "MemoryUse": (MemoryUse, lambda cb, learn: [sorted(row) for row in cb.rows]),
    "Profiler": (Profiler, lambda cb, learn: (cb.n_batches, cb.calls, sorted(cb.seconds))),
    "ShowGraph": (ShowGraph, lambda cb, learn: (cb.n_steps, cb.n_epochs)),
    "StepLR": (scheduler(lr_scheduler.StepLR, step_size=3), rates),
    "every": (lambda: TorchScheduler(functools.partial(lr_scheduler.ExponentialLR, gamma=0.9), every=3), rates),
    "per epoch": (lambda: TorchScheduler(functools.partial(lr_scheduler.StepLR, step_size=3), "epoch"), rates),
    "MultiStepLR": (scheduler(lr_scheduler.MultiStepLR, milestones=[3, 5, 5, 11]), rates),
    "LambdaLR": (scheduler(lr_scheduler.LambdaLR, lr_lambda=lambda step: 0.9**step), rates),
    "LambdaLR, of an object": (lambda: TorchScheduler(lambda opt: lr_scheduler.LambdaLR(opt, Shrink())), rates),
    "OneCycleLR": (scheduler(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=20), rates),
    "CyclicLR": (scheduler(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=3), rates),
    "SWALR": (scheduler(SWALR, swa_lr=0.01, anneal_epochs=6), rates),
    "CosineAnnealingWarmRestarts": (scheduler(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3, T_mult=2), rates),
    "SequentialLR": (lambda: TorchScheduler(sequence), rates),
    "ChainedScheduler": (lambda: TorchScheduler(chain), rates),
    "torch's ReduceLROnPlateau": (
        lambda: TorchScheduler(
            functools.partial(lr_scheduler.ReduceLROnPlateau, patience=1, threshold=9, threshold_mode="abs"), "epoch"
        ),
        rates,
    ),
}  # fmt: skip
MOMENTS = {"within an epoch": (2, 1), "between epochs": (1, None)}
at_each_moment = pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)


def same(a, b):
    """Whether nested values are equal to the last bit."""
    first, second = (map_tensors(torch.Tensor.tolist, plain(value, "result")) for value in (a, b))
    assert first == second
    return True


@at_each_moment
@pytest.mark.parametrize("name", GOES_ON)
def test_a_callback_that_gets_the_state_of_another_goes_on_as_that_would(make_learn, tmp_path, name, moment):
    make, look = GOES_ON[name]
    results = []
    for cb in (make(), HandOver(make, *moment)):
        learn = make_learn(metrics=accuracy, opt_func=functools.partial(SGD, momentum=0.9), path=tmp_path)
        learn.fit(1, 0.1)
        taker = [cb.taker] if isinstance(cb, HandOver) else []
        learn.fit(4, 0.1, cbs=[cb, *taker])
        assert all(cb.done for cb in taker)
        results.append(looked_at(look(cb.cb if taker else cb, learn)))
    assert same(*results)


def test_the_norm_of_the_last_gradient_is_kept(make_learn):
    clip, other = GradientClip(0.1), GradientClip(0.1)
    make_learn().fit(1, cbs=clip)
    other.load_state_dict(through_a_file(clip.state_dict()))
    assert other.norm == clip.norm > 0


def looked_at(value):
    """Arrays as tensors and monitors as what they know, to be compared."""
    if isinstance(value, tuple):
        return [looked_at(part) for part in value]
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    return value.state_dict() if hasattr(value, "state_dict") else value


@pytest.mark.parametrize("moment", [(0, 1), (1, 1), (0, None), (1, None)])
def test_batch_sizes_go_on_with_the_epochs_own(make_learn, moment):
    make = functools.partial(BatchSizeSchedule, {0: 4, 1: 12, 3: 2})
    cb = HandOver(make, *moment, before_that=lambda old, learn: old.after_fit(learn))  # a new process has the data anew
    learn = make_learn()
    dataset = TensorDataset(*map(torch.cat, zip(*learn.data.train_dl.dl, strict=True)))
    learn.data = DataBunch(DataLoader(dataset, 8), None, device="cpu")
    own = learn.data.train_dl
    learn.fit(4, cbs=[cb, cb.taker])
    assert learn.recorder.sizes == [4] * 8 + [12, 12, 8] * 2 + [2] * 16 and learn.data.train_dl is own


@at_each_moment
def test_a_recorder_goes_on_with_all_that_it_has(make_learn, moment, monkeypatch):
    tables = []
    for with_hand_over in (False, True):
        now = iter(range(10**6))
        monkeypatch.setattr(time, "perf_counter", lambda now=now: float(next(now)))
        learn = make_learn(metrics=accuracy)
        cb = HandOver(Recorder, *moment)
        if with_hand_over:
            learn.recorder, learn.cbs[1] = cb.cb, cb
        learn.fit_one_cycle(4, cbs=[ValidateEvery(3), *([cb.taker] if with_hand_over else [])])
        recorder = learn.recorder
        numbers = [getattr(recorder, name) for name in ("losses", "lrs", "moms", "sizes", "epoch_ends", "first_step")]
        tables.append([numbers, recorder.history.drop(columns="time").to_dict(), recorder.step_history.to_dict()])
        assert (recorder.history["time"] > 0).all()
        assert {type(size) for size in recorder.sizes} == {int}
    assert same(*tables)


def test_the_time_of_an_epoch_is_that_of_both_its_parts(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    first, second = Recorder(), Recorder()
    first.before_epoch(None)
    monkeypatch.setattr(time, "perf_counter", lambda: 107.0)
    state = through_a_file(first.state_dict())
    monkeypatch.setattr(time, "perf_counter", lambda: 5.0)  # another machine's
    second.before_epoch(None)
    second.load_state_dict(state)
    monkeypatch.setattr(time, "perf_counter", lambda: 8.0)
    second.after_epoch(SimpleNamespace(results={}))
    assert second.rows[0]["time"] == 10.0


def test_numbers_by_step_are_saved_as_tensors(make_learn):
    learn = make_learn()
    learn.fit(2, cbs=GradientStats())
    state = learn.recorder.state_dict()
    tensors = [name for name, value in state.items() if isinstance(value, torch.Tensor)]
    assert tensors == ["losses", "lrs", "moms", "sizes"]


def test_the_time_until_a_fit_ends_goes_on(monkeypatch, make_learn):
    first, second, learn = StopAfter(seconds=10), StopAfter(seconds=10), make_learn()
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    first.before_fit(learn)
    monkeypatch.setattr(time, "perf_counter", lambda: 107.0)
    state = through_a_file(first.state_dict())
    monkeypatch.setattr(time, "perf_counter", lambda: 5.0)
    second.before_fit(learn)
    second.load_state_dict(state)
    over = []
    for now in (7.5, 8.0):
        monkeypatch.setattr(time, "perf_counter", lambda now=now: now)
        over.append(second._over(learn))
    assert over == [False, True]


def test_processes_end_together_when_one_of_them_has_had_its_time(make_learn):
    class Others:
        rank = 0

        def __init__(self):
            self.answers = iter([False, False, True])

        def any(self, flag):
            assert not flag
            return next(self.answers)

    learn, stop = make_learn(), StopAfter(seconds=1000)
    stop.before_fit(learn)
    asked = SimpleNamespace(ranks=Others(), n_steps=1)
    assert [stop._over(asked) for _ in range(3)] == [False, False, True]
    assert StopAfter(steps=1)._over(SimpleNamespace(n_steps=1))  # which nobody has to be asked for


def test_a_step_is_known_before_the_batch_is_counted(make_learn):
    class Ask(Callback):
        def __init__(self):
            self.said = []

        def after_loss(self, learn):
            if learn.training:
                self.said.append((cb.will_step(learn), learn.n_steps))

    learn, ask, cb = make_learn(train=(8, 8, 8, 16, 8)), Ask(), GradientAccumulation(24)
    learn.fit(1, cbs=[cb, ask])
    assert ask.said == [(False, 0), (False, 0), (True, 0), (False, 1), (True, 1)]


# ---- files and tools


def steps_on_disk(tmp_path):
    return pd.read_csv(tmp_path / "history.steps.csv", dtype=str).map(float)


@at_each_moment
def test_csv_files_go_on_in_place_of_what_came_after_the_state(make_learn, tmp_path, moment):
    def die(old, learn):
        with (tmp_path / "history.steps.csv").open("a") as file:
            file.write("99,0.5,0.1,0.9\n")  # of an epoch that the new process will repeat
        (tmp_path / "history.csv").write_text("the old one's later rows")

    learn, cb = make_learn(path=tmp_path, metrics=accuracy), HandOver(CSVLogger, *moment, before_that=die)
    learn.fit(1)
    learn.fit_one_cycle(4, cbs=[cb, cb.taker])
    found, history = pd.read_csv(tmp_path / "history.csv"), learn.recorder.history[1:].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.drop(columns="lr"), history, check_exact=False)
    steps = steps_on_disk(tmp_path)
    assert steps["step"].tolist() == list(range(5, 21)) and steps["loss"].tolist() == learn.recorder.losses[4:]
    assert [fit["n_epoch"] for fit in json.loads((tmp_path / "history.json").read_text())] == [4]
    learn.fit(1, cbs=CSVLogger())
    assert len(steps_on_disk(tmp_path)) == 4  # another begins the files anew


def test_csv_files_that_are_appended_to_keep_what_they_held_before(make_learn, tmp_path):
    make_learn(path=tmp_path).fit(2, cbs=CSVLogger())
    learn, cb = make_learn(path=tmp_path), HandOver(lambda: CSVLogger(append=True), 1, None)
    learn.fit(2, cbs=[cb, cb.taker])
    assert len(pd.read_csv(tmp_path / "history.csv")) == 4
    assert steps_on_disk(tmp_path)["step"].tolist() == [*range(1, 9)] * 2
    assert len(json.loads((tmp_path / "history.json").read_text())) == 2


def test_files_that_are_gone_are_written_from_there_on(make_learn, tmp_path):
    def lose(old, learn):
        for file in tmp_path.iterdir():
            file.unlink()

    learn, cb = make_learn(path=tmp_path), HandOver(CSVLogger, 1, None, before_that=lose)
    learn.fit(3, cbs=[cb, cb.taker])
    assert len(pd.read_csv(tmp_path / "history.csv")) == 3
    assert len(json.loads((tmp_path / "history.json").read_text())) == 1
    assert steps_on_disk(tmp_path)["step"].tolist() == [9, 10, 11, 12]


@at_each_moment
def test_a_logger_tells_what_has_not_been_told(make_learn, moment):
    told = []

    def make():
        notes = Notes(every=3)
        notes.rows = told
        return notes

    learn, cb = make_learn(metrics=accuracy), HandOver(make, *moment)
    learn.fit(4, cbs=[cb, cb.taker, ValidateEvery(3)])
    assert [row["step"] for row in told if "loss" in row] == list(range(1, 17))
    assert [row["epoch"] for row in told if "epoch" in row and "time" in row] == [0, 1, 2, 3]
    assert len([row for row in told if "epoch" in row]) == 4 + len(learn.recorder.step_rows)


def test_a_state_is_one_of_which_all_has_been_told(make_learn):
    learn, notes, save = make_learn(), Notes(every=50), SaveStates()
    learn.fit(1, cbs=[notes, save])
    assert notes.events == ["open", 1, 1, 1, 1, 1, "done"]  # a step each, and the epoch
    assert [states["Notes"]["n_logged"] for states in save.found] == [1, 2, 3, 4, 4]


class Done(Callback):
    """Ends a fit before it begins, as one that had been done before, with what the callbacks had in the end."""

    orders = MappingProxyType({"before_fit": -1000})

    def __init__(self, states):
        self.states = states

    def before_fit(self, learn):
        for cb in learn.cbs:
            if state := self.states.get(type(cb).__name__):
                cb.load_state_dict(state)
        raise CancelFit


class SaveLast(SaveStates):
    after_batch = after_epoch = None

    def after_fit(self, learn):
        SaveStates.after_epoch(self, learn)


def test_csv_files_have_the_rows_of_a_fit_that_had_been_done_before(make_learn, tmp_path):
    learn = make_learn(path=tmp_path, cbs=CSVLogger())
    learn.fit(2, cbs=(save := SaveLast()))
    learn = make_learn(path=tmp_path, cbs=CSVLogger())
    learn.fit(2, cbs=Done(save.found[0]))
    learn.fit(1)
    assert pd.read_csv(tmp_path / "history.csv")["epoch"].tolist() == [0, 1, 2]
    assert steps_on_disk(tmp_path)["step"].tolist() == list(range(1, 13))
    assert [fit["n_epoch"] for fit in json.loads((tmp_path / "history.json").read_text())] == [2, 1]


def test_a_fit_after_one_that_had_been_done_before_is_a_run_of_its_own(make_learn):
    learn = make_learn(cbs=Notes())
    learn.fit(2, cbs=(save := SaveLast()))
    learn = make_learn(cbs=(notes := Notes()))
    learn.fit(2, cbs=Done(save.found[0]))
    learn.fit(1)
    assert [row["step"] for row in notes.rows] == [9, 10, 11, 12, 12] and notes.params["n_epoch"] == 1


def test_a_scaler_goes_on_after_a_fit_that_had_been_done_before(make_learn):
    first, second = (make_learn().to_fp16() for _ in range(2))
    first.fit(2, cbs=(save := SaveLast()))
    second.fit(2, cbs=Done(save.found[0]))
    for learn in (first, second):
        learn.fit(1)
    scalers = [learn.cbs[-1].scaler.state_dict() for learn in (first, second)]
    assert scalers[0] == scalers[1] and scalers[0]["_growth_tracker"] == 12


@at_each_moment
@pytest.mark.parametrize("log_dir", [None, "logs"])
def test_tensorboard_goes_on_in_its_folder_and_hides_what_came_after_the_state(make_learn, tmp_path, moment, log_dir):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def die(old, learn):
        old.log_rows([{"step": old.n_logged + 1, "loss": 99.0}])
        old.writer.close()

    learn = make_learn(path=tmp_path, metrics=accuracy)
    cb = HandOver(lambda: TensorBoardLogger(log_dir, log_graph=True), *moment, before_that=die)
    learn.fit(4, cbs=[cb, cb.taker])
    (folder,) = [tmp_path / "logs"] if log_dir else (tmp_path / "runs").iterdir()
    found = accumulator.EventAccumulator(str(folder), {accumulator.TENSORS: 0}).Reload()
    losses = found.Scalars("loss")
    assert [event.step for event in losses] == list(range(1, 17))
    assert [event.value for event in losses] == pytest.approx(learn.recorder.losses, rel=1e-6)
    assert [event.step for event in found.Scalars("valid_loss")] == [4, 8, 12, 16]
    assert len(found.Tensors("hyper-parameters/text_summary")) == 1


# ---- systems


class Classifier(nn.Module):
    """Steps by hand, schedules by hand, and logs a number and a metric in training."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        torchmetrics = pytest.importorskip("torchmetrics")
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        pred = self.net(x)
        loss = nn.functional.cross_entropy(pred, y)
        self.accuracy.update(pred, y)
        self.log("accuracy", self.accuracy)
        self.log("double", 2 * loss)
        self.manual_backward(loss)
        self.optimizers().step()
        self.optimizers().zero_grad()
        self.lr_schedulers().step()

    def configure_optimizers(self):
        opt = SGD(self.parameters(), lr=0.1)
        return {"optimizer": opt, "lr_scheduler": lr_scheduler.ExponentialLR(opt, 0.9)}


class Forget(Callback):
    """Takes a system its memory after a batch, and puts back what it had saved."""

    order = 10000

    def __init__(self, iter):
        self.iter = iter

    def after_batch(self, learn):
        if learn.iter == self.iter:
            state = through_a_file(learn.system.state_dict())
            learn.model.accuracy.reset()
            learn.system.logged = {}
            (scheduler,) = learn.system.schedulers
            scheduler.scheduler.last_epoch, scheduler.scheduler._last_lr = 0, [0.1]
            for _ in range(3):
                learn.system.load_state_dict(state)


@pytest.mark.parametrize("iter", [1, 3])
def test_a_system_goes_on_with_what_it_has_logged_and_with_its_schedulers(make_learn, iter):
    results = []
    for cbs in ([], [Forget(iter)]):
        learn = make_learn(valid=None, model=Classifier())
        learn.fit(2, cbs=cbs)
        (scheduler,) = learn.system.schedulers
        results.append([learn.recorder.history.drop(columns="time").to_dict(), scheduler.scheduler.last_epoch])
    assert same(*results) and {"accuracy", "double"} <= set(learn.recorder.history)


def test_what_a_system_has_logged_in_training_is_kept_while_it_is_validated(make_learn):
    class Validated(Classifier):
        def validation_step(self, batch, batch_idx):
            self.log("valid_number", 1.0)

    class Ask(Callback):
        def after_batch(self, learn):
            if not learn.training:
                self.logged = through_a_file(learn.system.state_dict())["logged"]

        def after_epoch(self, learn):
            self.at_end = learn.system.state_dict()["logged"]

    make_learn(model=Validated()).fit(1, cbs=(ask := Ask()))
    assert set(ask.logged) == {"accuracy", "double"} and ask.logged["double"][1] == 32
    assert ask.at_end == {}


def test_a_metric_that_is_no_part_of_the_model_cannot_be_saved(make_learn):
    class Elsewhere(Classifier):
        def training_step(self, batch, batch_idx):
            self.log("number", Elsewhere.metric)
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    Elsewhere.metric, Elsewhere.automatic_optimization = SimpleNamespace(compute=lambda: 1.0, reset=lambda: None), True
    learn = make_learn(valid=None, model=Elsewhere())
    with pytest.raises(TypeError, match=r"self.log\('number', SimpleNamespace\(\)\): .* is an attribute of the model"):
        learn.fit(1, cbs=Forget(1))


# ---- plain values


def test_numbers_of_numpy_become_pythons_and_mappings_dicts():
    found = plain({"a": np.float64(0.5), "b": [np.int64(3), (np.bool_(True), None)], 3: "x"}, "state")
    assert found == {"a": 0.5, "b": [3, (True, None)], 3: "x"}
    assert type(found["a"]) is float and type(found["b"][0]) is int and type(found["b"][1][0]) is bool


def test_a_value_that_cannot_be_saved_is_named(tmp_path):
    class Mine(Callback):
        state_names = ("files",)

        def __init__(self):
            self.files = {"best": [tmp_path]}

    with pytest.raises(TypeError, match=r"Mine.files\['best'\]\[0\] cannot be saved, it is PosixPath\(.*of PosixPath"):
        Mine().state_dict()


def test_a_scheduler_that_goes_by_what_cannot_be_saved_is_named(make_learn):
    class Odd(lr_scheduler.StepLR):
        def __init__(self, opt):
            super().__init__(opt, 1)
            self.model = nn.Linear(1, 1)

    with pytest.raises(TypeError, match=r"Odd\['model'\] cannot be saved"):
        make_learn().fit(1, cbs=[TorchScheduler(Odd), SaveStates()])


def test_lists_of_a_state_are_the_callbacks_own():
    class Mine(Callback):
        state_names = ("seen",)

        def __init__(self):
            self.seen = [1]

    cb = Mine()
    state = cb.state_dict()
    cb.seen.append(2)
    cb.load_state_dict(state)
    cb.seen.append(3)
    assert state == {"seen": [1]} and cb.seen == [1, 3]
