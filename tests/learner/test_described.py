"""Descriptions: plain values that are the same in every process, for any object."""

import enum
import json
import math
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torchvision.transforms import InterpolationMode, v2
from warmstart.callbacks import Callback, EarlyStopping, MixUp, TorchScheduler
from warmstart.data import CategoryBlock
from warmstart.learner import CrossEntropyLoss, accuracy, top_k_accuracy
from warmstart.learner.described import CODE, MANY, described, in_words

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.floats(width=32).map(np.float32),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


class Counting(Callback):
    """Keeps its arguments, and other attributes beside them."""

    def __init__(self, strength=0.5, layers=None):
        self.strength, self.layers = strength, layers
        self.n, self.seen, self.made_by = 0, [], object()

    def after_batch(self, learn):
        self.n += 1


@settings(max_examples=50)
@given(PLAIN)
def test_plain_values_are_json_that_comes_back_equal(value):
    found = described(value)
    assert json.loads(json.dumps(found, allow_nan=False)) == found == described(value)


def test_numbers_and_names_are_told_as_they_are():
    assert described([1, 2.5, True, None, "x"]) == [1, 2.5, True, None, "x"]
    assert described([np.int64(3), torch.tensor(2), math.inf, Path("a/b")]) == [3, 2, "inf", "a/b"]
    assert described([torch.float16, torch.device("cpu")]) == ["float16", "cpu"]
    assert described([InterpolationMode.BILINEAR, enum.IntEnum("Size", "SMALL").SMALL]) == [  # type: ignore[attr-defined]
        "InterpolationMode.BILINEAR",
        "Size.SMALL",
    ]
    assert described({1: "a", "b": (2,)}) == {"1": "a", "b": [2]}
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
        (Counting(2.0), "Counting(strength=2.0, layers=None)"),
        (partial(top_k_accuracy, k=3), "partial(top_k_accuracy, k=3)"),
        (partial(F.cross_entropy, 1, reduction="sum"), "partial(cross_entropy, 1, reduction='sum')"),
        (CategoryBlock(["a"]), "CategoryBlock(vocab=['a'], sort=True, add_na=False)"),
        (nn.CrossEntropyLoss(),
         "CrossEntropyLoss(weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.0)"),
        (TorchScheduler(partial(StepLR, step_size=2)),
         "TorchScheduler(scheduler=partial(StepLR, step_size=2), per='batch', monitor='valid_loss', every=1)"),
        (EarlyStopping("accuracy", patience=2),
         "EarlyStopping(monitor=Monitor(name='accuracy', comp=None, min_delta=0.0), patience=2)"),
        (v2.RandomApply([v2.RandomInvert(0.5)]), "RandomApply(transforms=[RandomInvert(p=0.5)], p=0.5)"),
        (object(), "object()"),
    ],
)  # fmt: skip
def test_objects_are_told_by_the_arguments_that_they_keep(value, text):
    assert in_words(described(value)) == text


def test_what_else_an_object_has_does_not_count():
    cb = Counting()
    before = described(cb)
    cb.n, cb.seen = 5, [1]
    assert described(cb) == before != described(Counting(0.6))


def test_weights_of_classes_in_a_loss_count():
    one, other = (nn.CrossEntropyLoss(weight=torch.tensor([1.0, w])) for w in (2, 3))
    assert described(one) != described(other)


def test_objects_that_hold_themselves_come_to_an_end_without_an_address():
    @dataclass
    class Node:
        parts: list = field(default_factory=list)

    node = Node()
    node.parts.append(node)
    assert "0x" not in json.dumps([described(lambda: 0), described(Counting(layers=[object(), node]))])


# ---- functions


def compiled(text):
    """The function `f` that a script of this text defines."""
    namespace = {"__name__": "__main__", "F": F}
    exec(text, namespace)
    return namespace["f"]


def code(text):
    return described(compiled(text))[CODE]


def test_what_comes_from_a_library_is_told_by_its_name():
    for function in (accuracy, F.cross_entropy, torch.relu, len, nn.Linear, CrossEntropyLoss):
        assert described(function) == {"function": function.__qualname__}


def test_layout_comments_and_docstrings_do_not_count():
    one = "def f(x, k=1):\n    'Twice.'\n    return x * 2"
    assert code(one) == code("\n\ndef f(x, k=1):\n    '''Doubles.'''\n\n    # twice\n    return x * 2")


def test_another_constant_operation_name_or_inner_function_is_seen():
    others = ["x * 3", "x + 2", "x.mean() * 2", "F.relu(x, inplace=True) * 2", "[y * 2 for y in x]", "x in {'a', 'b'}"]
    codes = [code(f"def f(x): return {text}") for text in ["x * 2", *others]]
    assert len({*codes}) == 7 and code("def f(x): return x in {'b', 'a'}") == codes[-1]


def test_a_decorated_function_is_told_by_what_was_written():
    def twice(function):
        @wraps(function)
        def doubled(x):
            return 2 * function(x)

        return doubled

    one, other = twice(compiled("def f(x): return x")), twice(compiled("def f(x): return -x"))
    assert described(one) == described(compiled("def f(x): return x")) != described(other)
