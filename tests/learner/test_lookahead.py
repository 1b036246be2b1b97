"""Lookahead: k steps forward, one step back, as its paper has it; it is saved, copied and thawed like any optimizer."""

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, NAdam, RAdam, RMSprop
from warmstart.data import DataBunch
from warmstart.learner import Learner, Lookahead, ranger

torch.set_num_threads(1)
OPTIMIZERS = pytest.mark.parametrize(
    "fast",
    [
        partial(SGD, lr=0.1),
        partial(SGD, lr=0.1, momentum=0.9),
        partial(Adam, lr=0.1),
        partial(AdamW, lr=0.1, fused=True),
        partial(RMSprop, lr=0.1),
        partial(Adagrad, lr=0.1),  # which has state before its first step
        partial(NAdam, lr=0.1),
    ],
    ids=lambda fast: fast.func.__name__,
)


def parameters():
    return [nn.Parameter(torch.linspace(-1, 1, 6).view(2, 3)), nn.Parameter(torch.tensor([0.3, -0.2]))]


def gradients(params, step):
    """Gradients that depend on the weights, so that a wrong weight shows later, too."""
    for i, p in enumerate(params):
        p.grad = p.detach() + 0.1 * torch.sin(torch.arange(p.numel()) + 3.0 * step + i).view(p.shape)


def run(opt, params, steps):
    for step in steps:
        gradients(params, step)
        opt.step()
    return params


def by_hand(fast, k, alpha, n_steps):
    """Algorithm 1 of the paper, around an optimizer of torch."""
    params = parameters()
    opt, slow = fast(params), [p.detach().clone() for p in params]
    for step in range(n_steps):
        gradients(params, step)
        opt.step()
        if (step + 1) % k == 0:
            slow = [s + alpha * (p.detach() - s) for s, p in zip(slow, params, strict=True)]
            for s, p in zip(slow, params, strict=True):
                p.data.copy_(s)
    return params


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@OPTIMIZERS
@pytest.mark.parametrize(("k", "alpha", "n_steps"), [(3, 0.5, 7), (1, 0.2, 4), (5, 1.0, 11), (2, 0.0, 4), (6, 0.8, 5)])
def test_slow_weights_go_alpha_of_the_way_every_k_steps(fast, k, alpha, n_steps):
    params = parameters()
    assert_same(run(Lookahead(fast(params), k, alpha), params, range(n_steps)), by_hand(fast, k, alpha, n_steps))


def test_with_alpha_1_it_is_the_optimizer_alone_and_with_0_it_comes_back():
    params, alone, back = parameters(), parameters(), parameters()
    run(Lookahead(SGD(params, lr=0.1), k=2, alpha=1.0), params, range(4))
    run(SGD(alone, lr=0.1), alone, range(4))
    run(Lookahead(SGD(back, lr=0.1), k=2, alpha=0.0), back, range(4))
    assert equal(params, alone) and equal(back, parameters())


def test_ranger_is_radam_with_decoupled_decay_and_lookahead():
    fast = partial(RAdam, lr=0.1, betas=(0.95, 0.999), eps=1e-6, weight_decay=0.3, decoupled_weight_decay=True)
    params = parameters()
    assert_same(run(ranger(params, 0.1, weight_decay=0.3), params, range(14)), by_hand(fast, 6, 0.5, 14))


def test_groups_keep_their_rates_and_schedules_reach_them():
    params = parameters()
    opt = Lookahead(SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.0}], lr=0.1), k=2)
    before = params[1].detach().clone()
    run(opt, params, range(2))
    assert torch.equal(params[1], before) and [group["lr"] for group in opt.param_groups] == [0.1, 0.0]
    opt.param_groups[1]["lr"] = 0.1
    run(opt, params, range(1))
    assert not torch.equal(params[1], before)


def test_a_parameter_group_added_later_takes_part():
    params = parameters()
    opt = Lookahead(SGD(params[:1], lr=0.1), k=2, alpha=0.0)
    opt.add_param_group({"params": params[1:]})
    run(opt, params, range(1))
    assert not equal(params, parameters())
    run(opt, params, range(1, 2))
    assert equal(params, parameters())


# ---- files and copies


@OPTIMIZERS
def test_loading_its_own_state_changes_nothing(fast):
    params, undisturbed = parameters(), parameters()
    opt = Lookahead(fast(params), k=3)
    opt.load_state_dict(opt.state_dict())  # before the first step, too
    for step in range(7):
        run(opt, params, [step])
        opt.load_state_dict(opt.state_dict())
    run(Lookahead(fast(undisturbed), k=3), undisturbed, range(7))
    assert equal(params, undisturbed)


@OPTIMIZERS
@pytest.mark.parametrize("at", [1, 3, 5])
def test_saved_and_loaded_elsewhere_it_goes_on_bit_identically(fast, at):
    straight, first = parameters(), parameters()
    run(Lookahead(fast(straight), k=3), straight, range(8))

    opt = Lookahead(fast(first), k=3)
    run(opt, first, range(at))
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    second = [nn.Parameter(p.detach().clone()) for p in first]
    again = Lookahead(fast(second), k=3)
    again.load_state_dict(torch.load(file, weights_only=True))
    run(again, second, range(at, 8))
    assert equal(straight, second)


