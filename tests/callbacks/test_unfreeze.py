"""Thawing while training."""

import pytest
import torch
from torch import nn
from warmstart.callbacks import Callback
from warmstart.callbacks.unfreeze import Unfreeze


class Moved(Callback):
    """In which epochs the first and the last layer have changed."""

    def __init__(self):
        self.epochs = []

    def before_epoch(self, learn):
        self.before = [learn.model[0].weight.detach().clone(), learn.model[2].weight.detach().clone()]

    def after_epoch(self, learn):
        now = learn.model[0].weight, learn.model[2].weight
        self.epochs.append([not torch.equal(a, b) for a, b in zip(self.before, now, strict=True)])


def groups(model):
    return [list(model[0].parameters()), list(model[2].parameters())]


@pytest.mark.parametrize("fit", ["fit", "fit_one_cycle"])
def test_all_layers_train_from_that_epoch_on(make_learn, fit):
    learn, moved = make_learn(splitter=groups), Moved()
    learn.freeze()
    getattr(learn, fit)(3, slice(1e-3, 1e-2), cbs=[Unfreeze(at=1), moved])
    assert moved.epochs == [[False, True], [True, True], [True, True]]
    assert all(p.requires_grad for p in learn.model.parameters())


def test_training_is_the_same_as_in_two_fits_by_hand(make_learn):
    once, by_hand = make_learn(splitter=groups), make_learn(splitter=groups)
    once.freeze()
    once.fit(3, 0.01, cbs=Unfreeze(at=1))
    by_hand.freeze()
    by_hand.fit(1, 0.01)
    by_hand.unfreeze()
    by_hand.fit(2, 0.01)
    for ours, theirs in zip(once.model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_optimizer_made_while_frozen_steps_the_thawed_layers_with_their_learning_rate(make_learn):
    learn = make_learn(
        splitter=groups, opt_func=torch.optim.SGD, model=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    )
    learn.freeze()
    learn.fit(1, [0.01, 0.1], cbs=Unfreeze(at=0))
    assert [group["lr"] for group in learn.opt.param_groups] == [0.01, 0.1]
    assert learn.opt.param_groups[0]["params"][0] is learn.model[0].weight


def test_an_epoch_that_never_comes_is_warned_of(make_learn):
    learn = make_learn(splitter=groups)
    learn.freeze()
    with pytest.warns(UserWarning, match=r"Unfreeze\(at=2\) does nothing in this fit, whose last epoch is 1"):
        learn.fit(2, cbs=Unfreeze(at=2))
    with pytest.raises(ValueError, match="at=-1"):
        Unfreeze(at=-1)


def test_trying_out_leaves_the_layers_frozen(make_learn):
    learn = make_learn(splitter=groups, cbs=Unfreeze(at=0))
    learn.freeze()
    learn.lr_find(show_plot=False)
    assert not learn.model[0].weight.requires_grad
