"""Accumulating, clipping and SAM, each beside the same thing written out in PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from warmstart.callbacks import SAM, Callback, CancelTrain, GradientAccumulation, GradientClip, MixUp
from warmstart.data import DataBunch
from warmstart.learner import Learner

from .conftest import batches


def make_model(dtype=torch.float32):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def train(loader, cbs, n_epoch=2, model=None, opt_func=SGD, lr=0.1):
    learn = Learner(DataBunch(loader, device="cpu"), model or make_model(), nn.CrossEntropyLoss(), opt_func, cbs=cbs)
    learn.progress.table = learn.progress.bar = False
    learn.fit(n_epoch, lr)
    return learn


def assert_same_weights(model, other, **tolerance):
    torch.testing.assert_close(list(model.parameters()), list(other.parameters()), **tolerance)


def cut(loader, sizes):
    """The samples of a loader in other batches."""
    x, y = (torch.cat(values) for values in zip(*loader, strict=True))
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


# ---- accumulation


def test_accumulating_small_batches_equals_one_large_batch():
    large = batches(32, 32, 32)
    small = cut(large, [8] * 12)
    assert_same_weights(train(small, GradientAccumulation(32)).model, train(large, []).model, rtol=1e-6, atol=1e-7)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_groups_of_uneven_batches_equal_batches_of_their_samples(sizes, n_acc):
    groups = [0]
    for size in sizes:  # a group ends with the batch that fills it, and with the epoch
        if groups[-1] >= n_acc:
            groups.append(0)
        groups[-1] += size
    small = [(x.double(), y) for x, y in batches(*sizes)]
    learn = train(small, GradientAccumulation(n_acc), model=make_model(torch.float64))
    whole = train(cut(small, groups), [], model=make_model(torch.float64))
    assert_same_weights(learn.model, whole.model, rtol=1e-9, atol=1e-12)
    assert learn.n_steps == 2 * len(groups)


def test_the_recorded_loss_is_that_of_each_batch_unscaled():
    loader = batches(8, 8)
    learn = train(loader, GradientAccumulation(16), n_epoch=1)
    expected = [F.cross_entropy(make_model()(x), y).item() for x, y in loader]
    torch.testing.assert_close(learn.recorder.losses, expected)


def test_an_epoch_that_is_left_early_leaves_no_gradients_for_the_next():
    class Leave(Callback):
        def after_batch(self, learn):
            if learn.epoch == 0 and learn.iter == 1:
                raise CancelTrain

    class Begin(Callback):
        def before_batch(self, learn):
            if learn.iter == 0:
                assert all(p.grad is None for p in learn.model.parameters())

    learn = train(batches(8, 8, 8, 8), [GradientAccumulation(100), Leave(), Begin()])
    assert learn.n_steps == 2


def test_a_group_of_less_than_one_sample_is_refused():
    with pytest.raises(ValueError, match="number of samples"):
        GradientAccumulation(0)


def test_two_of_them_are_refused():
    with pytest.raises(ValueError, match="of 16 and of 8 samples, would both decide when this fit steps: choose one"):
        train(batches(8, 8), [GradientAccumulation(8), GradientAccumulation(16)])


# ---- clipping


def test_clipping_by_norm_is_pytorchs():
    loader, model = batches(8, 8, 8), make_model()
    opt = SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        opt.step()
    clip = GradientClip(0.1)
    assert_same_weights(train(loader, clip, n_epoch=1).model, model)
    torch.testing.assert_close(clip.norm, norm)


def test_clipping_by_value_cuts_each_number():
    class Look(Callback):
        order = 30

        def before_step(self, learn):
            largest.append(max(p.grad.abs().max().item() for p in learn.model.parameters()))

    largest = []
    train(batches(8, 8), [GradientClip(None, max_value=0.01), Look()])
    assert all(value == pytest.approx(0.01) for value in largest)


@pytest.mark.parametrize("bound", [-1, 0, float("nan")])
def test_a_bound_that_would_turn_gradients_round_is_refused(bound):
    with pytest.raises(ValueError, match=f"max_norm={bound}: gradients are cut to a bound above 0"):
        GradientClip(bound)
    with pytest.raises(ValueError, match=f"max_value={bound}: gradients are cut to a bound above 0"):
        GradientClip(None, max_value=bound)


# ---- SAM


def test_sam_steps_by_the_gradients_at_the_worst_place_nearby():
    loader, model, rho = batches(8, 8, 8), make_model(), 0.2
    opt = SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        params, places = list(model.parameters()), [p.detach().clone() for p in model.parameters()]
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), params)
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        with torch.no_grad():
            for p, g in zip(params, gradients, strict=True):
                p += rho * g / norm
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for p, place in zip(params, places, strict=True):
                p.copy_(place)
        opt.step()
    assert_same_weights(train(loader, SAM(rho), n_epoch=1).model, model, rtol=1e-5, atol=1e-7)


def test_sam_without_a_way_to_go_is_plain_descent():
    loader = batches(8, 8, 8)
    assert_same_weights(train(loader, SAM(0.0)).model, train(loader, []).model)


def test_sam_goes_with_frozen_layers_and_leaves_batchnorm_its_statistics():
    def model():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
        net[0].requires_grad_(False)
        return net

    plain, sam = (train(batches(8, 8), cbs, n_epoch=1, model=model()).model for cbs in ([], SAM()))
    assert sam[1].num_batches_tracked == 2
    torch.testing.assert_close(sam[1].running_mean, plain[1].running_mean)
    torch.testing.assert_close(sam[0].weight, model()[0].weight)


def test_sam_and_mixup_look_at_the_blended_loss_both_times():
    class Losses(Callback):
        order = 100

        def before_backward(self, learn):
            recorded.append((learn.recorder.losses[-1], learn.loss.item()))

    recorded = []
    train(batches(64, 64), [SAM(1e-6), MixUp(1.0), Losses()], n_epoch=1)
    for first, second in recorded:
        assert second == pytest.approx(first, rel=1e-4)


def test_an_error_on_the_way_puts_the_weights_back():
    class Breaks(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("broken")
            return x

    model = nn.Sequential(make_model(), Breaks())
    with pytest.raises(RuntimeError, match="broken"):
        train(batches(8), SAM(1.0), model=model)
    assert_same_weights(model[0], make_model(), rtol=0, atol=0)


def test_training_learns_under_all_three():
    learn = train(batches(*[16] * 12), [SAM(), GradientAccumulation(32), GradientClip()], n_epoch=10, lr=0.5)
    assert learn.recorder.history["train_loss"].iloc[-1] < 0.5 * learn.recorder.history["train_loss"][0]
