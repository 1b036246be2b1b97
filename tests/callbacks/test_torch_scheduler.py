"""Schedulers of PyTorch in a fit, beside the loop that their documentation shows."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, lr_scheduler
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)
from warmstart.callbacks import (
    Callback,
    CancelStep,
    GradientAccumulation,
    ParamScheduler,
    TorchScheduler,
    sched_lin,
)
from warmstart.learner import Lookahead


def in_sequence(opt):
    return SequentialLR(opt, [LinearLR(opt, 0.1, total_iters=3), ExponentialLR(opt, 0.8)], [3])


def chained(opt):
    return ChainedScheduler([LinearLR(opt, 0.5, total_iters=4), ExponentialLR(opt, 0.9)])


SCHEDULERS = {
    "StepLR": partial(StepLR, step_size=3, gamma=0.5),
    "MultiStepLR": partial(MultiStepLR, milestones=[2, 5, 9], gamma=0.3),
    "ConstantLR": partial(ConstantLR, factor=0.3, total_iters=4),
    "LinearLR": partial(LinearLR, start_factor=0.2, total_iters=6),
    "ExponentialLR": partial(ExponentialLR, gamma=0.9),
    "PolynomialLR": partial(PolynomialLR, total_iters=10, power=2.0),
    "CosineAnnealingLR": partial(CosineAnnealingLR, T_max=7, eta_min=0.01),
    "CosineAnnealingWarmRestarts": partial(CosineAnnealingWarmRestarts, T_0=3, T_mult=2),
    "OneCycleLR": partial(OneCycleLR, max_lr=0.5, total_steps=12),
    "CyclicLR": partial(CyclicLR, base_lr=0.01, max_lr=0.2, step_size_up=3),
    "LambdaLR": partial(LambdaLR, lr_lambda=lambda step: 1 / (1 + step)),
    "MultiplicativeLR": partial(MultiplicativeLR, lr_lambda=lambda step: 0.95 if step % 2 else 0.9),
    "SequentialLR": in_sequence,
    "ChainedScheduler": chained,
}
sgd = partial(SGD, momentum=0.9)
each_scheduler = pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)


class Rates(Callback):
    """Keeps learning rate and momentum of every step."""

    def __init__(self):
        self.lrs, self.moms = [], []

    def before_step(self, learn):
        group = learn.opt.param_groups[0]
        self.lrs.append(group["lr"])
        self.moms.append(group["betas"][0] if "betas" in group else group["momentum"])


def written_out(scheduler, n, every=1, opt_func=sgd, lr=0.1):
    """Learning rates and momenta of `n` steps, with a step of the scheduler after each `every` of them."""
    opt, rates = opt_func([nn.Parameter(torch.zeros(1))], lr=lr), Rates()
    made = scheduler(opt)
    for step in range(n):
        rates.before_step(type("Learner", (), {"opt": opt}))
        opt.step()
        if (step + 1) % every == 0:
            made.step()
    return pytest.approx(rates.lrs), pytest.approx(rates.moms)


@pytest.fixture
def fitted(make_learn):
    """Learning rates and momenta of the steps of a fit of 3 epochs of 4 batches, with these callbacks."""

    def fit(*cbs, lr=0.1, opt_func=sgd, learn=None, n_epoch=3):
        learn, rates = learn or make_learn(opt_func=opt_func), Rates()
        learn.fit(n_epoch, lr, cbs=[*cbs, rates])
        return rates.lrs, rates.moms

    return fit


@pytest.fixture(autouse=True)
def no_warnings_of_order(recwarn):
    """None of PyTorch's warnings that a scheduler was stepped at the wrong time."""
    yield
    assert [str(w.message) for w in recwarn if "lr_scheduler" in str(w.message)] == []


# ---- stepped per batch, or per epoch


@each_scheduler
@pytest.mark.parametrize("opt_func", [sgd, AdamW])
def test_per_batch_it_is_the_loop_of_pytorchs_documentation(fitted, scheduler, opt_func):
    assert fitted(TorchScheduler(scheduler), opt_func=opt_func) == written_out(scheduler, 12, opt_func=opt_func)


@each_scheduler
def test_per_epoch_it_steps_after_the_last_batch(fitted, scheduler):
    assert fitted(TorchScheduler(scheduler, per="epoch")) == written_out(scheduler, 12, every=4)


@pytest.mark.parametrize(("per", "every", "n"), [("batch", 5, 5), ("epoch", 2, 8), ("batch", 100, 100)])
def test_every_so_many_of_them(fitted, per, every, n):
    scheduler = SCHEDULERS["ExponentialLR"]
    assert fitted(TorchScheduler(scheduler, per, every=every)) == written_out(scheduler, 12, every=n)


