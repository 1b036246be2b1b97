"""Code of the user's own is told by what it does; that of libraries by its name alone."""

from functools import partial, wraps

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from warmstart.learner import CrossEntropyLoss, accuracy
from warmstart.learner.own_code import OWN_CODE, constants, is_own, own_code

SMOOTHING = 0.1


def compiled(text, name="f"):
    """What a script of this text defines under `name`."""
    namespace = {"__name__": "__main__", "nn": nn, "F": F}
    exec(text, namespace)
    return namespace[name]


def code(text, name="f"):
    return own_code(compiled(text, name))[OWN_CODE]


@pytest.mark.parametrize(
    "obj", [accuracy, F.cross_entropy, torch.relu, len, nn.Linear, CrossEntropyLoss, dict, partial]
)
def test_what_comes_from_a_library_has_no_code_of_its_own(obj):
    assert not is_own(obj) and own_code(obj) == {}


def test_layout_comments_and_the_words_of_docstrings_do_not_count():
    one = "def f(x, k=1):\n    'Twice.'\n    return x * 2"
    assert code(one) == code("\n\ndef f(x, k=1):\n    '''Doubles.'''\n\n    # twice\n    return x * 2")
    assert code(one) == own_code(compiled(one))[OWN_CODE]


@pytest.mark.parametrize(
    "other",
    [
        "def f(x): return x * 3",
        "def f(x): return x + 2",
        "def f(x): return x.mean() * 2",
        "def f(x): return [y * 2 for y in x]",
        "def f(x): return x in {'a', 'b'}",
    ],
)
def test_another_constant_operation_name_or_inner_function_is_seen(other):
    assert code(other) != code("def f(x): return x * 2")
    assert code(other) == code(other)


def test_sets_in_the_code_have_no_order():
    assert "frozenset" not in str(own_code(compiled("def f(x): return x in {'a', 'b', 'c'}")))
    assert code("def f(x): return x in {'a', 'b'}") != code("def f(x): return x in {'a', 'c'}")


def test_of_a_class_all_methods_and_constants_count_and_those_of_its_own_bases():
    text = (
        "class Base:\n  k = {k}\n  def g(self): return {g}\n"
        "class f(Base):\n  def h(self): return {h}\n  @property\n  def p(self): return {p}"
    )
    whole = code(text.format(k=1, g=2, h=3, p=4))
    assert whole == code(text.format(k=1, g=2, h=3, p=4))
    others = [text.format(**{"k": 1, "g": 2, "h": 3, "p": 4, name: 5}) for name in "kghp"]
    assert len({whole, *map(code, others)}) == 5
    assert own_code(compiled("class f(nn.Linear): pass")) == {}


def test_a_decorated_function_is_told_by_what_was_written():
    def twice(function):
        @wraps(function)
        def doubled(x):
            return 2 * function(x)

        return doubled

    one, other = twice(compiled("def f(x): return x")), twice(compiled("def f(x): return -x"))
    assert own_code(one) == own_code(compiled("def f(x): return x")) != own_code(other)


def test_what_a_function_takes_from_around_it_is_told():
    k, filled, n = 3, [], 0

    def loss(pred, targ, power=2, *, eps=1e-6):
        nonlocal n
        n += 1
        filled.append(pred)
        return (pred - targ).abs().pow(power).mean() * k * SMOOTHING + eps

    assert constants(loss) == {"k": 3, "SMOOTHING": 0.1, "defaults": [2, ("eps", 1e-6)]}
    assert constants(lambda x: x) == constants(accuracy) == constants(len) == {}


def test_a_variable_that_is_not_there_yet_is_left_out():
    def f():
        return later

    assert constants(f) == {}
    later = 1
    assert constants(f) == {"later": later}
