"""The loop: which events come when, what cancels what, and that the weights are those of a loop written by hand."""

import copy
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from warmstart.callbacks import (
    Callback,
    CancelBackward,
    CancelBatch,
    CancelEpoch,
    CancelFit,
    CancelStep,
    CancelTrain,
    CancelValidate,
)
from warmstart.callbacks.core import EVENTS
from warmstart.data import DataBunch
from warmstart.learner import SGD, AdamW, Learner, accuracy

torch.set_num_threads(1)


def batches(n, bs=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(bs, 4, generator=generator) for _ in range(n)]
    return [(x, (x.sum(1) > 0).long()) for x in inputs]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 2))


def make_learn(n_train=2, n_valid=1, cls=Learner, **kwargs):
    data = DataBunch(batches(n_train), batches(n_valid, seed=1) if n_valid else None, device="cpu")
    learn = cls(data, network(), nn.CrossEntropyLoss(), **kwargs)
    learn.progress.bar = learn.progress.table = False
    return learn


def listener(log):
    """A callback that hears every event."""

    def hear(event):
        return lambda self, learn: log.append(event)

    return type("Listener", (Callback,), {event: hear(event) for event in EVENTS})()


BATCH = ["before_batch", "after_pred", "after_loss", "before_backward", "after_backward", "before_step", "after_step",
         "after_batch"]  # fmt: skip
VALID_BATCH = ["before_batch", "after_pred", "after_loss", "after_batch"]
TRAIN = ["before_train", *BATCH, *BATCH, "after_train"]
VALIDATE = ["before_validate", *VALID_BATCH, "after_validate"]


def test_a_fit_announces_its_stages_in_order():
    log = []
    make_learn().fit(2, cbs=listener(log))
    epoch = ["before_epoch", *TRAIN, *VALIDATE, "after_epoch"]
    assert log == ["after_create", "before_fit", *epoch, *epoch, "after_fit"]


def test_without_a_validation_set_there_is_no_validation():
    log = []
    make_learn(n_valid=0).fit(1, cbs=listener(log))
    assert log == ["after_create", "before_fit", "before_epoch", *TRAIN, "after_epoch", "after_fit"]


def test_a_validation_of_its_own_announces_only_itself():
    log, learn = [], make_learn()
    learn.add_cb(listener(log))
    learn.validate()
    assert log == ["after_create", *VALIDATE]


def test_predicting_a_batch_announces_only_the_batch():
    log, learn = [], make_learn()
    learn.add_cb(listener(log))
    learn.run_batch((torch.zeros(1, 4),))
    assert log == ["after_create", "before_batch", "after_pred", "after_batch"]


def test_no_epochs_are_a_fit_too():
    log = []
    make_learn().fit(0, cbs=listener(log))
    assert log == ["after_create", "before_fit", "after_fit"]


def test_an_event_that_nobody_hears_has_nobody_to_call():
    class Hears(Callback):
        def after_pred(self, learn):
            heard.update({event: len(who) for event, who in learn._heard.items() if who})

    heard, learn = {}, make_learn()
    learn.cbs = [Hears()]
    learn.fit(1)
    assert heard == {"after_pred": 1}


def test_who_hears_what_is_settled_when_the_fit_begins():
    log = []

    class Adds(Callback):
        def before_epoch(self, learn):
            if learn.epoch == 0:
                learn.add_cb(listener(log))

    learn = make_learn()
    learn.fit(2, cbs=Adds())
    assert log == ["after_create"]
    learn.fit(1)
    assert log[1:3] == ["before_fit", "before_epoch"]  # it was added to stay


# ---- where the loop is


def test_callbacks_can_read_where_the_loop_is():
    seen = []

    class Look(Callback):
        def before_batch(self, learn):
            seen.append(
                (learn.epoch, learn.training, learn.iter, learn.n_iter, learn.train_iter, learn.pct_train, learn.bs)
            )

    make_learn().fit(2, cbs=Look())
    assert seen == [
        (0, True, 0, 2, 0, 0, 8), (0, True, 1, 2, 1, 0.25, 8), (0, False, 0, 1, 2, 0.5, 8),
        (1, True, 0, 2, 2, 0.5, 8), (1, True, 1, 2, 3, 0.75, 8), (1, False, 0, 1, 4, 1, 8),
    ]  # fmt: skip


