"""All callbacks at once: the learner stays usable, and a fit that fails leaves nothing for the next."""

import functools
from contextlib import nullcontext

import pandas as pd
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR
from warmstart import callbacks
from warmstart.callbacks import (
    EMA,
    SAM,
    SWA,
    ActivationStats,
    BnFreeze,
    Callback,
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
    MemoryUse,
    MixedPrecision,
    MixUp,
    Profiler,
    ProgressiveResize,
    ReduceLROnPlateau,
    SaveModel,
    ShowGraph,
    StopAfter,
    TensorBoardLogger,
    TerminateOnNaN,
    TorchScheduler,
    Unfreeze,
    ValidateEvery,
)
from warmstart.data import DataBunch
from warmstart.learner import CrossEntropyLoss, Learner, accuracy

pytestmark = pytest.mark.filterwarnings("ignore:EMA", "ignore:This CPU has no", "ignore:.*sets the learning rate")


def all_callbacks(tmp_path):
    scheduler = functools.partial(ExponentialLR, gamma=0.99)
    return [
        MixedPrecision(torch.bfloat16), GradientAccumulation(16), GradientClip(), SAM(0.01), EMA(0.5), ChannelsLast(),
        GradientCheckpointing(), MixUp(), CutMix(), TorchScheduler(scheduler), ValidateEvery(2),
        StopAfter(seconds=1000), EarlyStopping(patience=100), SaveModel(), TerminateOnNaN(), DetectAnomaly(),
        ActivationStats(), GradientStats(), Profiler(), MemoryUse(), ShowGraph(), CSVLogger(),
        TensorBoardLogger(tmp_path / "runs"), LimitBatches(5, 3), BnFreeze(nn.BatchNorm2d(8)), Unfreeze(1),
        FetchPreds(), ReduceLROnPlateau(patience=100), ProgressiveResize(multiple=2),
    ]  # fmt: skip


# what is not in that list, and why
IN_EVERY_LEARNER = {"Evaluate", "Recorder", "ProgressBar"}
BASES = {"Callback", "HookCallback", "RunLogger"}
INSTEAD_OF_ANOTHER = {"SWA": "EMA", "ParamScheduler": "TorchScheduler", "LRFinder": "TorchScheduler",
                      "OverfitBatches": "LimitBatches", "BatchSizeSchedule": "a DataLoader",
                      "WandbLogger": "TensorBoardLogger", "MLflowLogger": "TensorBoardLogger"}  # fmt: skip


