"""Turns by number and by loss."""

import pytest
from torch import nn
from warmstart.callbacks import Callback, CancelStep
from warmstart.learner import Learner
from warmstart.vision.gan import AdaptiveGANSwitcher, FixedGANSwitcher


class Turns(Callback):
    """Whose turn each batch was, and the losses."""

    order = 90

    def __init__(self):
        self.turns, self.losses = "", []

    def after_batch(self, learn):
        if learn.training:
            self.turns += learn.model.turns[0][0]
            self.losses.append(learn.loss.item())


def turns_of(learn, n_epoch=3):
    turns = Turns()
    learn.fit(n_epoch, cbs=turns)
    return turns


@pytest.mark.parametrize(
    "n_crit, n_gen, expected",
    [(1, 1, "cgcgcgcgcgcg"), (5, 1, "cccccgcccccg"), (2, 3, "ccgggccgggcc"), (20, 1, "cccccccccccc")],
)
def test_steps_are_counted(learner, n_crit, n_gen, expected):
    assert turns_of(learner(FixedGANSwitcher(n_crit, n_gen))).turns == expected


def test_each_fit_begins_with_the_critic_and_both_learn_when_the_switcher_is_gone(learner):
    learn = learner()
    for _ in range(2):
        learn.fit(1, cbs=[switcher := FixedGANSwitcher(3), turns := Turns()])
        assert turns.turns == "cccg" and switcher.n_steps == 4
    assert learn.model.turns == ("critic", "generator")


def test_a_step_that_is_left_out_is_made_up_for(learner):
    class Skips(Callback):
        def before_step(self, learn):
            if learn.iter == 1:
                raise CancelStep

    learn = learner(FixedGANSwitcher(2, 1))
    learn.fit(1, cbs=[turns := Turns(), Skips()])
    assert turns.turns == "cccg" and learn.n_steps == 3


def test_losses_below_their_threshold_end_a_turn(learner):
    turns = turns_of(learner(AdaptiveGANSwitcher(gen_thresh=0.0, critic_thresh=1.9), lr=1e-2), 6)
    expected, who = "", "c"
    for loss in turns.losses:
        expected += who
        if loss < (1.9 if who == "c" else 0.0):
            who = "g" if who == "c" else "c"
    assert turns.turns == expected and {"c", "g"} == set(turns.turns) and "cc" in turns.turns


def test_no_threshold_is_reached_with_each_batch(learner):
    assert turns_of(learner(AdaptiveGANSwitcher())).turns == "cg" * 6


def test_switchers_are_for_gans(data):
    learn = Learner(data, nn.Linear(4, 1), nn.MSELoss())
    for switcher in (FixedGANSwitcher(), AdaptiveGANSwitcher()):
        with pytest.raises(TypeError, match="the model is Linear"):
            learn.fit(1, cbs=switcher)
    with pytest.raises(ValueError, match="at least one step"):
        FixedGANSwitcher(0)