def test_batches_without_a_step_do_not_count(make_learn, fitted):
    scheduler = SCHEDULERS["ExponentialLR"]
    lrs, _ = fitted(TorchScheduler(scheduler), GradientAccumulation(16))
    assert lrs == written_out(scheduler, 6)[0]

    class SkipsSecond(Callback):
        order = 100  # after the rate is noted

        def before_step(self, learn):
            if learn.iter == 1:
                raise CancelStep

    lrs, _ = fitted(TorchScheduler(scheduler), SkipsSecond(), n_epoch=1)
    assert lrs == pytest.approx([0.1, 0.09, 0.09, 0.081])


def test_layer_groups_keep_their_proportions(make_learn):
    learn = make_learn(splitter=lambda model: [list(model[0].parameters()), list(model[2].parameters())], opt_func=SGD)
    learn.fit(1, [0.1, 0.2], cbs=TorchScheduler(SCHEDULERS["ExponentialLR"]))
    assert [group["lr"] for group in learn.opt.param_groups] == pytest.approx([0.1 * 0.9**4, 0.2 * 0.9**4])
    cycle = partial(OneCycleLR, total_steps=4, cycle_momentum=False)
    learn.fit(1, cbs=TorchScheduler(partial(cycle, max_lr=[0.1, 0.5])))
    assert learn.recorder.lrs[4:] == written_out(partial(cycle, max_lr=0.5), 4)[0]


# ---- by results


def reduced(opt):
    return lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=0, threshold=0.0)


def by_results(losses, lr=0.1):
    opt = SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, lrs = reduced(opt), []
    for loss in losses:
        lrs.append(opt.param_groups[0]["lr"])
        scheduler.step(loss)
    return pytest.approx(lrs)


