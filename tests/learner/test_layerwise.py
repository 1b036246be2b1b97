"""LARS and LAMB: the numbers are their papers', written out in NumPy; state, groups and errors are an optimizer's."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from warmstart.learner import Lamb, Lars

torch.set_num_threads(1)
BOTH = pytest.mark.parametrize("opt_func", [Lamb, partial(Lars, trust_coefficient=0.1)])


def values(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def parameters(*shapes):
    return [nn.Parameter(torch.tensor(values(shape, seed=i))) for i, shape in enumerate(shapes)]


def run(opt, n_steps, seed=100):
    """Take steps with random gradients, the same for every optimizer."""
    params = [p for group in opt.param_groups for p in group["params"]]
    for step in range(n_steps):
        for i, p in enumerate(params):
            p.grad = torch.tensor(values(p.shape, seed=(seed, step, i)))
        opt.step()
    return [p.detach().numpy() for p in params]


def ratio(weights, update):
    w, u = np.linalg.norm(weights), np.linalg.norm(update)
    return w / u if w > 0 and u > 0 else 1.0


def lamb_by_hand(w, i, n_steps, lr, beta1, beta2, eps, wd, seed=100, trust=ratio):
    m = v = np.zeros_like(w)
    for step in range(n_steps):
        g = values(w.shape, seed=(seed, step, i))
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1 ** (step + 1)), v / (1 - beta2 ** (step + 1))
        r = m_hat / (np.sqrt(v_hat) + eps) + wd * w
        w = w - lr * trust(w, r) * r
    return w


def lars_by_hand(w, i, n_steps, lr, momentum, wd, trust, seed=100):
    v = np.zeros_like(w)
    for step in range(n_steps):
        g = values(w.shape, seed=(seed, step, i))
        rate = lr * trust * np.linalg.norm(w) / (np.linalg.norm(g) + wd * np.linalg.norm(w))
        v = momentum * v + rate * (g + wd * w)
        w = w - v
    return w


@settings(max_examples=20, deadline=None)
@given(
    n_steps=st.integers(1, 6),
    lr=st.floats(1e-4, 1.0),
    beta1=st.floats(0.0, 0.95),
    beta2=st.floats(0.5, 0.999),
    eps=st.floats(1e-8, 1e-2),
    wd=st.floats(0.0, 0.5),
)
def test_lamb_is_algorithm_2_of_its_paper(n_steps, lr, beta1, beta2, eps, wd):
    params = parameters((3, 4), (5,))
    found = run(Lamb(params, lr, (beta1, beta2), eps, wd), n_steps)
    for i, p in enumerate(found):
        np.testing.assert_allclose(p, lamb_by_hand(values(p.shape, i), i, n_steps, lr, beta1, beta2, eps, wd))


@settings(max_examples=20, deadline=None)
@given(
    n_steps=st.integers(1, 6),
    lr=st.floats(1e-2, 10.0),
    momentum=st.floats(0.0, 0.95),
    wd=st.floats(0.0, 0.5),
    trust=st.floats(1e-3, 0.1),
)
def test_lars_is_algorithm_1_of_its_paper(n_steps, lr, momentum, wd, trust):
    params = parameters((3, 4), (5,))
    found = run(Lars(params, lr, momentum, wd, trust), n_steps)
    for i, p in enumerate(found):
        np.testing.assert_allclose(p, lars_by_hand(values(p.shape, i), i, n_steps, lr, momentum, wd, trust))


def test_each_group_of_lamb_has_its_own_hyper_parameters():
    first, second = parameters((3, 4), (5,))
    groups = [{"params": [first]}, {"params": [second], "lr": 0.2, "betas": (0.5, 0.9), "weight_decay": 0.3}]
    found = run(Lamb(groups, lr=0.1), 4)
    np.testing.assert_allclose(found[0], lamb_by_hand(values((3, 4), 0), 0, 4, 0.1, 0.9, 0.999, 1e-6, 0.0))
    np.testing.assert_allclose(found[1], lamb_by_hand(values((5,), 1), 1, 4, 0.2, 0.5, 0.9, 1e-6, 0.3))


def test_each_group_of_lars_has_its_own_hyper_parameters():
    first, second = parameters((3, 4), (5,))
    groups = [{"params": [first]}, {"params": [second], "lr": 2.0, "momentum": 0.5, "weight_decay": 0.3}]
    found = run(Lars(groups, lr=1.0), 4)
    np.testing.assert_allclose(found[0], lars_by_hand(values((3, 4), 0), 0, 4, 1.0, 0.9, 0.0, 1e-3))
    np.testing.assert_allclose(found[1], lars_by_hand(values((5,), 1), 1, 4, 2.0, 0.5, 0.3, 1e-3))


def test_lamb_with_a_trust_ratio_of_1_is_adamw(monkeypatch):
    monkeypatch.setattr("warmstart.learner.layerwise._trust_ratios", lambda w, u: torch.ones_like(w).unbind())
    lamb = run(Lamb(parameters((3, 4), (5,)), lr=0.01, eps=1e-8, weight_decay=0.1), 5)
    adamw = run(torch.optim.AdamW(parameters((3, 4), (5,)), lr=0.01, eps=1e-8, weight_decay=0.1), 5)
    for ours, theirs in zip(lamb, adamw, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)  # AdamW decays before its step, Lamb within it


def test_a_step_of_lamb_is_as_long_as_lr_times_the_weights():
    (p,) = parameters((6, 7))
    before = p.detach().clone()
    run(Lamb([p], lr=0.01), 1)
    assert float((p.detach() - before).norm()) == pytest.approx(0.01 * float(before.norm()))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_gradients_does_not_matter_to_lars(scale):
    plain, scaled = parameters((3, 4)), parameters((3, 4))
    plain[0].grad, scaled[0].grad = torch.ones_like(plain[0]), torch.full_like(plain[0], scale)
    for params in (plain, scaled):
        Lars(params, lr=1.0).step()
    torch.testing.assert_close(plain[0], scaled[0])


def test_new_biases_at_0_have_a_trust_ratio_of_1():
    bias = nn.Parameter(torch.zeros(3))
    bias.grad = torch.tensor([1.0, -2.0, 0.0])
    Lars([bias], lr=0.1).step()
    torch.testing.assert_close(bias.detach(), torch.tensor([-0.1, 0.2, 0.0]))
    bias = nn.Parameter(torch.zeros(3))
    bias.grad = torch.tensor([1.0, -2.0, 0.0])
    Lamb([bias], lr=0.1, eps=1e-12).step()
    torch.testing.assert_close(bias.detach(), torch.tensor([-0.1, 0.1, 0.0]))


@BOTH
def test_a_gradient_of_0_leaves_the_weights_as_they_are(opt_func):
    (p,) = parameters((3, 4))
    before, p.grad = p.detach().clone(), torch.zeros_like(p)
    opt_func([p], lr=0.1).step()
    assert torch.equal(p, before)


@BOTH
def test_parameters_without_a_gradient_are_left_alone_and_start_later(opt_func):
    frozen, other = parameters((3, 4), (5,))
    opt, before = opt_func([frozen, other], lr=0.1), frozen.detach().clone()
    other.grad = torch.ones_like(other)
    opt.step()
    assert torch.equal(frozen, before) and frozen not in opt.state

    alone = parameters((3, 4))
    run(opt_func(alone, lr=0.1), 3)
    run(opt, 3)
    np.testing.assert_allclose(frozen.detach(), alone[0].detach())


@BOTH
def test_saved_and_loaded_they_go_on_bit_identically(opt_func):
    straight, first = parameters((3, 4), (5,)), parameters((3, 4), (5,))
    opt = opt_func(straight, lr=0.1)
    for seed in (1, 2):
        run(opt, 3, seed)

    opt = opt_func(first, lr=0.1)
    run(opt, 3, 1)
    second = [nn.Parameter(p.detach().clone()) for p in first]
    again = opt_func(second, lr=0.7)
    again.load_state_dict(copy.deepcopy(opt.state_dict()))
    run(again, 3, 2)
    assert all(torch.equal(a, b) for a, b in zip(straight, second, strict=True))


@BOTH
def test_a_closure_gives_gradients_and_the_loss(opt_func):
    (p,) = parameters((3, 4))
    opt, before = opt_func([p], lr=0.1), p.detach().clone()

    def closure():
        loss = p.square().sum()
        loss.backward()
        return loss

    assert opt.step(closure) == before.square().sum() and not torch.equal(p, before)


@BOTH
def test_parameters_of_different_dtypes_may_be_in_one_group(opt_func):
    single, double = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, dtype=torch.float64))
    single.grad, double.grad = torch.ones_like(single), torch.ones_like(double)
    opt_func([single, double], lr=0.1).step()
    assert single.dtype == torch.float32 and double[0] != 1
    torch.testing.assert_close(single.detach(), double.detach(), check_dtype=False)


@BOTH
def test_a_sparse_gradient_is_refused(opt_func):
    embedding = nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match=r"parameter of shape \(5, 3\) has a sparse gradient: make its embed"):
        opt_func(embedding.parameters(), lr=0.1).step()


@BOTH
def test_a_step_reads_nothing_back_from_the_device(opt_func):
    p = nn.Parameter(torch.empty(3, device="meta"))  # a tensor without values: reading one is an error
    p.grad = torch.empty_like(p)
    opt = opt_func([p], lr=0.1, weight_decay=0.1)
    opt.step()
    opt.step()
    assert p in opt.state


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lamb([], lr=-1), "lr=-1: it must be 0 or more"),
        (lambda: Lamb([], eps=-1e-6), "eps=-1e-06: it must be 0 or more"),
        (lambda: Lamb([], weight_decay=float("nan")), "weight_decay=nan: it must be 0 or more"),
        (lambda: Lamb([], betas=(0.9, 1.0)), "beta2=1.0: it is the share of the past that is kept"),
        (lambda: Lars([], 0.1, momentum=-0.1), "momentum=-0.1: it is the share of the past that is kept"),
        (lambda: Lars([], 0.1, trust_coefficient=-1), "trust_coefficient=-1: it must be above 0"),
    ],
)
def test_a_hyper_parameter_out_of_its_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_lars_learns_where_the_layers_gradients_differ_by_orders_of_magnitude():
    torch.manual_seed(0)
    x = torch.randn(64, 10)
    model, y = nn.Sequential(nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 1)), (x.sum(1) > 0).float()
    opt = Lars(model.parameters(), lr=10.0)
    losses = []
    for _ in range(60):
        loss = F.binary_cross_entropy_with_logits(model(x)[:, 0], y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
