"""Schedules: the values of formulas and of PyTorch's schedulers, set before each batch, and put back afterwards."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import RMSprop, lr_scheduler
from warmstart.callbacks import (
    Callback,
    CancelTrain,
    ParamScheduler,
    combine_scheds,
    combined_cos,
    combined_lin,
    flat_cos,
    sched_cos,
    sched_exp,
    sched_lin,
    sched_no,
    sched_poly,
    sgdr,
    warmup_cos,
    wsd,
)
from warmstart.callbacks.hyper import has_momentum, set_hyper
from warmstart.learner import SGD, AdamW

values = st.floats(1e-6, 10)
shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("sched", "expected"),
    [
        (sched_no(2, 5), [2, 2, 2, 2, 2]),
        (sched_lin(2, 4), [2, 2.5, 3, 3.5, 4]),
        (sched_cos(0, 1), [0, 0.5 - math.sqrt(2) / 4, 0.5, 0.5 + math.sqrt(2) / 4, 1]),
        (sched_exp(1, 16), [1, 2, 4, 8, 16]),
        (sched_poly(0, 1, 2), [0, 1 / 16, 1 / 4, 9 / 16, 1]),
    ],
)
def test_schedules_at_every_quarter(sched, expected):
    assert [sched(pct) for pct in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sched", "theirs"),
    [
        (sched_cos(0.1, 0.01), partial(lr_scheduler.CosineAnnealingLR, T_max=10, eta_min=0.01)),
        (sched_lin(0.1, 0.01), partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.1, total_iters=10)),
        (sched_exp(0.1, 0.1 * 0.7**10), partial(lr_scheduler.ExponentialLR, gamma=0.7)),
        (sched_poly(0.1, 0, 1), partial(lr_scheduler.PolynomialLR, total_iters=10)),
    ],
)
def test_schedules_are_those_of_pytorch(sched, theirs):
    assert [sched(step / 10) for step in range(11)] == pytest.approx(learning_rates(theirs, steps=11), abs=1e-12)


def test_the_one_cycle_shape_is_pytorchs_whose_phases_end_a_step_earlier():
    n, pct = 40, 0.3
    theirs = partial(
        lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=n, pct_start=pct, div_factor=25, final_div_factor=1e4
    )
    ours = combined_cos((pct * n - 1) / (n - 1), 0.1 / 25, 0.1, 0.1 / 25 / 1e4)
    assert [ours(step / (n - 1)) for step in range(n)] == pytest.approx(learning_rates(theirs, steps=n))


def learning_rates(make_scheduler, steps):
    """The learning rates that a scheduler of PyTorch gives to an optimizer of 0.1."""
    opt = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, lrs = make_scheduler(opt), []
    for _ in range(steps):
        lrs.append(opt.param_groups[0]["lr"])
        opt.step()
        scheduler.step()
    return lrs


@given(values, values, shares, shares)
def test_a_schedule_goes_one_way_and_stays_between_its_ends(start, end, pct, later):
    pct, later = sorted([pct, later])
    for sched in (sched_lin(start, end), sched_cos(start, end), sched_exp(start, end), sched_poly(start, end, 2)):
        a, b = sched(pct), sched(later)
        assert min(start, end) - 1e-9 <= a <= max(start, end) + 1e-9
        assert (b - a) * (end - start) >= -1e-9
        assert (sched(0), sched(1)) == pytest.approx((start, end))


@given(st.floats(0.01, 0.99), values, shares)
def test_combined_cos_rises_to_its_peak_at_pct_and_falls_after(pct, peak, anywhere):
    cycle = combined_cos(pct, peak / 25, peak, peak / 1e5)
    assert (cycle(0), cycle(pct), cycle(1)) == pytest.approx((peak / 25, peak, peak / 1e5))
    assert peak / 1e5 * 0.99 <= cycle(anywhere) <= peak * 1.01
    assert cycle(pct / 2) < peak and cycle((1 + pct) / 2) < peak


def test_combined_cos_may_leave_out_either_part():
    falling, rising = combined_cos(0, 1, 2, 3), combined_cos(1, 1, 2, 3)
    assert [falling(pct) for pct in (0, 0.5, 1)] == pytest.approx([2, 2.5, 3])
    assert [rising(pct) for pct in (0, 0.5, 1)] == pytest.approx([1, 1.5, 2])
    with pytest.raises(ValueError, match="pct=25: the share of the first part is between 0 and 1"):
        combined_cos(25, 1, 2, 3)


def line(pct, start, end):
    return start + (end - start) * pct


def half_cosine(pct, start, end):
    return end + (start - end) * (1 + math.cos(math.pi * pct)) / 2


@given(st.floats(0.01, 0.99), values, values, values, shares)
def test_shapes_of_two_parts_follow_their_formulas(pct, start, middle, end, anywhere):
    first, second = anywhere / pct, (anywhere - pct) / (1 - pct)
    expected = {
        combined_lin: line(first, start, middle) if anywhere < pct else line(second, middle, end),
        warmup_cos: line(first, start, middle) if anywhere < pct else half_cosine(second, middle, end),
    }
    for shape, value in expected.items():
        assert shape(pct, start, middle, end)(anywhere) == pytest.approx(value, abs=1e-6)
    flat = start if anywhere < pct else half_cosine(second, start, end)
    assert flat_cos(pct, start, end)(anywhere) == pytest.approx(flat, abs=1e-6)


@given(st.floats(0, 1), st.floats(0, 1), values, values, values, shares)
def test_warmup_stable_decay_follows_its_formula(one, other, start, middle, end, pct):
    warmup, decay = sorted([one, other])[0], 1 - sorted([one, other])[1]
    if pct < warmup:
        expected = line(pct / warmup, start, middle)
    elif pct <= 1 - decay:
        expected = middle
    else:
        expected = line((pct - 1 + decay) / decay, middle, end)
    if min(abs(pct - warmup), abs(pct - 1 + decay)) > 1e-6:  # there it jumps if a part is left out
        assert wsd(warmup, decay, start, middle, end)(pct) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("warmup", "decay"), [(0.9, 0.1), (0.8, 0.2), (0.3, 0.7), (1, 0), (0, 1), (0, 0)])
def test_warmup_stable_decay_may_leave_out_any_part(warmup, decay):
    whole = wsd(warmup, decay, 0, 1, 0)
    assert [whole(0), whole(warmup), whole(1)] == pytest.approx([0 if warmup else 1, 1, 0 if decay else 1])


def test_warmup_and_decay_leave_no_more_than_the_whole():
    for warmup, decay in [(0.7, 0.5), (-0.1, 0.5), (0.5, -0.1)]:
        with pytest.raises(ValueError, match="a share for each of 3 schedules"):
            wsd(warmup, decay, 0, 1, 0)


def in_sequence(*schedulers):
    """Schedulers of PyTorch that take over from each other at these steps: `(scheduler, first step)`."""

    def make(opt):
        made = [scheduler(opt) for scheduler, _ in schedulers]
        return lr_scheduler.SequentialLR(opt, made, [first for _, first in schedulers[1:]])

    return make


rising = partial(lr_scheduler.LinearLR, start_factor=0.1, total_iters=4)
constant = partial(lr_scheduler.ConstantLR, factor=1.0)
falling = partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.2)
cosine = partial(lr_scheduler.CosineAnnealingLR, eta_min=0.001)


@pytest.mark.parametrize(
    ("shape", "theirs"),
    [
        (combined_lin(0.2, 0.01, 0.1, 0.02), in_sequence((rising, 0), (partial(falling, total_iters=16), 4))),
        (warmup_cos(0.2, 0.01, 0.1, 0.001), in_sequence((rising, 0), (partial(cosine, T_max=16), 4))),
        (flat_cos(0.75, 0.1, 0.001), in_sequence((constant, 0), (partial(cosine, T_max=5), 15))),
        (
            wsd(0.2, 0.3, 0.01, 0.1, 0.02),
            in_sequence((rising, 0), (constant, 4), (partial(falling, total_iters=6), 14)),
        ),
    ],
    ids=["combined_lin", "warmup_cos", "flat_cos", "wsd"],
)
def test_shapes_are_those_of_pytorchs_schedulers_in_sequence(shape, theirs):
    assert [shape(step / 20) for step in range(20)] == pytest.approx(learning_rates(theirs, steps=20))


@pytest.mark.parametrize("n_cycles", range(1, 6))
@pytest.mark.parametrize("mult", [1, 2, 3])
@pytest.mark.parametrize("cycle_len", [1, 3, 7])
def test_cycles_restart_when_those_of_pytorch_do(n_cycles, mult, cycle_len):
    theirs = partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=cycle_len, T_mult=mult, eta_min=0.002)
    n = sum(cycle_len * mult**i for i in range(n_cycles))
    ours = sgdr(n_cycles, mult, 0.1, 0.002)
    assert [ours(step / n) for step in range(n)] == pytest.approx(learning_rates(theirs, steps=n))
    assert ours(1) == pytest.approx(0.002)


def test_cycles_may_grow_by_any_factor_and_there_is_at_least_one():
    grows = sgdr(2, 1.5, 1.0)
    assert [grows(pct) for pct in (0, 0.2, 0.4, 0.7, 1)] == pytest.approx([1, 0.5, 1, 0.5, 0])
    with pytest.raises(ValueError, match="a share for each of 0 schedules"):
        sgdr(0, 2, 1.0)


def test_combined_schedules_each_see_their_own_progress():
    steps = combine_scheds([0.5, 0.25, 0.25], [sched_no(1, 1), sched_lin(2, 3), sched_lin(5, 9)])
    assert [steps(pct) for pct in (0, 0.49, 0.5, 0.625, 0.75, 0.875, 1)] == pytest.approx([1, 1, 2, 2.5, 5, 7, 9])
    assert (steps(-0.1), steps(1.1)) == (1, 9)  # no further than the ends


@pytest.mark.parametrize(("pcts", "n"), [([0.5, 0.4], 2), ([0.5, 0.5], 1), ([1.5, -0.5], 2), ([], 0)])
def test_shares_that_are_not_a_whole_are_an_error(pcts, n):
    with pytest.raises(ValueError, match=f"a share for each of {n} schedules, none negative, 1 in all"):
        combine_scheds(pcts, [sched_no(1, 1)] * n)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (1, 0), (-1, 1)])
def test_a_geometric_schedule_cannot_touch_zero(start, end):
    with pytest.raises(ValueError, match="two values of the same sign, neither of them 0"):
        sched_exp(start, end)


def test_schedules_can_be_pickled_and_print_what_makes_them():
    for sched in (sched_poly(1, 2, 3), combined_cos(0.3, 1, 2, 3)):
        assert pickle.loads(pickle.dumps(sched))(0.7) == sched(0.7)
    assert repr(sched_lin(1, 2)) == "sched_lin(1, 2)" and repr(sched_poly(1, 2, 3)) == "sched_poly(1, 2, 3)"
    assert repr(combined_cos(0.3, 1, 2, 3)) == "combine_scheds([0.3, 0.7], [sched_cos(1, 2), sched_cos(2, 3)])"


# ---- setting hyper-parameters


def two_groups(opt_func, **kwargs):
    first, second, bias = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    return opt_func(
        [
            {"params": [first], "layer_group": 0, "decay": True},
            {"params": [second], "layer_group": 1, "decay": True},
            {"params": [bias], "layer_group": 1, "decay": False, "weight_decay": 0.0},
        ],
        lr=1.0,
        **kwargs,
    )


def of_groups(opt, key):
    return [group[key] for group in opt.param_groups]


@pytest.mark.parametrize("opt_func", [SGD, AdamW, RMSprop, torch.optim.Adagrad])
def test_a_learning_rate_for_all_groups_or_one_for_each_layer_group(opt_func):
    opt = two_groups(opt_func)
    set_hyper(opt, "lr", [0.5])
    assert of_groups(opt, "lr") == [0.5, 0.5, 0.5]
    set_hyper(opt, "lr", [0.1, 0.2])
    assert of_groups(opt, "lr") == [0.1, 0.2, 0.2]


@pytest.mark.parametrize("opt_func", [SGD, AdamW, RMSprop, torch.optim.Adagrad])
def test_weight_decay_spares_the_groups_without(opt_func):
    opt = two_groups(opt_func)
    set_hyper(opt, "wd", [0.3])
    assert of_groups(opt, "weight_decay") == [0.3, 0.3, 0.0]


def test_momentum_is_momentum_or_the_first_beta():
    for opt_func in (SGD, RMSprop):
        opt = two_groups(opt_func, momentum=0.9)
        set_hyper(opt, "mom", [0.8])
        assert of_groups(opt, "momentum") == [0.8, 0.8, 0.8]
    opt = two_groups(AdamW)
    set_hyper(opt, "mom", [0.7, 0.8])
    set_hyper(opt, "beta2", [0.99])
    assert of_groups(opt, "betas") == [(0.7, 0.99), (0.8, 0.99), (0.8, 0.99)]


def test_any_key_of_the_optimizer_can_be_set():
    opt = two_groups(AdamW)
    set_hyper(opt, "eps", [1e-5])
    set_hyper(opt, "betas", [(0.5, 0.6)])
    assert of_groups(opt, "eps") == [1e-5] * 3 and of_groups(opt, "betas") == [(0.5, 0.6)] * 3


@pytest.mark.parametrize(("opt_func", "name"), [(torch.optim.Adagrad, "mom"), (SGD, "beta2"), (AdamW, "momemtum")])
def test_an_unknown_hyper_parameter_is_named_with_those_there_are(opt_func, name):
    with pytest.raises(KeyError, match=f"{opt_func.__name__} has no '{name}': its hyper-parameters are lr, "):
        set_hyper(two_groups(opt_func), name, [0.5])


# ---- in a fit


def one_cycle(pct, lr, div=25.0, div_final=1e5, pct_start=0.25):
    """The formula, written out."""
    if pct < pct_start:
        return lr / div + (1 - math.cos(math.pi * pct / pct_start)) * (lr - lr / div) / 2
    return lr + (1 - math.cos(math.pi * (pct - pct_start) / (1 - pct_start))) * (lr / div_final - lr) / 2


def one_cycle_momentum(pct, pct_start):
    if pct < pct_start:
        return 0.9 + 0.05 * math.cos(math.pi * pct / pct_start)
    return 0.9 - 0.05 * math.cos(math.pi * (pct - pct_start) / (1 - pct_start))


@pytest.mark.parametrize("opt_func", [AdamW, partial(SGD, momentum=0.9), SGD])
def test_one_cycle_sets_learning_rate_and_momentum_of_every_step(make_learn, opt_func):
    learn = make_learn(opt_func=opt_func)
    learn.fit_one_cycle(3, 0.02)
    done = [step / 12 for step in range(12)]
    assert learn.recorder.lrs == pytest.approx([one_cycle(pct, 0.02) for pct in done])
    assert learn.recorder.moms == pytest.approx([one_cycle_momentum(pct, 0.25) for pct in done])


def test_one_cycle_takes_its_shape_from_the_arguments(make_learn):
    learn = make_learn()
    learn.fit_one_cycle(2, 0.1, div=10, div_final=100, pct_start=0.5, moms=(0.8, 0.6, 0.7))
    done = [step / 8 for step in range(8)]
    assert learn.recorder.lrs == pytest.approx([one_cycle(pct, 0.1, 10, 100, 0.5) for pct in done])
    assert learn.recorder.moms[0] == 0.8 and learn.recorder.moms[4] == 0.6
    assert learn.recorder.moms[6] == pytest.approx(0.65)


def test_one_cycle_uses_the_learners_moms_and_lr_by_default(make_learn):
    learn = make_learn(lr=0.3, moms=(0.7, 0.6, 0.5))
    learn.fit_one_cycle(1)
    assert max(learn.recorder.lrs) == pytest.approx(0.3) and learn.recorder.moms[:2] == pytest.approx([0.7, 0.6])


def test_hyper_parameters_other_than_lr_are_put_back_after_the_fit(make_learn):
    learn = make_learn(opt_func=partial(AdamW, betas=(0.91, 0.98)))
    learn.fit_one_cycle(1, 0.1)
    learn.fit(1, cbs=ParamScheduler({"wd": sched_lin(0.1, 0.2), "eps": sched_no(1e-3, 1e-3)}))
    group = learn.opt.param_groups[0]
    assert (group["betas"], group["weight_decay"], group["eps"]) == ((0.91, 0.98), 0.01, 1e-8)


def test_each_group_gets_back_what_it_had(make_learn):
    learn = make_learn(wd_bn_bias=False, wd=0.1)
    learn.fit(1, cbs=ParamScheduler({"weight_decay": sched_no(0.5, 0.5)}))
    assert of_groups(learn.opt, "weight_decay") == [0.1, 0.0]


def test_hyper_parameters_are_put_back_when_the_fit_fails(make_learn):
    class Fails(Callback):
        def after_loss(self, learn):
            raise ZeroDivisionError

    learn = make_learn()
    with pytest.raises(ZeroDivisionError):
        learn.fit_one_cycle(1, 0.1, cbs=Fails())
    assert learn.opt.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_failure_before_the_scheduler_starts_is_the_one_that_is_reported(make_learn):
    class Fails(Callback):
        order = -100

        def before_fit(self, learn):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_learn().fit_one_cycle(1, 0.1, cbs=Fails())


def test_rmsprop_that_began_without_momentum_goes_on_without(make_learn):
    learn = make_learn(opt_func=RMSprop)
    learn.fit(1)
    learn.fit_one_cycle(1)
    assert set(learn.recorder.moms) == {0} and not has_momentum(learn.opt)
    assert has_momentum(two_groups(RMSprop, momentum=0.9))


def test_one_cycle_serves_an_optimizer_without_momentum(make_learn):
    learn = make_learn(opt_func=torch.optim.Adagrad)
    learn.fit_one_cycle(1, 0.1)
    assert max(learn.recorder.lrs) == pytest.approx(0.1) and set(learn.recorder.moms) == {0}


def halves(model):
    return [list(model[0].parameters()), list(model[2].parameters())]


def test_a_list_of_schedules_is_one_for_each_layer_group(make_learn):
    learn, seen = make_learn(splitter=halves), []

    class Look(Callback):
        def before_backward(self, learn):
            seen.append(of_groups(learn.opt, "lr"))

    learn.fit(1, cbs=[ParamScheduler({"lr": [sched_lin(0, 1), sched_no(5, 5)]}), Look()])
    assert seen == [[0, 5], [0.25, 5], [0.5, 5], [0.75, 5]]
    with pytest.raises(ValueError, match="3 schedules of 'lr' for 2 layer groups"):
        learn.fit(1, cbs=ParamScheduler({"lr": [sched_no(1, 1)] * 3}))


def test_an_unknown_hyper_parameter_is_found_before_anything_is_trained(learn):
    before = copy.deepcopy(learn.model.state_dict())
    with pytest.raises(KeyError, match="AdamW has no 'momentum'"):
        learn.fit(1, cbs=ParamScheduler({"momentum": sched_no(1, 1)}))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), learn.model.state_dict().values(), strict=True))


def test_a_schedule_keeps_to_the_epochs_when_they_are_cut_short(make_learn):
    class TwoBatches(Callback):
        def after_batch(self, learn):
            if learn.training and learn.iter == 1:
                raise CancelTrain

    learn = make_learn()
    learn.fit(3, cbs=[ParamScheduler({"lr": sched_lin(0, 12)}), TwoBatches()])
    assert learn.recorder.lrs == pytest.approx([0, 1, 4, 5, 8, 9])
