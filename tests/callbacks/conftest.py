"""What the tests of callbacks share: a small learner of three classes."""

import io
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import matplotlib
import pytest
import torch
from torch import nn
from warmstart.callbacks import Callback
from warmstart.callbacks.core import EVENTS
from warmstart.data import Block, CategoryBlock, DataBlock, DataBunch, IndexSplitter
from warmstart.learner import Learner

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


@pytest.fixture
def device_reads(monkeypatch):
    """What has been read from a tensor so far, by the method that did it: each makes the host wait for a device."""
    reads = []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *args, f=original, n=name, **kw: (reads.append(n), f(self, *args, **kw))[1]
        )
    return reads


class FailIn(Callback):
    """Raises an error in the third training batch of an epoch."""

    def __init__(self, epoch, error):
        self.at, self.error = (epoch, 2), error

    def before_backward(self, learn):
        if (learn.epoch, learn.iter) == self.at:
            raise self.error


class HandOver(Callback):
    """Does what the callback of `make()` does; after a batch `at` (epoch, iter), or after an epoch where that is None,
    a new one takes its place, and is told what it would be in another process that resumes the fit from a file.

    `before_that(old, learn)` is what happens to the old one when its state has been saved.
    """

    def __init__(self, make, epoch, iter=None, before_that=lambda old, learn: None):
        self.make, self.at, self.before_that = make, (epoch, iter), before_that
        self.cb = make()
        self.order, self.orders = self.cb.order, self.cb.orders
        self.taker = TakeOver(self)

    def replace(self, learn):
        state = through_a_file(self.cb.state_dict())
        self.before_that(self.cb, learn)
        opt, epoch = deepcopy(learn.opt.state_dict()), learn.epoch
        old, self.cb = self.cb, self.make()
        if learn.recorder is old:
            learn.recorder = self.cb
        learn.epoch = 0
        self.load_around("before_fit", state, learn, before=True)
        learn.opt.load_state_dict(opt)
        learn.epoch = epoch
        if self.at[1] is not None:
            self.tell("before_epoch", learn)
            self.load_around("before_train", state, learn)

    def load_around(self, event, state, learn, before=False):
        if before:
            self.cb.load_state_dict(state)
        self.tell(event, learn)
        self.cb.load_state_dict(state)

    def tell(self, event, learn):
        if handler := getattr(self.cb, event, None):
            handler(learn)


for event in EVENTS:
    setattr(HandOver, event, lambda self, learn, event=event: self.tell(event, learn))


class TakeOver(Callback):
    """Has a callback replaced when all others have heard of the moment."""

    order = 10000

    def __init__(self, hand_over):
        self.hand_over, self.done = hand_over, False

    def after_batch(self, learn):
        if learn.training and (learn.epoch, learn.iter) == self.hand_over.at:
            self.replace(learn)

    def after_epoch(self, learn):
        if (learn.epoch, None) == self.hand_over.at:
            self.replace(learn)

    def replace(self, learn):
        self.done = True
        self.hand_over.replace(learn)


def through_a_file(state):
    """What comes back of a state that is saved."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@dataclass
class Picture(Block):
    """A single pixel, its colour known by its number."""

    is_picture: ClassVar[bool] = True

    def draw(self, value, ax):
        ax.imshow(value.reshape(1, 1).numpy())


@pytest.fixture
def make_picture_learn(tmp_path):
    """Makes learners of pictures: 3 batches for training, 9 items for validation."""

    def make(*layers):
        block = DataBlock(
            (Picture, CategoryBlock), get_x=lambda i: [i / 20], get_y=lambda i: i % 2, splitter=IndexSplitter(range(9))
        )
        data = block.databunch(range(21), path=tmp_path, bs=4, device="cpu", seed=0)
        torch.manual_seed(0)
        learn = Learner(data, nn.Sequential(nn.Linear(1, 8), *layers, nn.Linear(8, 2)))
        learn.progress.bar = learn.progress.table = False
        return learn

    return make