def test_the_model_trains_in_training_and_evaluates_in_validation():
    modes = {}

    class Look(Callback):
        def after_pred(self, learn):
            modes[learn.training] = (learn.model.training, torch.is_grad_enabled(), learn.pred.requires_grad)

    with torch.no_grad():  # whatever it is outside
        make_learn().fit(1, cbs=Look())
    assert modes == {True: (True, True, True), False: (False, False, False)}


def test_progress_is_the_share_of_epochs_where_a_loader_has_no_length():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(batches(2))

    seen = []

    class Look(Callback):
        def before_batch(self, learn):
            seen.append((learn.n_iter, learn.pct_train))

    learn = make_learn()
    learn.data = DataBunch(torch.utils.data.DataLoader(Stream(), batch_size=None), device="cpu")
    learn.fit(2, cbs=Look())
    assert seen == [(None, 0), (None, 0), (None, 0.5), (None, 0.5)]


def test_progress_ends_at_1_even_if_a_loader_gives_more_than_it_says():
    class Understated(list):
        def __len__(self):
            return 2

    progress = []

    class Look(Callback):
        def before_batch(self, learn):
            progress.append(learn.pct_train)

    learn = make_learn()
    learn.data = DataBunch(Understated(batches(4)), device="cpu")
    learn.fit(1, cbs=Look())
    assert progress == [0, 0.5, 1, 1]


def test_a_fit_lets_go_of_its_last_batch():
    learn = make_learn()
    learn.fit(1)
    assert (learn.xb, learn.yb, learn.pred, learn.loss) == ((), (), None, None)
    copy.deepcopy(learn.model)  # a prediction that is kept with its graph cannot be copied


# ---- the same as by hand


