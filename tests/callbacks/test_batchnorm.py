"""BatchNorm of pretrained networks: training normalises as validation does."""

import torch
from torch import nn
from warmstart.callbacks import BnFreeze
from warmstart.data import DataBunch
from warmstart.learner import Learner, MSELoss


def test_layers_normalise_by_their_stored_statistics_in_training_too():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))
    batches = [(torch.randn(16, 4) * 3 + 5, torch.randn(16, 1)) for _ in range(4)]
    learn = Learner(DataBunch(batches, batches, device="cpu"), model, MSELoss(), cbs=BnFreeze(model))
    with learn.no_bar(), learn.no_logging():
        learn.fit(2)
    assert torch.equal(model[0].running_mean, torch.zeros(4)) and torch.equal(model[0].running_var, torch.ones(4))
    assert not torch.equal(model[0].weight, torch.ones(4))
