"""Optimizers: PyTorch's own, over layer groups, fused where that is possible, with decay where it belongs."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import ASGD, LBFGS, Adadelta, Adamax, Rprop, SparseAdam
from warmstart.data import DataBunch
from warmstart.learner import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    CrossEntropyLoss,
    Lamb,
    Lars,
    Learner,
    Lookahead,
    NAdam,
    RAdam,
    RMSprop,
    ranger,
)
from warmstart.learner.optim import (
    batchnorm_params,
    create_optimizer,
    layer_groups,
    no_decay_params,
    per_group,
    trainable_params,
)

torch.set_num_threads(1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def halves(model):
    return [list(model[:2].parameters()), list(model[3].parameters())]


def make(opt_func, model=None, lrs=(0.1, 0.2), no_decay=frozenset()):
    return create_optimizer(opt_func, halves(model or network()), lrs, set(no_decay))


def of_groups(opt, key):
    return [group[key] for group in opt.param_groups]


# ---- layer groups


def test_trainable_params_are_one_group_of_what_requires_gradients():
    model = network()
    model[0].requires_grad_(False)
    assert trainable_params(model) == [*model[1].parameters(), *model[3].parameters()]
    assert layer_groups(trainable_params, model) == [trainable_params(model)]


def test_a_splitter_may_give_lists_or_generators_or_one_list():
    model = network()
    expected = halves(model)
    assert layer_groups(halves, model) == expected
    assert layer_groups(lambda m: (m[:2].parameters(), m[3].parameters()), model) == expected
    assert layer_groups(lambda m: m.parameters(), model) == [[*expected[0], *expected[1]]]
    assert layer_groups(lambda m: [expected[0], *expected[1]], model) == [expected[0], *([p] for p in expected[1])]


def test_a_model_without_parameters_has_one_empty_group():
    assert layer_groups(trainable_params, nn.ReLU()) == [[]]


def test_parameters_in_no_group_are_frozen_with_a_warning():
    model, data = network(), DataBunch([(torch.randn(8, 4), torch.arange(8) % 2)], device="cpu")
    with pytest.warns(UserWarning, match=r"splitter <lambda> leaves 4 parameters out.*first: 0\.weight"):
        learn = Learner(data, model, CrossEntropyLoss(), splitter=lambda m: list(m[3].parameters()))
    assert trainable_params(model) == list(model[3].parameters())
    assert "trainable 18, frozen 56" in learn.summary()


def test_frozen_parameters_may_be_left_out_silently():
    model, data = network(), DataBunch([(torch.randn(8, 4), torch.arange(8) % 2)], device="cpu")
    model[:2].requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn = Learner(data, model, CrossEntropyLoss(), splitter=lambda m: list(m[3].parameters()))
    assert "trainable 18, frozen 56" in learn.summary()


@pytest.mark.parametrize(
    ("splitter", "what"),
    [(lambda m: [m[0], m[3]], "Linear"), (lambda m: [[m[0]], [m[3]]], "Linear"), (lambda m: ["0"], "str")],
)
def test_anything_but_parameters_is_an_error(splitter, what):
    with pytest.raises(TypeError, match=f"splitter <lambda> returned {what} where a list of parameters was expected"):
        layer_groups(splitter, network())


@pytest.mark.parametrize(
    ("value", "n", "expected"),
    [
        (0.1, 3, [0.1, 0.1, 0.1]),
        ([0.1, 0.2], 2, [0.1, 0.2]),
        (torch.tensor([1.0, 2.0]), 2, [1.0, 2.0]),
        (torch.tensor(0.5), 2, [0.5, 0.5]),
        (np.float32(0.5), 2, [0.5, 0.5]),
        (slice(1e-4, 1e-2), 3, [1e-4, 1e-3, 1e-2]),
        (slice(1e-4, 1e-2), 2, [1e-4, 1e-2]),
        (slice(0.1), 3, [0.01, 0.01, 0.1]),
    ],
)
def test_a_value_for_each_group(value, n, expected):
    assert per_group(value, n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-1.0, ValueError, r"lr has -1\.0: a learning rate is a finite number, 0 or more"),
        ([0.1, float("nan")], ValueError, "lr has nan"),
        (float("inf"), ValueError, "lr has inf"),
        (slice(0, 1), ValueError, r"lr=slice\(0, 1, None\) is spread evenly in log space: both ends must be above 0"),
        (slice(-1), ValueError, r"lr has -1\.0"),
        ("12", TypeError, "lr has '12' where a learning rate was expected: pass a number"),
        (slice(None), TypeError, "lr has None"),
        ([0.1, "2"], TypeError, "lr has '2'"),
    ],
)
def test_what_is_no_learning_rate_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        per_group(value, 2)


def test_a_fit_with_an_optimizer_refuses_them_too():
    batches = [(torch.randn(8, 4), torch.arange(8) % 2)]
    learn = Learner(DataBunch(batches, device="cpu"), network(), CrossEntropyLoss(), splitter=halves)
    learn.progress.bar = learn.progress.table = False
    learn.fit(1, torch.tensor(1e-3))
    with pytest.raises(ValueError, match=r"lr has -1\.0"):
        learn.fit(1, -1.0)
    with pytest.raises(TypeError, match="lr_max has '12'"):
        learn.fit_one_cycle(1, "12")
    assert {group["lr"] for group in learn.opt.param_groups} == {float(torch.tensor(1e-3))}


# ---- making them


@pytest.mark.parametrize("opt_func", [AdamW, SGD, torch.optim.Adam, torch.optim.Adagrad, partial(AdamW, eps=1e-5)])
def test_the_fused_implementation_is_chosen_where_there_is_one(opt_func):
    assert make(opt_func).defaults["fused"] is True


@pytest.mark.parametrize(
    ("opt_func", "fused"),
    [
        (partial(AdamW, fused=False), False),
        (partial(partial(SGD, fused=False), momentum=0.9), False),
        (partial(AdamW, foreach=True), None),  # torch allows one of the two
        (lambda params, lr: SGD(params, lr), None),
    ],
)
def test_what_the_user_says_of_the_implementation_holds(opt_func, fused):
    assert make(opt_func).defaults["fused"] is fused


def test_parameters_that_cannot_be_fused_are_not():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU(), nn.Linear(2, 2))
    assert make(AdamW, model.half()).defaults["fused"] is True
    model[3].weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))
    assert make(AdamW, model).defaults["fused"] is None
    assert make(AdamW, network().to("meta")).defaults["fused"] is None
    assert "fused" not in make(torch.optim.RMSprop).defaults


@pytest.mark.parametrize(
    "opt_func", [AdamW, SGD, partial(SGD, momentum=0.9, nesterov=True), torch.optim.RMSprop, torch.optim.Adadelta]
)
def test_steps_are_those_of_torch(opt_func):
    ours, theirs = network().eval(), network().eval()  # in training BatchNorm leaves the bias before it no gradient
    opt = make(opt_func, ours)
    first, last = halves(theirs)
    reference = opt_func([{"params": first, "lr": 0.1}, {"params": last, "lr": 0.2}], lr=0.2)
    x, y = torch.randn(16, 4), torch.randint(2, (16,))
    for _ in range(5):
        for model, each in ((ours, opt), (theirs, reference)):
            each.zero_grad()
            F.cross_entropy(model(x), y).backward()
            each.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_each_group_knows_its_number_and_rate():
    opt = make(AdamW)
    assert of_groups(opt, "layer_group") == [0, 1] and of_groups(opt, "lr") == [0.1, 0.2]
    assert of_groups(opt, "decay") == [True, True]


def test_an_empty_layer_group_leaves_the_others_their_numbers():
    model = network()
    opt = create_optimizer(SGD, [[], list(model.parameters())], [0.1, 0.2], set())
    assert of_groups(opt, "layer_group") == [1] and of_groups(opt, "lr") == [0.2]


def test_parameters_without_decay_are_apart():
    model = network()
    opt = make(AdamW, model, no_decay=no_decay_params(model))
    assert of_groups(opt, "layer_group") == [0, 0, 1, 1] and of_groups(opt, "decay") == [True, False, True, False]
    assert of_groups(opt, "weight_decay") == [0.01, 0, 0.01, 0] and of_groups(opt, "lr") == [0.1, 0.1, 0.2, 0.2]
    assert [p is model[0].weight for p in opt.param_groups[0]["params"]] == [True]


def test_biases_and_every_normalisation_have_no_decay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.conv = nn.Linear(4, 4), nn.Conv2d(4, 4, 1, bias=False)
            self.norms = nn.ModuleList(
                [
                    nn.BatchNorm2d(4),
                    nn.SyncBatchNorm(4),
                    nn.GroupNorm(2, 4),
                    nn.LayerNorm(4),
                    nn.RMSNorm(4),
                    nn.InstanceNorm2d(4, affine=True),
                ]
            )
            self.bias = nn.Parameter(torch.zeros(4))
            self.scale = nn.Parameter(torch.zeros(4))

    net = Net()
    decays = {name for name, p in net.named_parameters() if id(p) not in no_decay_params(net)}
    assert decays == {"linear.weight", "conv.weight", "scale"}


def test_batchnorm_is_any_dimension_of_it_and_nothing_else():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.LayerNorm(2), nn.Linear(2, 2))
    assert batchnorm_params(net) == {id(p) for layer in net[:2] for p in layer.parameters()}


# ---- every optimizer, in a learner


def slow_sgd(params, lr):
    return Lookahead(SGD(params, lr, momentum=0.9), k=3)


OPTIMIZERS = {
    SGD: 0.1,
    Adam: 0.01,
    AdamW: 0.01,
    RAdam: 0.03,
    NAdam: 0.01,
    RMSprop: 0.003,
    Adagrad: 0.05,
    Adadelta: 1.0,
    Adamax: 0.01,
    ASGD: 0.1,
    Rprop: 0.003,
    Lamb: 0.03,
    Lars: 20.0,
    ranger: 0.2,
    slow_sgd: 0.05,
}
if hasattr(torch.optim, "Adafactor"):  # since torch 2.5
    OPTIMIZERS[torch.optim.Adafactor] = 0.05
each_optimizer = pytest.mark.parametrize("opt_func", OPTIMIZERS, ids=lambda opt_func: opt_func.__name__)


def make_learn(opt_func, model=None, x=None, lr=0.1, n_batches=4, **kwargs):
    """A learner whose batches are the same 64 items over and over, so that its loss falls."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator) if x is None else x
    batch = (x, (x.float().sum(1) > x.float().sum(1).median()).long())
    data = DataBunch([batch] * n_batches, [batch], device="cpu")
    learn = Learner(data, model or network(), CrossEntropyLoss(), opt_func=opt_func, lr=lr, **kwargs)
    learn.progress.bar = learn.progress.table = False
    return learn


