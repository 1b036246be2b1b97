"""BatchNorm of pretrained networks: training normalises as validation does."""

import pytest
import torch
from torch import nn
from warmstart.callbacks import BnFreeze
from warmstart.data import DataBunch
from warmstart.learner import Learner, MSELoss


@pytest.fixture
def learn():
    """Of two BatchNorm layers in a layer group each, for inputs of mean 5 and standard deviation 3."""
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    batches = [(torch.randn(16, 4) * 3 + 5, torch.randn(16, 1)) for _ in range(4)]
    learn = Learner(
        DataBunch(batches, batches, device="cpu"), model, MSELoss(), cbs=BnFreeze(model), train_bn=False,
        splitter=lambda model: [list(model[:2].parameters()), list(model[2:].parameters())],
    )  # fmt: skip
    with learn.no_bar(), learn.no_logging():
        yield learn


def kept(learn) -> list[bool]:
    """Whether each of the two layers has the statistics that it had before any training."""
    norms = learn.model[0], learn.model[2]
    return [norm.running_mean.eq(0).all().item() and norm.running_var.eq(1).all().item() for norm in norms]


def test_layers_normalise_by_their_stored_statistics_in_training_too(learn):
    learn.fit(2, 1e-4)
    assert kept(learn) == [True, True]
    assert not torch.equal(learn.model[0].weight, torch.ones(4))


@pytest.mark.parametrize(
    ("rates", "expected"),
    [(1e-3, [False, False]), (slice(1e-4, 1e-3), [True, False]), ([1e-2, 3e-4], [False, True])],
)
def test_a_layer_with_a_high_learning_rate_follows_its_images(learn, rates, expected):
    learn.fit_one_cycle(2, rates)  # which begins far below these rates, the highest
    assert kept(learn) == expected


def test_a_frozen_layer_keeps_its_statistics_at_any_rate_until_it_trains(learn):
    learn.freeze()
    learn.fit(1, 1e-2)
    assert kept(learn) == [True, False]
    learn.unfreeze()
    learn.fit(1, 1e-2)
    assert kept(learn) == [False, False]


def test_the_highest_rates_are_in_its_state_since_a_fit_may_resume_in_the_middle_of_a_cycle(learn):
    callback = next(cb for cb in learn.cbs if isinstance(cb, BnFreeze))
    learn.fit_one_cycle(1, slice(1e-4, 1e-3))
    assert callback.state_dict() == {"rates": pytest.approx([1e-4, 1e-3])}
