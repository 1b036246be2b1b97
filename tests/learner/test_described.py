"""Descriptions: plain values that are the same in every process and after a fit, for any object."""

import enum
import json
import math
import operator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torchvision.transforms import InterpolationMode, v2
from warmstart.callbacks import Callback, EarlyStopping, LimitBatches, MixUp, TorchScheduler, sched_cos
from warmstart.data import CategoryBlock
from warmstart.learner import CrossEntropyLoss, F1Score, top_k_accuracy
from warmstart.learner.described import MANY, described, in_words, layer_text

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.floats(width=32).map(np.float32),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


class Counting(Callback):
    """Of the user's own, with all kinds of attributes."""

    state_names = ("best",)

    def __init__(self, strength=0.5, names=("a",), layers=None):
        self.strength, self.names, self.layers = strength, names, layers
        self.n, self.best, self.seen, self._private = 0, None, [], 3
        self.folder, self.model, self.comp = Path("models/run"), nn.Linear(2, 2), operator.gt
        self.mean = torch.zeros(3)

    def after_batch(self, learn):
        self.n += 1
        self.seen.append(learn.loss)
        self.mean.add_(1)


class Margin(nn.Module):
    """A loss with an argument, a buffer, a part and a counter."""

    def __init__(self, margin, weight):
        super().__init__()
        self.margin, self.calls = margin, 0
        self.register_buffer("weight", weight)
        self.register_buffer("running", torch.zeros(2))
        self.inner = nn.CrossEntropyLoss(label_smoothing=0.1)

    def forward(self, pred, targ):
        self.calls += 1
        return self.inner(pred, targ) + self.margin


@given(PLAIN)
def test_plain_values_are_json_that_comes_back_equal(value):
    found = described(value)
    assert json.loads(json.dumps(found, allow_nan=False)) == found == described(value)


def test_numbers_and_names_are_told_as_they_are():
    assert described([1, 2.5, True, None, "x"]) == [1, 2.5, True, None, "x"]
    assert described([np.int64(3), torch.tensor(2), math.inf, Path("a/b")]) == [3, 2, "inf", "a/b"]
    assert described([torch.float16, torch.device("cpu")]) == ["float16", "cpu"]
    assert described(InterpolationMode.BILINEAR) == "InterpolationMode.BILINEAR"
    assert described(enum.IntEnum("Size", "SMALL BIG").BIG) == "Size.BIG"  # type: ignore[attr-defined]
    assert described({1: "a", "b": (2,)}) == {"1": "a", "b": [2]}


def test_sets_have_no_order():
    assert described({"b", "a"}) == ["a", "b"]


def test_what_is_long_is_told_by_its_length_and_a_hash():
    long = [str(number) for number in range(MANY + 1)]
    assert described(long)["items"] == MANY + 1
    assert described(long) == described(list(long)) != described([*long[1:], "x"])


def test_a_tensor_is_told_by_shape_and_content():
    assert described(torch.zeros(2, 3)) == described(torch.zeros(2, 3)) != described(torch.ones(2, 3))
    assert in_words(described(torch.zeros(2, 3))) == "Tensor(shape=[2, 3])"


@pytest.mark.parametrize(
    "value, text",
    [
        (MixUp(0.4), "MixUp(alpha=0.4)"),
        (LimitBatches(3, 2), "LimitBatches(limits=[3, 2])"),
        (partial(top_k_accuracy, k=3), "partial(top_k_accuracy, k=3)"),
        (partial(torch.add, 1, alpha=2), "partial(add, 1, alpha=2)"),
        (CategoryBlock(["a"]), "CategoryBlock(vocab=['a'], sort=True, add_na=False)"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss(reduction='mean', ignore_index=-100, label_smoothing=0.0)"),
        (TorchScheduler(partial(StepLR, step_size=2)),
         "TorchScheduler(scheduler=partial(StepLR, step_size=2), per='batch', monitor='valid_loss', every=1)"),
        (EarlyStopping("accuracy", operator.gt, patience=2),
         "EarlyStopping(monitor=Monitor(name='accuracy', comp=gt, min_delta=0.0), patience=2)"),
        (object(), "object()"),
        (np.less, "less"),
    ],
)  # fmt: skip
def test_objects_are_told_by_their_arguments(value, text):
    assert in_words(described(value)) == text


def test_schedules_and_transforms_are_told_by_their_parameters():
    assert described(sched_cos(1, 2)) == described(sched_cos(1, 2)) != described(sched_cos(1, 3))
    one, other = v2.RandomApply([v2.ColorJitter(0.5)]), v2.RandomApply([v2.ColorJitter(0.4)])
    assert described(one) == described(v2.RandomApply([v2.ColorJitter(0.5)])) != described(other)


def test_a_callback_of_ones_own_has_the_attributes_that_stay():
    found = described(Counting())
    assert set(found) == {"class", "own code", "strength", "names", "layers", "folder", "model", "comp"}
    assert (found["folder"], found["model"]) == ("models/run", {"class": "Linear"})
    assert found["comp"] == {"function": "gt"}


def test_what_changes_in_a_fit_does_not_change_the_description():
    cb = Counting(0.5, ["a"])
    before = described(cb)
    cb.n, cb.best, cb.mean = 5, 0.1, torch.ones(3)
    cb.seen.append(1)
    assert described(cb) == before != described(Counting(0.6, ["a"]))


def test_of_a_module_buffers_that_are_arguments_and_parts_are_told():
    loss = Margin(0.2, torch.tensor([1.0, 2.0]))
    before = described(loss)
    loss(torch.zeros(1, 2), torch.tensor([0]))
    loss.running.add_(1)  # type: ignore[operator]
    assert described(loss) == before and before["inner"]["label_smoothing"] == 0.1
    assert described(Margin(0.2, torch.tensor([1.0, 3.0]))) != before


def test_a_metric_is_told_without_what_it_has_seen():
    metric = F1Score(average="macro")
    before = described(metric)
    metric.update(torch.eye(3), torch.arange(3))
    assert described(metric) == before != described(F1Score(average="micro"))


def test_functions_have_their_name_code_and_constants():
    def scaled(k):
        return lambda pred, targ: (pred - targ).mean() * k

    found = described(scaled(2))
    assert found["function"].endswith("scaled.<locals>.<lambda>") and found["with"] == {"k": 2}
    assert described(scaled(2)) == found != described(scaled(3))
    assert described(CrossEntropyLoss().activation)["of"]["class"] == "CrossEntropyLoss"


def test_objects_that_hold_themselves_come_to_an_end():
    @dataclass
    class Node:
        parts: list = field(default_factory=list)

    node = Node()
    node.parts.append(node)
    assert json.dumps(described(node))
    assert "0x" not in json.dumps([described(lambda: 0), described(Counting(layers=[object(), node]))])


def test_a_layer_is_told_as_it_prints_without_its_parts():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.act, self.head = 0.3, torch.relu, nn.Linear(2, 1)

    assert layer_text(nn.Conv2d(3, 4, 3)) == "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))"
    assert layer_text(Net()) == "Net(drop=0.3, act=relu)"


def test_a_layer_that_is_parted_over_processes_is_told_as_a_whole_one_is():
    class FSDPModule:
        pass

    layer = nn.Linear(2, 3)
    layer.__class__ = type("FSDPLinear", (FSDPModule, nn.Linear), {})
    assert layer_text(layer) == layer_text(nn.Linear(2, 3))