@each_optimizer
def test_the_loss_falls_with_every_optimizer(opt_func):
    learn = make_learn(opt_func, lr=OPTIMIZERS[opt_func])
    before = learn.validate()["valid_loss"]
    learn.fit(6)
    between = learn.validate()["valid_loss"]
    learn.fit_one_cycle(6)
    assert learn.validate()["valid_loss"] < min(between, 0.8 * before)


@each_optimizer
def test_layer_groups_have_their_rates_with_every_optimizer(opt_func):
    learn = make_learn(opt_func, splitter=halves)
    learn.fit(1, slice(0.001, 0.01))
    assert of_groups(learn.opt, "lr") == pytest.approx([0.001, 0.01])


@pytest.mark.parametrize("opt_func", [o for o in OPTIMIZERS if o is not Rprop], ids=lambda opt_func: opt_func.__name__)
def test_no_optimizer_decays_what_is_to_be_spared(opt_func):
    def after_a_step(wd):
        learn = make_learn(opt_func, n_batches=1, wd=wd, wd_bn_bias=False)
        learn.fit(1)
        return dict(learn.model.named_parameters())

    with_decay, without = after_a_step(10.0), after_a_step(0.0)  # so much that it turns signs, by which some step
    assert {name for name, p in with_decay.items() if not torch.equal(p, without[name])} == {"0.weight", "3.weight"}