@pytest.mark.parametrize("opt_func", [AdamW, SGD, torch.optim.RMSprop])
def test_weights_are_bit_equal_to_a_loop_by_hand(opt_func):
    learn, model = make_learn(n_train=5, opt_func=opt_func), network()
    torch.manual_seed(1)
    learn.fit(3, 0.01)

    torch.manual_seed(1)
    fused = {"fused": True} if opt_func is not torch.optim.RMSprop else {}
    opt = opt_func(model.parameters(), lr=0.01, **fused)
    for _ in range(3):
        model.train()
        for x, y in batches(5):
            F.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
    for ours, theirs in zip(learn.model.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_validating_between_does_not_change_the_weights():
    plain, watched = make_learn(n_train=4), make_learn(n_train=4)

    class Validates(Callback):
        def after_batch(self, learn):
            if learn.training:
                results.append(learn.validate())
                learn.get_preds()

    results = []
    for learn in (plain, watched):
        torch.manual_seed(1)
        learn.fit(2, cbs=Validates() if learn is watched else None)
    assert len(results) == 8 and all(set(result) == {"valid_loss"} for result in results)
    assert plain.recorder.losses == watched.recorder.losses
    history = [learn.recorder.history.drop(columns="time") for learn in (plain, watched)]
    assert history[0].equals(history[1])


def test_a_pass_within_a_fit_leaves_the_loop_where_it_was():
    class Validates(Callback):
        def after_loss(self, learn):
            if learn.training:
                learn.model[1].eval()  # as one freezes BatchNorm
                names = (
                    "dl",
                    "training",
                    "iter",
                    "n_iter",
                    "train_iter",
                    "pct_train",
                    "xb",
                    "yb",
                    "pred",
                    "loss",
                    "epoch",
                )
                before = [getattr(learn, name) for name in names], learn.results
                learn.validate(), learn.get_preds(), learn.run_batch(learn.xb)
                assert all(a is getattr(learn, name) for a, name in zip(before[0], names, strict=True))
                assert learn.results is before[1]
                assert [m.training for m in learn.model] == [True, False, True, True, True]
                assert torch.is_grad_enabled()

    make_learn(metrics=accuracy).fit(1, cbs=Validates())


def test_results_of_the_epoch_are_those_of_its_own_validation():
    class Elsewhere(Callback):
        order = -12  # between the evaluation and the recorder

        def after_validate(self, learn):
            if learn.fitting and learn.dl is learn.data.valid_dl:
                other.append(learn.validate(dl=batches(3, seed=5))["valid_loss"])

    other, learn = [], make_learn()
    learn.fit(1, cbs=Elsewhere())
    recorded = learn.recorder.history["valid_loss"][0]
    assert recorded == learn.validate()["valid_loss"] != other[0]


def test_a_fit_within_a_fit_is_refused():
    class Fits(Callback):
        def after_epoch(self, learn):
            learn.fit(1)

    learn = make_learn()
    with pytest.raises(RuntimeError, match=r"fit was called within a fit. A callback may call validate or get_preds"):
        learn.fit(1, cbs=Fits())
    learn.fit(1)
    assert not learn.fitting


# ---- cancelling


def cancelled(learn, event, error, n_epoch=1):
    """The events of a fit in which a callback raises `error` the first time it hears `event`."""
    log, done = [], []

    class Cancels(Callback):
        order = 100

        def cancel(self, learn):
            if not done:
                done.append(event)
                raise error

    setattr(cancels := Cancels(), event, cancels.cancel)
    learn.fit(n_epoch, cbs=[listener(log), cancels])
    return log[1:]


def test_cancelling_a_batch_goes_on_with_the_next():
    log = cancelled(make_learn(), "after_pred", CancelBatch())
    skipped = ["before_batch", "after_pred", "after_cancel_batch", "after_batch"]
    assert log[2:-2] == ["before_train", *skipped, *BATCH, "after_train", *VALIDATE]


def test_cancelling_backward_leaves_it_out():
    log = cancelled(make_learn(), "before_backward", CancelBackward())
    assert log[3:12] == [*BATCH[:4], "after_cancel_backward", *BATCH[4:]]


def test_cancelling_a_step_keeps_the_gradients():
    gradients = []

    class Look(Callback):
        def before_step(self, learn):
            gradients.append(learn.model[4].bias.grad.clone())
            if learn.iter == 0:
                raise CancelStep

    class Without(Callback):
        def before_batch(self, learn):
            if learn.training and learn.iter == 0:
                raise CancelBatch

    kept, single = make_learn(), make_learn()
    for learn in (kept, single):
        learn.model = nn.Sequential(*(nn.Identity() if isinstance(m, nn.Dropout) else m for m in learn.model))
        learn.fit(1, cbs=Look() if learn is kept else [Without(), Look()])
    first, both, second = gradients
    torch.testing.assert_close(both - first, second, rtol=0.2, atol=1e-2)  # BatchNorm has seen another batch
    assert not torch.equal(both, second)


def test_cancelling_training_goes_on_with_validation():
    log = cancelled(make_learn(), "after_pred", CancelTrain())
    stopped = ["before_train", "before_batch", "after_pred", "after_cancel_batch", "after_cancel_train", "after_train"]
    assert log[2:-2] == [*stopped, *VALIDATE]


def test_cancelling_validation_ends_it():
    log = cancelled(make_learn(n_valid=2), "before_validate", CancelValidate())
    assert log[-5:] == ["before_validate", "after_cancel_validate", "after_validate", "after_epoch", "after_fit"]


def test_cancelling_an_epoch_goes_on_with_the_next():
    log = cancelled(make_learn(), "before_train", CancelEpoch(), n_epoch=2)
    assert log[1:5] == ["before_epoch", "before_train", "after_cancel_train", "after_cancel_epoch"]
    assert log[5:] == ["after_epoch", "before_epoch", *TRAIN, *VALIDATE, "after_epoch", "after_fit"]


def test_cancelling_the_fit_ends_it_in_order():
    log = cancelled(make_learn(), "before_backward", CancelFit(), n_epoch=3)
    assert log[6:] == [
        "before_backward", "after_cancel_backward", "after_cancel_batch", "after_cancel_train", "after_cancel_epoch",
        "after_cancel_fit", "after_fit",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
@pytest.mark.parametrize("event", ["before_fit", "before_train", "after_backward", "after_step", "before_validate"])
def test_an_interruption_or_error_runs_what_puts_things_back_and_leaves_a_usable_learner(event, error):
    log, learn = [], make_learn()
    learn.add_cb(listener(log))
    with pytest.raises(type(error)):
        cancelled(learn, event, error)
    assert "after_cancel_fit" in log and "after_fit" not in log
    opened = [e.removeprefix("before_") for e in log if e.startswith("before_")]
    closed = [e.removeprefix("after_cancel_") if "cancel" in e else e.removeprefix("after_") for e in log]
    assert all(closed.count(stage) == opened.count(stage) for stage in set(opened))

    log.clear()
    learn.fit(1)
    assert log[-1] == "after_fit" and "valid_loss" in learn.validate()


def test_gradients_of_an_interrupted_fit_do_not_leak_into_the_next():
    interrupted, other = make_learn(opt_func=SGD), make_learn(opt_func=SGD)
    with pytest.raises(KeyboardInterrupt):
        cancelled(interrupted, "after_backward", KeyboardInterrupt())
    other.model.load_state_dict(interrupted.model.state_dict())
    for learn in (interrupted, other):
        torch.manual_seed(1)
        learn.fit(1)
    assert torch.equal(interrupted.model[0].weight, other.model[0].weight)


class Order(list):
    """Batches that note the epoch they are asked for."""

    def __init__(self, items):
        super().__init__(items)
        self.sampler, self.epochs = self, []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def test_each_epoch_of_all_fits_has_its_own_order_even_if_one_is_cut_short():
    learn, order = make_learn(), Order(batches(2))
    learn.data = DataBunch(order, device="cpu")
    learn.fit(2)
    cancelled(learn, "after_pred", CancelEpoch())
    with pytest.raises(KeyboardInterrupt):
        cancelled(learn, "after_pred", KeyboardInterrupt())
    learn.fit(1)
    assert order.epochs == [0, 1, 2, 3, 4] and learn.epochs_begun == 5


def test_an_epoch_without_a_batch_is_an_error():
    class Once:
        def __init__(self):
            self.batches = iter(batches(2))

        def __iter__(self):
            return self.batches

    learn = make_learn()
    learn.data = DataBunch(Once(), device="cpu")
    with pytest.raises(ValueError, match=r"The training loader gave no batch in epoch 1. Can its data be read only"):
        learn.fit(2)


# ---- one method per step


def test_the_steps_of_a_batch_can_be_overridden():
    class Own(Learner):
        def forward(self):
            calls.append("forward")
            return super().forward() * 2

        def compute_loss(self):
            calls.append("compute_loss")
            return super().compute_loss() + 1

        def backward(self):
            calls.append("backward")
            (self.loss * 2).backward()

        def step(self):
            calls.append("step")
            super().step()

        def zero_grad(self):
            calls.append("zero_grad")
            super().zero_grad()

    calls = []
    learn = make_learn(n_train=1, cls=Own)
    learn.fit(1)
    assert calls == ["zero_grad", "forward", "compute_loss", "backward", "step", "zero_grad", "forward", "compute_loss"]
    assert learn.recorder.losses[0] > 1
    assert all(p.grad is None for p in learn.model.parameters())


def test_an_optimizer_with_a_zero_grad_of_its_own_is_asked():
    class Own(SGD):
        asked = 0

        def zero_grad(self, set_to_none=True):
            Own.asked += 1
            super().zero_grad(set_to_none)

    make_learn(n_train=3, opt_func=Own).fit(1)
    assert Own.asked == 4


def test_callbacks_may_change_what_the_next_step_sees():
    class Changes(Callback):
        def before_batch(self, learn):
            learn.xb = (learn.xb[0] * 0,)

        def after_pred(self, learn):
            learn.pred = learn.pred * 0

        def after_loss(self, learn):
            losses.append(float(learn.loss.detach()))
            learn.loss = learn.loss * 0

        def after_backward(self, learn):
            gradients.append(float(learn.model[0].weight.grad.abs().sum()))

    losses, gradients = [], []
    make_learn().fit(1, cbs=Changes())
    assert losses == pytest.approx([0.6931] * 3, abs=1e-4) and gradients == [0, 0]


def test_a_callback_may_replace_the_loader_of_a_stage():
    class Shorter(Callback):
        def before_train(self, learn):
            learn.dl = learn.data.train_dl.dl[:1]

    learn = make_learn(n_train=5)
    learn.fit(2, cbs=Shorter())
    assert learn.train_iter == 2


# ---- batches of any kind


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, a, b=0):
        return self.linear(a + b)


def fit_one(batch, model=None, **kwargs):
    learn = Learner(DataBunch([batch], [batch], device="cpu"), model or Named(), nn.CrossEntropyLoss(), **kwargs)
    learn.progress.bar = learn.progress.table = False
    learn.fit(1)
    return learn


def test_a_dict_is_passed_by_keyword_without_its_target():
    x, y = batches(1)[0]
    learn = fit_one({"a": x, "b": x, "labels": y}, metrics=accuracy)
    assert learn.recorder.sizes == [8] and set(learn.validate()) == {"valid_loss", "accuracy"}


def test_all_but_the_last_of_a_tuple_are_inputs():
    x, y = batches(1)[0]
    assert fit_one((x, x, y)).recorder.sizes == [8] == fit_one([x, y]).recorder.sizes


def test_inputs_may_be_nested():
    class First(Named):
        def forward(self, pair):
            return super().forward(*pair)

    x, y = batches(1)[0]
    assert fit_one(([x, x], y), First()).recorder.sizes == [8]


def test_training_without_targets_is_an_error_that_says_what_a_batch_is():
    with pytest.raises(
        ValueError, match=r"The batch has no target to compare with: a training loader yields \(inputs, t"
    ):
        fit_one(torch.randn(8, 4))


def test_validation_without_targets_has_outputs_but_no_loss():
    seen = []

    class Look(Callback):
        def after_batch(self, learn):
            seen.append((learn.pred.shape, learn.yb, learn.loss))

    learn = make_learn().add_cb(Look())
    learn.run_validation(DataBunch([torch.randn(8, 4)], device="cpu").train_dl)
    assert seen == [((8, 2), (), None)]


# ---- losses


@pytest.mark.parametrize(
    ("loss_func", "message"),
    [
        (nn.CrossEntropyLoss(reduction="none"), r"a tensor of shape \(8,\), not one number"),
        (lambda pred, targ: 1.0, "float, not one number"),
        (lambda pred, targ: torch.tensor(1.0), "does not depend on any parameter that trains"),
    ],
)
def test_a_loss_that_cannot_be_trained_with_is_explained(loss_func, message):
    learn = make_learn()
    learn.loss_func = loss_func
    with pytest.raises(ValueError, match=message):
        learn.fit(1)


def test_a_loss_of_shape_1_is_as_good_as_a_scalar():
    learn = make_learn()
    learn.loss_func = lambda pred, targ: F.cross_entropy(pred, targ)[None]
    learn.fit(1)
    assert len(learn.recorder.losses) == 2 and learn.recorder.history["valid_loss"].notna().all()


def test_the_loss_checks_its_targets_when_a_pass_begins_and_when_it_fails():
    checked = []

    def loss(pred, targ):
        return F.cross_entropy(pred, targ)

    def check(pred, targ):
        checked.append(int(targ.max()))
        if targ.max() > 1:
            raise ValueError("targets must lie in 0…1")

    loss.check = check
    learn = make_learn(n_train=3)
    learn.loss_func = loss
    learn.fit(1)
    assert checked == [1, 1]  # of the training and the validation
    learn.data.train_dl.dl[2][1][0] = 5
    with pytest.raises(ValueError, match="targets must lie in 0…1"):
        learn.fit(1)
    assert checked[2:] == [1, 5]


def test_an_error_of_the_loss_itself_is_not_hidden():
    learn = make_learn()
    learn.loss_func = types.SimpleNamespace(__call__=None)
    with pytest.raises(TypeError, match="not callable"):
        learn.fit(1)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="errors have notes from Python 3.11 on")
def test_inputs_that_are_packed_together_are_explained():
    class Sum(nn.Linear):
        def forward(self, a, b):
            return super().forward(a + b)

    x, y = torch.randn(8, 4), torch.zeros(8).long()
    learn = Learner(DataBunch([((x, x), y)], device="cpu"), Sum(4, 2), nn.CrossEntropyLoss())
    with pytest.raises(TypeError, match="missing 1 required positional argument") as caught:
        learn.fit(1)
    assert "a loader yields (a, b, y), not ((a, b), y)" in caught.value.__notes__[0]
