"""Callbacks: methods named after events, called in order; a name that is none is refused when the class is written."""

import pytest
from warmstart.callbacks import Callback
from warmstart.callbacks.core import EVENTS, handlers


def test_there_is_an_event_before_and_after_every_stage_and_one_when_it_is_cancelled():
    stages = ["fit", "epoch", "train", "validate", "batch", "backward", "step"]
    expected = {f"{when}_{stage}" for stage in stages for when in ("before", "after", "after_cancel")}
    assert set(EVENTS) == expected | {"after_create", "after_pred", "after_loss"}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("after_bach", "after_batch"),
        ("before_backwards", "before_backward"),
        ("after_cancel_fits", "after_cancel_fit"),
        ("befor_fit", "before_fit"),
        ("after_batches", "after_batch"),
    ],
)
def test_a_misspelt_event_is_refused_with_the_right_name(wrong, right):
    with pytest.raises(TypeError, match=rf"Typo.{wrong} is not an event: did you mean {right}\?"):
        type("Typo", (Callback,), {wrong: lambda self, learn: None})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("on_epoch_end", "after_epoch"),
        ("on_train_begin", "before_fit"),
        ("on_train_batch_start", "before_batch"),
        ("on_validation_end", "after_validate"),
    ],
)
def test_an_event_of_another_library_is_refused_with_ours(theirs, ours):
    with pytest.raises(TypeError, match=rf"Moved.{theirs} is not an event: it is called {ours} here"):
        type("Moved", (Callback,), {theirs: lambda self, learn: None})


def test_an_invented_event_is_refused_with_the_list_of_events():
    with pytest.raises(TypeError, match=r"Odd.before_lunch is not an event: events are after_create, before_fit, "):

        class Odd(Callback):
            def before_lunch(self, learn): ...


def test_an_event_without_the_learner_is_refused():
    with pytest.raises(
        TypeError, match=r"Old.after_batch must take the learner, def after_batch\(self, learn\): too many"
    ):

        class Old(Callback):
            def after_batch(self): ...


def test_other_methods_and_attributes_are_a_callbacks_own():
    class Useful(Callback):
        before_what = "an attribute"

        def _after_all(self): ...

        def reset(self): ...

        def plot_losses(self): ...

    assert not any(handlers([Useful()]).values())


class First(Callback):
    order = -1

    def before_fit(self, learn): ...


class Second(Callback):
    def before_fit(self, learn): ...

    def after_fit(self, learn): ...


class Third(Second):
    order = 1


def test_callbacks_run_by_order_and_equal_ones_as_they_were_added():
    third, second, first, other = Third(), Second(), First(), Second()
    heard = handlers([third, second, first, other])
    assert heard["before_fit"] == (first.before_fit, second.before_fit, other.before_fit, third.before_fit)
    assert heard["after_fit"] == (second.after_fit, other.after_fit, third.after_fit)


def test_an_event_that_nobody_hears_has_no_handlers():
    heard = handlers([Second()])
    assert list(heard) == list(EVENTS)
    assert [event for event, who in heard.items() if who] == ["before_fit", "after_fit"]


def test_a_subclass_switches_an_event_off_by_none_and_an_instance_may_add_one():
    class Quiet(Second):
        before_fit = None

    quiet = Quiet()
    quiet.after_epoch = print
    assert handlers([quiet])["before_fit"] == ()
    assert handlers([quiet])["after_epoch"] == (print,)


def test_a_callback_is_printed_by_its_name():
    assert repr(Second()) == "Second"