@OPTIMIZERS
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_goes_on_alone_and_looks_ahead_too(fast, copied):
    params = parameters()
    opt = Lookahead(fast(params), k=3)
    run(opt, params, range(2))
    twin, its_params = copied((opt, params))
    before = [p.detach().clone() for p in params]
    run(twin, its_params, range(2, 7))
    assert equal(params, before)
    assert equal(run(opt, params, range(2, 7)), its_params)


# ---- parameters that do not always train


def test_a_frozen_parameter_stands_still_without_slow_weights():
    frozen, other = params = parameters()
    opt = Lookahead(SGD(params, lr=0.1), k=2)
    run(opt, [other], range(4))
    assert torch.equal(frozen, parameters()[0]) and not opt.state[frozen]


def test_a_parameter_thawed_later_begins_its_own_k_steps():
    thawed, other = params = parameters()
    opt = Lookahead(SGD(params, lr=0.1), k=3)
    run(opt, [other], range(2))
    alone, _ = others = parameters()
    run(opt, params, range(4))
    run(Lookahead(SGD(others, lr=0.1), k=3), others, range(4))
    assert torch.equal(thawed, alone)


def test_a_parameter_frozen_between_does_not_move():
    frozen, other = params = parameters()
    opt = Lookahead(SGD(params, lr=0.1), k=2)
    run(opt, params, range(1))
    before, frozen.grad = frozen.detach().clone(), None
    run(opt, [other], range(1, 4))
    assert torch.equal(frozen, before)


# ---- as an optimizer among others


def test_a_closure_is_called_before_the_step():
    (p,) = params = parameters()[:1]
    opt, n_calls = Lookahead(SGD(params, lr=0.1), k=1, alpha=0.0), []

    def closure():
        n_calls.append(1)
        opt.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    torch.testing.assert_close(opt.step(closure), parameters()[0].square().sum())
    assert n_calls == [1] and torch.equal(p, parameters()[0])


def test_schedulers_of_torch_take_it():
    params = parameters()
    opt = Lookahead(SGD(params, lr=0.1))
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.5)
    run(opt, params, range(1))
    scheduler.step()
    assert opt.param_groups[0]["lr"] == opt.opt.param_groups[0]["lr"] == 0.05


def test_it_prints_what_it_wraps():
    text = repr(Lookahead(SGD(parameters(), lr=0.1), k=5, alpha=0.8))
    assert text.startswith("Lookahead(SGD (") and text.endswith("k=5, alpha=0.8)")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Lookahead(parameters()), TypeError, "Lookahead got list: it takes an optimizer whose steps"),
        (lambda: Lookahead(Lookahead(SGD(parameters()))), TypeError, "Lookahead got Lookahead"),
        (lambda: Lookahead(LBFGS(parameters())), TypeError, "Lookahead got LBFGS"),
        (lambda: Lookahead(SGD(parameters()), k=0), ValueError, "k=0: the number of steps"),
        (lambda: Lookahead(SGD(parameters()), k=2.5), ValueError, "k=2.5: the number of steps"),
        (lambda: Lookahead(SGD(parameters()), alpha=1.5), ValueError, "alpha=1.5: the share of the way"),
    ],
)
def test_what_it_cannot_take_is_explained(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- in a learner


def batches(n, bs=8):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(bs, 4, generator=generator) for _ in range(n)]
    return [(x, (x.sum(1) > 0).long()) for x in inputs]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def body_and_head(model):
    return [list(model[0].parameters()), list(model[2].parameters())]


def make_learn(path=None, **kwargs):
    data = DataBunch(batches(5), batches(1), device="cpu")
    learn = Learner(data, network(), nn.CrossEntropyLoss(), opt_func=ranger, path=path, **kwargs)
    learn.progress.bar = learn.progress.table = False
    return learn


def test_weights_of_a_learner_are_those_of_a_loop_by_hand():
    learn, model = make_learn(), network()
    learn.fit(2, 0.01)
    learn.fit(1, 0.01)
    opt = RAdam(model.parameters(), 0.01, (0.95, 0.999), 1e-6, 0.01, decoupled_weight_decay=True)
    slow = copy.deepcopy(model.state_dict())
    for n_steps, (x, y) in enumerate(batches(5) * 3, 1):
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        opt.step()
        if n_steps % 6 == 0:
            slow = {name: slow[name].lerp(value, 0.5) for name, value in model.state_dict().items()}
            model.load_state_dict(slow)
    assert_same(learn.model.state_dict().values(), model.state_dict().values())


def test_a_learner_saved_between_fits_goes_on_as_if_it_had_not_been(tmp_path):
    once, twice = make_learn(), make_learn(tmp_path)
    for _ in range(2):
        once.fit(1)
    twice.fit(1)
    twice.save("between")
    again = make_learn(tmp_path).load("between")
    again.fit(1)
    assert equal(once.model.parameters(), again.model.parameters())


def test_a_copied_learner_keeps_its_slow_weights():
    learn = make_learn()
    learn.fit(1)
    twin = copy.deepcopy(learn)
    for each in (learn, twin):
        each.fit(1)
    assert equal(learn.model.parameters(), twin.model.parameters()) and isinstance(twin.opt, Lookahead)


def test_a_body_thawed_by_fine_tuning_trains():
    learn = make_learn(splitter=body_and_head)
    before = copy.deepcopy(learn.model.state_dict())
    learn.fine_tune(2, 0.01)
    assert not any(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())
    assert all("slow" in learn.opt.state[p] for p in learn.model.parameters())