@pytest.mark.parametrize("monitor", ["valid_loss", "train_loss", "worse"])
def test_reduce_on_plateau_gets_the_epochs_result(make_learn, monitor):
    epoch = iter(range(100))

    def worse(pred, targ):
        return torch.tensor(float(next(epoch) // 4))

    learn, rates = make_learn(metrics=worse, opt_func=sgd), Rates()
    learn.fit(8, 0.5, cbs=[TorchScheduler(reduced, "epoch", monitor), rates])
    assert rates.lrs[::4] == by_results(learn.recorder.history[monitor], 0.5)
    assert monitor != "worse" or rates.lrs[-1] < 0.2


def test_reduce_on_plateau_names_the_results_there_are(learn):
    with pytest.raises(ValueError, match="no 'accuracy' to monitor: this epoch gave train_loss, valid_loss"):
        learn.fit(1, cbs=TorchScheduler(reduced, "epoch", "accuracy"))


def test_reduce_on_plateau_steps_by_epochs(learn):
    with pytest.raises(ValueError, match=r"goes by the results of an epoch: TorchScheduler\(…, per='epoch'\)"):
        learn.fit(1, cbs=TorchScheduler(reduced))
    assert not learn.recorder.losses


# ---- from fit to fit


@each_scheduler
def test_what_makes_a_scheduler_makes_one_for_each_fit_from_its_own_rate(make_learn, fitted, scheduler):
    learn, cb = make_learn(opt_func=sgd), TorchScheduler(scheduler, every=2)
    fitted(cb, learn=learn, n_epoch=1)
    assert fitted(cb, lr=0.03, learn=learn) == written_out(scheduler, 12, every=2, lr=0.03)


def test_a_fit_of_an_odd_number_of_steps_does_not_shift_the_next(make_learn, fitted):
    learn, cb = make_learn(train=(8,) * 3, opt_func=sgd), TorchScheduler(chained, every=2)
    for _ in range(2):
        assert fitted(cb, learn=learn, n_epoch=1) == written_out(chained, 3, every=2)


@pytest.mark.parametrize("opt_func", [sgd, AdamW])
@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_momentum_and_everything_else_is_put_back(make_learn, fitted, opt_func, name):
    learn = make_learn(opt_func=opt_func)
    learn.fit(1, 0.1)
    before = copy.deepcopy(learn.opt.param_groups[0])
    _, moms = fitted(TorchScheduler(SCHEDULERS[name]), learn=learn)
    assert len(set(moms)) > 1
    after = learn.opt.param_groups[0]
    assert {k: v for k, v in after.items() if k not in ("params", "lr")} == {
        k: v for k, v in before.items() if k not in ("params", "lr")
    }


def test_momentum_is_put_back_when_the_fit_fails(learn):
    class Fails(Callback):
        def after_batch(self, learn):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        learn.fit(1, cbs=[TorchScheduler(SCHEDULERS["OneCycleLR"]), Fails()])
    assert learn.opt.param_groups[0]["betas"] == (0.9, 0.999)
    assert not {"max_lr", "initial_lr"} & set(learn.opt.param_groups[0])


@each_scheduler
@pytest.mark.parametrize("every", [1, 3])
def test_one_that_exists_goes_on_from_fit_to_fit(make_learn, fitted, scheduler, every):
    learn = make_learn(opt_func=sgd, lr=0.1)
    learn.prepare_optimizer()
    cb = TorchScheduler(scheduler(learn.opt), every=every)
    fits = [fitted(cb, learn=learn, n_epoch=1, lr=None) for _ in range(3)]
    assert tuple([rate for fit in rates for rate in fit] for rates in zip(*fits, strict=True)) == written_out(
        scheduler, 12, every=every
    )


def test_one_by_results_goes_on_too(make_learn):
    learn = make_learn(metrics=lambda pred, targ: torch.ones(()), lr=0.1)
    learn.prepare_optimizer()
    cb = TorchScheduler(reduced(learn.opt), "epoch", "<lambda>")
    for _ in range(4):
        learn.fit(1, cbs=cb)
    assert learn.recorder.lrs[::4] == by_results([1.0] * 4)


def test_a_dry_run_and_the_learning_rate_finder_leave_it_where_it_is(make_learn, fitted):
    learn = make_learn(opt_func=sgd, lr=0.1)
    learn.prepare_optimizer()
    cb = TorchScheduler(ExponentialLR(learn.opt, 0.9))
    learn.fit(1, fast_dev_run=True, cbs=cb)
    with learn.added_cbs(cb):
        learn.lr_find(num_it=10, show_plot=False)
    assert fitted(cb, learn=learn, lr=None) == written_out(SCHEDULERS["ExponentialLR"], 12)


def test_one_for_another_optimizer_is_refused(make_learn):
    other = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="This scheduler was made for another optimizer"):
        make_learn().fit(1, cbs=TorchScheduler(StepLR(other, 1)))


def test_lookahead_is_an_optimizer_like_others(make_learn, fitted):
    def lookahead(params, lr):
        return Lookahead(SGD(params, lr, momentum=0.9))

    scheduler = SCHEDULERS["OneCycleLR"]
    learn = make_learn(opt_func=lookahead, lr=0.1)
    assert fitted(TorchScheduler(scheduler), learn=learn) == written_out(scheduler, 12)
    learn.prepare_optimizer()
    assert fitted(TorchScheduler(scheduler(learn.opt)), learn=learn, lr=None) == written_out(scheduler, 12)


# ---- beside others


@pytest.mark.parametrize("fit", ["fit_one_cycle", "fit_flat_cos"])
def test_another_schedule_of_the_learning_rate_is_refused(learn, fit):
    with pytest.raises(ValueError, match=r"another schedule of the learning rate.*: use learn\.fit, without"):
        getattr(learn, fit)(1, cbs=TorchScheduler(partial(StepLR, step_size=1)))
    learn.fit(1, cbs=[TorchScheduler(partial(StepLR, step_size=1)), ParamScheduler({"mom": sched_lin(0.9, 0.8)})])


def test_two_for_one_optimizer_are_refused(learn):
    two = [TorchScheduler(partial(StepLR, step_size=1)), TorchScheduler(partial(ExponentialLR, gamma=0.9))]
    with pytest.raises(ValueError, match="Two TorchSchedulers, of StepLR and ExponentialLR, would both"):
        learn.fit(1, cbs=two)
    for cb in two:
        learn.fit(1, cbs=cb)


# ---- what is no scheduler


def test_what_makes_no_scheduler_is_an_error(learn):
    with pytest.raises(TypeError, match=r"scheduler\(opt\) returned float, not an LRScheduler of torch"):
        learn.fit(1, cbs=TorchScheduler(lambda opt: 0.1))
    for per in ("step", "Epoch"):
        with pytest.raises(ValueError, match=f"per='{per}': a scheduler steps per 'batch' or per 'epoch'"):
            TorchScheduler(chained, per=per)
    with pytest.raises(ValueError, match="every=0"):
        TorchScheduler(chained, every=0)


@pytest.mark.parametrize("scheduler", [0.1, "StepLR", None])
def test_what_is_no_scheduler_at_all_is_found_at_once(scheduler):
    with pytest.raises(TypeError, match="is no scheduler of torch, nor a function that makes one"):
        TorchScheduler(scheduler)


# ---- seen before training


@each_scheduler
def test_values_are_the_learning_rates_to_come(scheduler):
    assert TorchScheduler(scheduler).values(12, 0.1) == written_out(scheduler, 12)[0]


def test_values_need_what_can_be_run_in_advance(learn):
    learn.prepare_optimizer()
    with pytest.raises(ValueError, match="can only be run once: pass what makes it"):
        TorchScheduler(StepLR(learn.opt, 1)).values(3)
    with pytest.raises(ValueError, match="depends on the results: there is nothing to show in advance"):
        TorchScheduler(reduced, "epoch").values(3)