def test_an_optimizer_without_weight_decay_says_so_where_one_is_asked_for():
    with pytest.raises(KeyError, match="Rprop has no 'wd': its hyper-parameters are lr, etas"):
        make_learn(Rprop, wd=0.1).fit(1)


def test_sparse_gradients_train_with_sparse_adam():
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(20, 2, mode="sum", sparse=True))
    learn = make_learn(SparseAdam, model, torch.randint(20, (64, 4)), lr=0.1)
    before = learn.validate()["valid_loss"]
    learn.fit(10)
    assert learn.validate()["valid_loss"] < 0.5 * before
    with pytest.raises(RuntimeError, match="has a sparse gradient: make its embedding with sparse=False"):
        make_learn(Lamb, model, torch.randint(20, (64, 4))).fit(1)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="since torch 2.9")
def test_muon_trains_matrices_and_says_so_of_others():
    with pytest.raises(ValueError, match="2D parameters"):
        make_learn(torch.optim.Muon).fit(1)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False))
    learn = make_learn(torch.optim.Muon, model, lr=0.1)
    before = learn.validate()["valid_loss"]
    learn.fit_one_cycle(5)
    assert learn.validate()["valid_loss"] < 0.8 * before


@pytest.mark.parametrize("opt_func", [LBFGS, partial(LBFGS, history_size=5), lambda params, lr: LBFGS(params, lr)])
def test_lbfgs_is_refused_for_it_needs_a_closure(opt_func):
    with pytest.raises(TypeError, match=r"LBFGS computes the loss again and again .* closure .* such as AdamW or SGD"):
        make_learn(opt_func).fit(1)


@pytest.mark.parametrize(
    ("opt_func", "message"),
    [
        (lambda params: SGD(params), r"opt_func <lambda> cannot be called as opt_func\(params, lr=…\): got an unexp"),
        (Lookahead, r"opt_func Lookahead cannot be called as opt_func\(params, lr=…\): got an unexpected"),
        (partial(SGD, nesterofv=True), "unexpected keyword argument 'nesterofv'"),
    ],
)
def test_a_function_of_other_arguments_is_explained(opt_func, message):
    with pytest.raises(TypeError, match=message):
        make_learn(opt_func).fit(1)
