"""Which optimizers have a momentum to schedule, and that setting it reaches the optimizer that steps."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, AdamW, RMSprop
from warmstart.callbacks.hyper import has_momentum, hyper_key, set_hyper
from warmstart.learner import Lookahead, ranger


def make(opt_func):
    return opt_func([nn.Parameter(torch.ones(1))], lr=0.1)


def with_slow_weights(opt_func):
    return lambda params, lr: Lookahead(opt_func(params, lr=lr))


@pytest.mark.parametrize(
    ("opt_func", "expected"),
    [
        (SGD, True),  # of 0 as well: it may begin at any time
        (AdamW, True),
        (ranger, True),
        (Adagrad, False),
        (RMSprop, False),  # steps without a buffer, and has none later
        (partial(RMSprop, momentum=0.9), True),
    ],
)
def test_momentum_can_be_scheduled_where_the_optimizer_can_begin_with_it(opt_func, expected):
    assert has_momentum(make(opt_func)) is expected
    if opt_func is not ranger:
        assert has_momentum(make(with_slow_weights(opt_func))) is expected


def step(opt):
    (param,) = opt.param_groups[0]["params"]
    param.grad = torch.ones(1)
    opt.step()
    return param.item()


rmsprop = partial(RMSprop, momentum=0.9)


@pytest.mark.parametrize("opt_func", [SGD, AdamW, rmsprop, ranger, with_slow_weights(SGD), with_slow_weights(rmsprop)])
def test_a_momentum_that_is_set_counts_from_the_next_step_on(opt_func):
    changed, other = make(opt_func), make(opt_func)
    assert step(changed) == step(other)
    set_hyper(changed, "mom", [0.3])
    assert changed.param_groups[0][hyper_key(changed, "mom")] in (0.3, (0.3, 0.999))
    set_hyper(other, "mom", [0.6])
    assert [step(changed), step(changed)] != [step(other), step(other)]


def test_rmsprop_that_began_without_momentum_cannot_begin_with_it():
    opt = make(RMSprop)
    step(opt)
    set_hyper(opt, "mom", [0.9])
    with pytest.raises((KeyError, IndexError)):
        step(opt)
