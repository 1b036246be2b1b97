"""What the tests of callbacks share: a small learner of three classes."""

import matplotlib
import pytest
import torch
from torch import nn
from warmstart.data import DataBunch
from warmstart.learner import Learner

torch.set_num_threads(1)  # the networks are small: more threads only wait for each other where cores are shared
matplotlib.use("Agg")


def batches(*sizes, seed=0):
    """Batches of these sizes: four numbers per sample, and whether their sum is low, medium or high."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(size, 4, generator=generator) for size in sizes]
    return [(x, (x.sum(1) > -1).long() + (x.sum(1) > 1).long()) for x in inputs]


@pytest.fixture
def make_learn():
    """Makes learners: `make_learn(train=(8, 8), valid=(8,), model=…, **what a Learner takes)`. They print nothing."""

    def make(train=(8, 8, 8, 8), valid=(8, 8), model=None, loss_func=None, **kwargs):
        torch.manual_seed(0)
        data = DataBunch(batches(*train), batches(*valid, seed=1) if valid else None, device="cpu")
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) if model is None else model
        learn = Learner(data, model, nn.CrossEntropyLoss() if loss_func is None else loss_func, **kwargs)
        learn.progress.bar = learn.progress.table = False
        return learn

    return make


@pytest.fixture
def learn(make_learn):
    return make_learn()


@pytest.fixture(autouse=True)
def closed_figures():
    """No test sees the figures of another."""
    yield
    from matplotlib import pyplot as plt

    plt.close("all")
