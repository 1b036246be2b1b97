"""Averages of weights, beside torch's own."""

from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from warmstart.callbacks import (
    EMA,
    SWA,
    Callback,
    CancelTrain,
    EarlyStopping,
    GradientAccumulation,
    SaveModel,
    ValidateEvery,
)


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


class Follow(Callback):
    """Averages with torch beside what is tested; has a look at the weights at each event asked for."""

    order = -100

    def __init__(self, averaged, per):
        self.averaged, self.per = averaged, per

    def after_step(self, learn):
        if self.per == "step":
            self.averaged.update_parameters(learn.model)

    def after_train(self, learn):
        if self.per == "epoch" and learn.pct_train >= 0.75:
            self.averaged.update_parameters(learn.model)


def test_ema_ends_with_the_average_that_torch_computes(make_learn):
    learn = make_learn(model=net())
    reference = AveragedModel(learn.model, multi_avg_fn=get_ema_multi_avg_fn(0.7), use_buffers=True)
    reference.update_parameters(learn.model)  # the first only copies
    learn.fit(3, 0.1, cbs=[EMA(0.7), Follow(reference, "step")])
    for name, value in reference.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(learn.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_validation_sees_the_average_and_training_its_own_weights(make_learn):
    plain = make_learn(model=net())
    plain.fit(3, 0.1)

    class Look(Callback):
        def before_validate(self, learn):
            seen.append(learn.model[0].weight.clone())

    seen, learn = [], make_learn(model=net())
    learn.fit(3, 0.1, cbs=[EMA(0.7), Look()])
    assert learn.recorder.losses == plain.recorder.losses
    assert list(learn.recorder.history["valid_loss"]) != list(plain.recorder.history["valid_loss"])
    torch.testing.assert_close(seen[-1], learn.model[0].weight, rtol=0, atol=0)
    assert learn.validate()["valid_loss"] == pytest.approx(learn.recorder.history["valid_loss"].iloc[-1])


def test_a_validation_within_an_epoch_sees_the_average_too(make_learn):
    class Look(Callback):
        order = 100

        def before_validate(self, learn):
            seen.append((learn.model[0].weight.clone(), reference.module[0].weight.clone()))

    seen, learn = [], make_learn(model=net())
    reference = AveragedModel(learn.model, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    reference.update_parameters(learn.model)
    learn.fit(2, 0.1, cbs=[EMA(0.7), Follow(reference, "step"), Look(), ValidateEvery(3)])
    assert len(seen) == 2 + 2
    for weight, expected in seen:
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
    plain = make_learn(model=net())
    plain.fit(2, 0.1)
    assert learn.recorder.losses == plain.recorder.losses


def test_what_is_saved_as_the_best_is_the_average_that_was_validated(make_learn, tmp_path):
    learn = make_learn(model=net(), path=tmp_path)
    learn.fit(4, 0.1, cbs=[EMA(0.5), SaveModel()])
    best = learn.recorder.history["valid_loss"].min()
    assert learn.validate()["valid_loss"] == pytest.approx(best, rel=1e-6)
    learn.load("model", with_opt=False)
    assert learn.validate()["valid_loss"] == pytest.approx(best, rel=1e-6)


ENDS = [EarlyStopping(patience=1, min_delta=100.0), KeyboardInterrupt(), RuntimeError("broken")]


@pytest.mark.parametrize("end", ENDS)
def test_a_fit_that_ends_early_ends_with_the_average_too(make_learn, end):
    class Break(Callback):
        def after_batch(self, learn):
            if isinstance(end, BaseException) and learn.epoch == 1 and learn.iter == 1 and learn.training:
                raise end

    learn = make_learn(model=net())
    reference = AveragedModel(learn.model, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    reference.update_parameters(learn.model)
    with suppress(KeyboardInterrupt, RuntimeError):
        learn.fit(5, 0.1, cbs=[EMA(0.7), Follow(reference, "step"), Break() if isinstance(end, BaseException) else end])
    torch.testing.assert_close(learn.model[0].weight, reference.module[0].weight, rtol=1e-5, atol=1e-6)


def test_cancelled_training_is_averaged_once(make_learn):
    class Leave(Callback):
        def after_batch(self, learn):
            if learn.training and learn.iter == 1:
                raise CancelTrain

    learn = make_learn(model=net())
    reference = AveragedModel(learn.model, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    reference.update_parameters(learn.model)
    learn.fit(2, 0.1, cbs=[EMA(0.7), Follow(reference, "step"), Leave()])
    torch.testing.assert_close(learn.model[0].weight, reference.module[0].weight, rtol=1e-5, atol=1e-6)


def test_steps_not_taken_are_not_averaged(make_learn):
    learn, ema = make_learn(model=net()), EMA(0.5)
    learn.fit(1, 0.1, cbs=[ema, GradientAccumulation(32)])  # one step in all
    plain = make_learn(model=net())
    plain.fit(1, 0.1, cbs=GradientAccumulation(32))
    torch.testing.assert_close(learn.model[3].weight, (net()[3].weight + plain.model[3].weight) / 2)


def test_a_decay_too_slow_for_the_fit_is_warned_of(make_learn):
    with pytest.warns(UserWarning, match=r"keeps 100% of the weights .* of 4 steps"):
        make_learn(model=net()).fit(1, cbs=EMA())


def test_swa_ends_with_torchs_average_and_its_batchnorm_statistics(make_learn):
    learn = make_learn(model=net(), train=(8, 8, 8, 4))
    reference = AveragedModel(learn.model)
    learn.fit(8, 0.1, cbs=[SWA(0.75), Follow(reference, "epoch")])
    assert int(reference.n_averaged) == 3
    update_bn([x for x, _ in learn.data.train_dl], reference)
    for name in ("0.weight", "3.bias", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(learn.model.state_dict()[name], reference.module.state_dict()[name])
    assert learn.model[1].momentum == 0.1


def test_swa_keeps_its_own_learning_rate_while_it_averages(make_learn):
    learn = make_learn(model=net())
    learn.fit_one_cycle(4, 0.1, cbs=SWA(0.75, lr=0.02))
    assert learn.recorder.lrs[-4:] == [0.02] * 4 and 0.02 not in learn.recorder.lrs[:-4]


def test_a_model_without_batchnorm_is_not_run_again(make_learn):
    class Count(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x

    learn = make_learn(model=nn.Sequential(Count(), nn.Linear(4, 3)), valid=None)
    learn.fit(4, cbs=SWA())
    assert learn.model[0].calls == 16


@pytest.mark.parametrize("make", [lambda: EMA(1.0), lambda: EMA(-0.1), lambda: SWA(1.0), lambda: SWA(-1)])
def test_shares_outside_their_range_are_refused(make):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        make()


def test_a_second_fit_begins_from_the_average(make_learn):
    learn = make_learn(model=net())
    learn.fit(2, 0.1, cbs=EMA(0.7))
    before = learn.model[0].weight.clone()
    learn.fit(1, 0.0, cbs=EMA(0.7))
    torch.testing.assert_close(learn.model[0].weight, before)
