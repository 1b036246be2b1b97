"""Stages and their callbacks: what an error says, and that everybody gets the chance to put things back."""

import sys

import pytest
import torch
from torch import nn
from warmstart.callbacks import Callback, CancelFit, CancelStep
from warmstart.data import DataBunch
from warmstart.learner import Learner

has_notes = pytest.mark.skipif(sys.version_info < (3, 11), reason="errors carry notes from Python 3.11 on")


@pytest.fixture
def learn():
    torch.manual_seed(0)
    data = DataBunch([(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))] * 3, device="cpu")
    learn = Learner(data, nn.Linear(3, 2), nn.CrossEntropyLoss())
    learn.progress.bar = learn.progress.table = False
    return learn


class Heard(Callback):
    def __init__(self):
        self.events = []

    def after_step(self, learn):
        self.events.append("after_step")

    def after_cancel_step(self, learn):
        self.events.append("after_cancel_step")

    def after_fit(self, learn):
        self.events.append("after_fit")

    def after_cancel_fit(self, learn):
        self.events.append("after_cancel_fit")


def raising(event, error):
    """A callback that raises `error` in `event`."""

    def method(self, learn):
        raise error

    method.__code__ = method.__code__.replace(co_name=event)
    return type("Faulty", (Callback,), {event: method})()


def test_after_step_is_heard_when_the_optimizer_has_stepped_and_only_then(learn):
    class Every2nd(Callback):
        def before_step(self, learn):
            if learn.iter == 1:
                raise CancelStep

    heard = Heard()
    learn.fit(1, cbs=[heard, Every2nd()])
    assert heard.events == ["after_step", "after_cancel_step", "after_step", "after_fit"]
    assert learn.n_steps == 2


@has_notes
@pytest.mark.parametrize("event", ["before_fit", "before_batch", "after_loss", "after_step", "after_epoch"])
def test_an_error_names_the_callback_and_the_event_that_it_came_from(learn, event):
    with pytest.raises(ZeroDivisionError) as caught:
        learn.fit(1, cbs=raising(event, ZeroDivisionError("by zero")))
    assert caught.value.__notes__ == [f"This happened in the callback's Faulty.{event}."]


@has_notes
def test_an_error_of_the_model_names_no_callback(learn):
    learn.model = nn.Linear(5, 2)
    with pytest.raises(RuntimeError) as caught:
        learn.fit(1)
    assert not hasattr(caught.value, "__notes__")


NO_MEMORY = [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("CPUAllocator: can't allocate memory")]


@has_notes
@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_lack_of_memory_says_what_helps_and_leaves_a_learner_that_goes_on(learn, error):
    class TooLarge(nn.Module):
        def forward(self, x):
            raise error

    model, learn.model = learn.model, nn.Sequential(learn.model, TooLarge())
    with pytest.raises(type(error)) as caught:
        learn.fit(1)
    assert "smaller bs, with GradientAccumulation" in caught.value.__notes__[0]
    assert learn.pred is learn.loss is None and learn.xb == ()
    learn.model = model
    learn.fit(1)


@pytest.mark.parametrize("event", ["after_cancel_fit", "after_fit"])
def test_all_put_things_back_even_if_one_of_them_fails(learn, event):
    faulty, heard = raising(event, ZeroDivisionError()), Heard()
    end = raising("after_loss", CancelFit() if event == "after_fit" else RuntimeError("first"))
    with pytest.raises(ZeroDivisionError):
        learn.fit(1, cbs=[end, faulty, heard])
    assert event in heard.events
    learn.fit(1)
    assert not learn.fitting