def images(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = [torch.randint(0, 2, (8,), generator=generator) for _ in range(n)]
    return [(torch.randn(8, 3, 8, 8, generator=generator) + y.view(-1, 1, 1, 1), y) for y in labels]


@pytest.fixture
def learn(tmp_path):
    pytest.importorskip("tensorboard", reason="comes with the extra track")
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    model = nn.Sequential(nn.Sequential(Residual(block)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    data = DataBunch(images(5, 0), images(3, 1), device="cpu")
    learn = Learner(data, model, CrossEntropyLoss(), metrics=accuracy, path=tmp_path)
    learn.progress.bar = learn.progress.table = False
    return learn


class Residual(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = nn.Sequential(*block)

    def forward(self, x):
        return self.block(x)


def traces(learn):
    """Whatever a fit could leave in a learner and its model."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in learn.model.modules()]
    attributes = [sorted(name for name in vars(m) if not name.startswith("_")) for m in learn.model.modules()]
    tensor_hooks = [bool(p._backward_hooks) + bool(p._post_accumulate_grad_hooks) for p in learn.model.parameters()]
    stages = vars(learn).keys() & {"forward", "compute_loss", "backward", "step", "zero_grad"}
    precision = isinstance(learn.precision(), nullcontext), torch.is_autocast_enabled("cpu")
    loaders = [[*sorted(vars(dl)), dl.limit, dl.replay] for dl in learn.data.dls]
    return hooks, attributes, tensor_hooks, stages, precision, loaders, learn.cbs[:], learn.loss_func


class Fails(Callback):
    """Raises `error` in the second epoch, in the event that it is made for."""

    def __init__(self, error):
        self.error = error

    def _fail(self, learn):
        if learn.epoch == 1 and self.error is not None:
            raise self.error


def failing(event, error):
    def method(self, learn):
        self._fail(learn)

    return type("Failing", (Fails,), {event: method})(error)


def test_a_run_with_all_of_them_learns_and_leaves_no_trace(learn, tmp_path):
    learn.fit(1)
    before = traces(learn)
    learn.fit(3, 0.05, cbs=all_callbacks(tmp_path))
    assert traces(learn) == before
    assert len(learn.recorder.history) == 4 and learn.recorder.history["accuracy"].iloc[-1] > 0.9
    csv = pd.read_csv(tmp_path / "history.csv")
    assert list(csv["valid_loss"]) == pytest.approx(list(learn.recorder.history["valid_loss"][1:]))
    learn.fit(1, 0.01)
    assert traces(learn) == before


EVENTS = ["before_fit", "before_train", "before_batch", "after_pred", "after_loss", "before_backward", "after_backward",
          "before_step", "after_step", "after_batch", "before_validate", "after_epoch"]  # fmt: skip


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), KeyboardInterrupt(), torch.cuda.OutOfMemoryError("memory")], ids=repr
)
@pytest.mark.parametrize("event", EVENTS)
def test_a_run_that_fails_anywhere_leaves_nothing_for_the_next(learn, tmp_path, event, error):
    learn.fit(1, 0.01)
    before = traces(learn)
    failing_cb = failing(event, error) if event != "before_fit" else failing_at_once(error)
    with pytest.raises(type(error)):
        learn.fit(3, 0.05, cbs=[*all_callbacks(tmp_path), failing_cb])
    assert traces(learn) == before
    assert all(p.isfinite().all() for p in learn.model.parameters())
    assert [p for g in learn.opt.param_groups for p in g["params"]] == list(learn.model.parameters())
    learn.fit(1, 0.01)
    assert len(learn.recorder.rows) >= 2 and traces(learn) == before
    if (tmp_path / "models" / "model.pth").exists():
        learn.load("model", with_opt=False)
    assert not list(tmp_path.rglob("*.part"))


def failing_at_once(error):
    class AtOnce(Callback):
        def before_fit(self, learn):
            raise error

    return AtOnce()


def test_a_run_after_a_failed_one_trains_as_if_that_had_not_been(learn, tmp_path):
    """Weights and optimizer put back, a failed run changes nothing of what follows."""
    with learn.kept_state():
        with pytest.raises(RuntimeError):
            learn.fit(3, 0.05, cbs=[*all_callbacks(tmp_path), failing("after_backward", RuntimeError())])
        steps = len(learn.recorder.losses)
    learn.fit(2, 0.05)
    torch.manual_seed(0)
    losses = learn.recorder.losses[steps:]
    other = Learner(learn.data, rebuilt(learn), CrossEntropyLoss())
    other.progress.bar = other.progress.table = False
    other.fit(2, 0.05)
    torch.testing.assert_close(losses, other.recorder.losses, rtol=1e-5, atol=1e-6)


def rebuilt(learn):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(nn.Sequential(Residual(block)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def test_no_callback_is_forgotten_here(tmp_path):
    exported = [getattr(callbacks, name) for name in callbacks.__all__]
    names = {cb.__name__ for cb in exported if isinstance(cb, type) and issubclass(cb, Callback)}
    used = {type(cb).__name__ for cb in all_callbacks(tmp_path)}
    assert names - used == IN_EVERY_LEARNER | BASES | INSTEAD_OF_ANOTHER.keys()


def test_two_averages_at_once_are_refused(learn):
    with pytest.raises(ValueError, match="EMA and SWA would both put their averages into the model"):
        learn.fit(1, cbs=[EMA(), SWA()])
