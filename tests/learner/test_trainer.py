"""Fits with a schedule: the learning rate of every step is that of the formula."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, SequentialLR
from warmstart.callbacks import Callback, LimitBatches, StopAfter
from warmstart.data import DataBunch
from warmstart.learner import Learner

torch.set_num_threads(1)

N_BATCHES = 4


def make_learn(groups=1, **kwargs):
    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.arange(8) % 2) for _ in range(N_BATCHES)]
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(groups - 1)), nn.Linear(4, 2))

    def one_each(model):
        return [list(layer.parameters()) for layer in model]

    learn = Learner(
        DataBunch(batches, batches, device="cpu"), model, nn.CrossEntropyLoss(), splitter=one_each, **kwargs
    )
    learn.progress.bar = learn.progress.table = False
    return learn


class Rates(Callback):
    """Keeps the learning rates of all groups at every step."""

    def __init__(self):
        self.seen = []

    def before_step(self, learn):
        self.seen.append([group["lr"] for group in learn.opt.param_groups])


def learning_rates(make_scheduler, n, lr=0.1):
    """Those that a scheduler of PyTorch gives to `n` steps from `lr`."""
    opt, lrs = SGD([nn.Parameter(torch.zeros(1))], lr), []
    scheduler = make_scheduler(opt)
    for _ in range(n):
        lrs.append(opt.param_groups[0]["lr"])
        opt.step()
        scheduler.step()
    return pytest.approx(lrs)


def flat_then_cosine(n_flat, n_cos, end):
    def make(opt):
        return SequentialLR(opt, [ConstantLR(opt, 1.0), CosineAnnealingLR(opt, n_cos, end)], [n_flat])

    return make


# ---- flat, then cosine


def test_flat_cos_is_flat_for_three_quarters_and_then_a_cosine():
    learn = make_learn()
    learn.fit_flat_cos(5, 0.1)
    assert learn.recorder.lrs == learning_rates(flat_then_cosine(15, 5, 0.1 / 1e5), 20)


def test_flat_cos_takes_its_shape_from_the_arguments_and_its_rate_from_the_learner():
    learn = make_learn(lr=0.1)
    learn.fit_flat_cos(2, div_final=10, pct_start=0.5)
    assert learn.recorder.lrs == learning_rates(flat_then_cosine(4, 4, 0.01), 8)
    learn.fit_flat_cos(1, pct_start=0)
    assert learn.recorder.lrs[8:] == learning_rates(flat_then_cosine(0, 4, 0.1 / 1e5), 4)
    learn.fit_flat_cos(1, pct_start=1)
    assert learn.recorder.lrs[12:] == [0.1] * 4


def test_flat_cos_leaves_momentum_alone():
    learn = make_learn()
    learn.fit_flat_cos(1, 0.1)
    assert set(learn.recorder.moms) == {0.9}


# ---- warm restarts


@pytest.mark.parametrize(
    ("n_cycles", "cycle_len", "cycle_mult", "n_epoch"), [(1, 3, 2, 3), (3, 1, 2, 7), (2, 2, 3, 8), (5, 1, 1, 5)]
)
def test_sgdr_is_pytorchs_cosine_with_warm_restarts(n_cycles, cycle_len, cycle_mult, n_epoch):
    learn = make_learn()
    learn.fit_sgdr(n_cycles, cycle_len, 0.1, cycle_mult)
    assert len(learn.recorder.history) == learn.n_epoch == n_epoch

    def make(opt):
        return CosineAnnealingWarmRestarts(opt, cycle_len * N_BATCHES, cycle_mult)

    assert learn.recorder.lrs == learning_rates(make, n_epoch * N_BATCHES)


def test_sgdr_doubles_its_cycles_unless_told():
    learn = make_learn(lr=0.1)
    learn.fit_sgdr(3, 1)
    assert [step for step, lr in enumerate(learn.recorder.lrs) if lr == 0.1] == [0, 4, 12]


@pytest.mark.parametrize(("n_cycles", "cycle_len"), [(0, 1), (1, 0.5)])
def test_sgdr_needs_whole_cycles(n_cycles, cycle_len):
    with pytest.raises(ValueError, match=r"schedules, none negative|number of epochs is a whole number"):
        make_learn().fit_sgdr(n_cycles, cycle_len)


# ---- all of them


@pytest.mark.parametrize(
    "fit",
    [Learner.fit_one_cycle, Learner.fit_flat_cos, lambda learn, *args, **kwargs: learn.fit_sgdr(1, *args, **kwargs)],
    ids=["one cycle", "flat cos", "sgdr"],
)
def test_each_layer_group_has_the_same_schedule_from_a_rate_of_its_own(fit):
    learn, rates = make_learn(groups=3), Rates()
    fit(learn, 2, slice(0.001, 0.1), cbs=rates)
    alone = make_learn()
    fit(alone, 2, 0.1)
    for first, second, third in rates.seen:
        assert (first, second) == pytest.approx((third / 100, third / 10))
    assert [lrs[2] for lrs in rates.seen] == pytest.approx(alone.recorder.lrs)


@pytest.mark.parametrize("limit", [StopAfter(6), LimitBatches(3)], ids=repr)
def test_a_shorter_fit_has_the_whole_schedule(limit):
    learn = make_learn()
    learn.fit_flat_cos(2, 0.1, pct_start=0.5, cbs=limit)
    assert learn.recorder.lrs == learning_rates(flat_then_cosine(3, 3, 0.1 / 1e5), 6)


@pytest.mark.parametrize("fit", [Learner.fit_flat_cos, lambda learn, n: learn.fit_sgdr(n, 1)])
def test_a_schedule_needs_the_number_of_batches(fit):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(torch.zeros(4), torch.tensor(0))] * 20)

    learn = make_learn()
    learn.data = DataBunch(torch.utils.data.DataLoader(Stream(), 4), device="cpu")
    with pytest.raises(ValueError, match=r"needs the number of batches: .* data.train_dl.limit = n"):
        fit(learn, 2)
    learn.data.train_dl.limit = 3
    fit(learn, 2)
    assert len(learn.recorder.lrs) % 3 == 0 and not math.isnan(learn.recorder.losses[-1])
