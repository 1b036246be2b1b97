"""Half precision on the CPU: autocast, the scaled loss, steps that overflow, and what others see of it."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from warmstart.callbacks import (
    EMA,
    SAM,
    Callback,
    ChannelsLast,
    GradientAccumulation,
    GradientClip,
    MixedPrecision,
    TorchScheduler,
)
from warmstart.data import DataBunch
from warmstart.learner import Learner

from .conftest import batches

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
pytestmark = pytest.mark.filterwarnings("ignore:This CPU has no")


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def written_out(dtype, loader, max_norm=None, lr=0.1):
    """The weights after an epoch of plain PyTorch in mixed precision."""
    model = net()
    opt, scaler = SGD(model.parameters(), lr), torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    for x, y in loader:
        opt.zero_grad()
        with torch.autocast("cpu", dtype):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        if max_norm:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        scaler.step(opt)
        scaler.update()
    return list(model.parameters())


class Watch(Callback):
    """What a callback sees of dtypes and gradients."""

    order = 100

    def __init__(self):
        self.pred, self.loss, self.hidden, self.norms = set(), [], set(), []

    def before_fit(self, learn):
        learn.model[0].register_forward_hook(lambda m, i, o: self.hidden.add(o.dtype))

    def after_loss(self, learn):
        self.pred.add(learn.pred.dtype)
        self.loss.append(learn.loss.item())

    def before_step(self, learn):
        self.norms.append(nn.utils.get_total_norm([p.grad for p in learn.model.parameters()]).item())

    def after_batch(self, learn):
        if learn.training:
            assert learn.loss.item() == self.loss[-1]  # unscaled again


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("max_norm", [None, 0.05])
def test_training_equals_mixed_precision_written_out(make_learn, dtype, max_norm):
    learn = make_learn(model=net(), opt_func=SGD, cbs=[MixedPrecision(dtype)])
    learn.add_cbs([GradientClip(max_norm)] if max_norm else [])
    learn.fit(1, 0.1)
    torch.testing.assert_close(list(learn.model.parameters()), written_out(dtype, batches(8, 8, 8, 8), max_norm))


@pytest.mark.parametrize("to_half, dtype", [(Learner.to_fp16, torch.float16), (Learner.to_bf16, torch.bfloat16)])
def test_layers_compute_in_half_precision_and_others_see_float32(make_learn, to_half, dtype):
    learn, watch = to_half(make_learn(model=net())), Watch()
    learn.fit(1, 0.1, cbs=watch)
    assert watch.hidden == {dtype} and watch.pred == {torch.float32}
    assert all(p.dtype == torch.float32 for p in learn.model.parameters())
    assert max(watch.norms) < 100  # unscaled
    preds, _ = learn.get_preds()
    assert preds.dtype == torch.float32 and watch.hidden == {dtype}


def test_to_fp32_computes_in_full_precision_again(make_learn):
    learn, watch = make_learn(model=net()).to_bf16().to_fp16().to_fp32(), Watch()
    assert not any(isinstance(cb, MixedPrecision) for cb in learn.cbs)
    learn.fit(1, cbs=watch)
    assert watch.hidden == {torch.float32}


def test_one_precision_replaces_the_other(make_learn):
    learn = make_learn().to_bf16().to_fp16()
    assert [cb.dtype for cb in learn.cbs if isinstance(cb, MixedPrecision)] == [torch.float16]


def test_steps_that_overflow_are_skipped_and_nobody_counts_them(make_learn):
    class Overflow(Callback):
        order = -45  # before gradients are unscaled

        def before_step(self, learn):
            if learn.iter in (0, 2):
                learn.model[0].weight.grad[0, 0] = torch.inf
                before.append(learn.model[0].weight.clone())

        def after_cancel_step(self, learn):
            assert torch.equal(before[-1], learn.model[0].weight)

    before, rates = [], TorchScheduler(lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.5))
    learn, precision = make_learn(model=net(), opt_func=SGD), MixedPrecision()
    learn.fit(1, 0.1, cbs=[precision, Overflow(), rates, EMA(0.0)])
    assert learn.n_steps == 2 and len(before) == 2
    assert learn.recorder.lrs == pytest.approx([0.1, 0.1, 0.05, 0.05])
    assert precision.scale == 65536 / 4


def test_the_scale_survives_from_fit_to_fit(make_learn):
    precision = MixedPrecision()
    learn = make_learn(cbs=precision)
    learn.fit(1)
    precision.scaler.update(1024.0)
    learn.fit(1)
    assert precision.scale == 1024


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_error_in_a_batch_leaves_no_autocast_behind(make_learn, dtype):
    class Broken(Callback):
        def after_pred(self, learn):
            raise RuntimeError("broken")

    learn = make_learn(model=net(), cbs=MixedPrecision(dtype))
    with pytest.raises(RuntimeError, match="broken"):
        learn.fit(1, cbs=Broken())
    assert not torch.is_autocast_enabled("cpu")
    assert learn.model(torch.randn(2, 4)).dtype == torch.float32
    learn.fit(1)


def test_it_goes_with_accumulation_clipping_and_sam(make_learn):
    cbs = [MixedPrecision(), GradientAccumulation(32), GradientClip(), SAM()]
    learn = make_learn(train=(16,) * 10, model=net(), cbs=cbs)
    learn.fit(15, 1e-2)
    history = learn.recorder.history
    assert history["train_loss"].iloc[-1] < 0.7 * history["train_loss"][0] and learn.n_steps == 15 * 5


@pytest.mark.parametrize("to_half", [Learner.to_fp32, Learner.to_fp16, Learner.to_bf16])
@pytest.mark.parametrize("n_acc", [None, 32])
@pytest.mark.parametrize("frozen", [False, True])
def test_lr_find_works_under_every_precision_accumulation_and_frozen_state(make_learn, to_half, n_acc, frozen):
    def splitter(model):
        return [list(model[0].parameters()), list(model[2].parameters())]

    learn = to_half(make_learn(train=(16,) * 8, model=net(), splitter=splitter))
    learn.add_cbs([GradientAccumulation(n_acc)] if n_acc else [])
    if frozen:
        learn.freeze()
    before = [p.clone() for p in learn.model.parameters()]
    lrs = learn.lr_find(num_it=40, show_plot=False)
    assert 1e-4 < lrs.valley < 3
    finder = learn.recorder.lr_finder
    assert len(set(finder.lrs)) == len(finder.lrs) >= 30  # a learning rate a step, not a batch
    torch.testing.assert_close(list(learn.model.parameters()), before, rtol=0, atol=0)


def test_a_cpu_without_the_instructions_is_warned_of(make_learn, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False}, raising=False)
    with pytest.warns(UserWarning, match="instructions and emulates them, about ten times slower"):
        make_learn().to_bf16().fit(1)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_learn().to_bf16().fit(1)


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match="mixed precision is torch"):
        MixedPrecision(torch.float64)


def test_channels_last_changes_the_layout_and_nothing_else():
    def learner():
        torch.manual_seed(0)
        data = DataBunch([(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))] * 2, device="cpu")
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        learn = Learner(data, model, nn.CrossEntropyLoss())
        learn.progress.table = False
        return learn

    class Layout(Callback):
        def after_pred(self, learn):
            layouts.append(learn.xb[0].is_contiguous(memory_format=torch.channels_last))

    layouts, plain, learn = [], learner(), learner().to_channels_last().to_channels_last()
    assert sum(isinstance(cb, ChannelsLast) for cb in learn.cbs) == 1
    plain.fit(2)
    learn.fit(2, cbs=Layout())
    assert all(layouts) and learn.model[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(learn.recorder.losses, plain.recorder.losses, rtol=1e-5, atol=1e-6)


def test_a_compiled_model_trains_and_saves_as_before(make_learn, tmp_path):
    plain, learn = make_learn(model=net()), make_learn(model=net(), path=tmp_path).compile(backend="aot_eager")
    plain.fit(2)
    learn.fit(2)
    torch.testing.assert_close(learn.recorder.losses, plain.recorder.losses, rtol=1e-5, atol=1e-6)
    assert list(learn.model.state_dict()) == list(net().state_dict())
    learn.save("compiled")
    assert make_learn(model=net(), path=tmp_path).load("compiled").validate() == pytest.approx(learn.validate())


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_training_on_a_gpu_learns_in_half_precision(dtype):
    loader = [(x.cuda(), y.cuda()) for x, y in batches(*[32] * 16)]
    learn = Learner(DataBunch(loader, device="cuda"), net(), nn.CrossEntropyLoss(), cbs=MixedPrecision(dtype))
    learn.fit_one_cycle(10, 1e-2)
    assert learn.recorder.history["train_loss"].iloc[-1] < 0.3
