"""The learning rate finder: what it reads off a curve, and that nothing is changed by it."""

import copy
import random
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn
from warmstart.callbacks import Callback, LRFinder, minimum, slide, steep, valley
from warmstart.data import DataBunch

LRS = np.geomspace(1e-6, 10, 71).tolist()  # ten for each power of ten


def descent(start, end, plateau=1.0, lowest=0.2):
    """A curve that is flat up to the learning rate `start`, falls to `end` in a straight line, and explodes."""
    losses = np.interp(np.log(LRS), np.log([LRS[0], start, end, 10]), [plateau, plateau, lowest, 8])
    return losses.tolist()


def near(lr):
    return pytest.approx(lr, rel=0.3)


def test_valley_is_the_middle_of_the_descent():
    assert valley(LRS, descent(1e-4, 1e-2)) == near(1e-3)


def test_valley_does_not_mind_bumps_or_a_plateau_that_sinks_a_little():
    bumpy = np.array(descent(1e-4, 1e-2))
    bumpy[45] += 0.1
    assert valley(LRS, bumpy) == near(1e-3)
    sinking = np.array(descent(1e-4, 1e-2)) + np.where(np.arange(71) < 30, 0.001 * np.resize([3, 1], 71), 0)
    assert valley(LRS, sinking) == near(1e-3)


def test_minimum_is_a_tenth_of_the_best():
    assert minimum(LRS, descent(1e-4, 1e-2)) == near(1e-3)


def test_steep_is_where_the_loss_falls_fastest():
    losses = np.interp(np.log(LRS), np.log([1e-6, 1e-4, 1e-3, 1e-2, 10]), [1.0, 1.0, 0.9, 0.2, 8])
    assert 1e-3 <= steep(LRS, losses) <= 1e-2


def test_steep_does_not_fall_for_the_noise_of_the_first_batches():
    """The smoothed loss begins with single batches, and moves less and less from one to the next."""
    noise = np.random.default_rng(0).normal(size=71) / np.arange(1, 72)
    assert 1e-4 <= steep(LRS, descent(1e-4, 1e-2) + noise) <= 1e-2


def test_slide_is_the_last_before_a_share_of_the_way_down():
    falling = descent(1e-4, 1e-2)
    assert slide(LRS, falling) == near(10 ** (-4 + 0.8 * 2))
    assert slide(LRS, falling, share=0.5) == near(1e-3)


@pytest.mark.parametrize("suggest", [valley, minimum, steep, slide])
@pytest.mark.parametrize("losses", [[1.0] * 71, np.linspace(2, 1, 71), np.linspace(1, 2, 71)])
def test_a_curve_without_a_valley_still_gives_a_learning_rate(suggest, losses):
    assert 1e-7 <= suggest(LRS, losses) <= 10


# ---- on a learner


def test_learning_rates_rise_geometrically_from_start_to_end(learn):
    learn.lr_find(1e-5, 0.1, num_it=21, show_plot=False)
    assert learn.recorder.lr_finder.lrs == pytest.approx(np.geomspace(1e-5, 0.1, 21))
    assert len(learn.recorder.lr_finder.losses) == 21


def test_the_losses_are_smoothed_without_a_bias_to_0(learn):
    losses = iter([4.0, 3.0, 2.0, 1.0, 1.0, 1.0])

    class Pretend(Callback):
        order = -100

        def after_loss(self, learn):
            learn.loss = learn.loss * 0 + next(losses)

    learn.add_cb(Pretend()).lr_find(num_it=6, show_plot=False)
    expected = np.average([4.0, 3.0, 2.0], weights=[0.9**2, 0.9, 1])
    assert learn.recorder.lr_finder.losses[2] == pytest.approx(expected)


def test_suggestions_come_by_name(learn):
    found = learn.lr_find(show_plot=False, suggest_funcs=(minimum, steep, valley, slide))
    finder = learn.recorder.lr_finder
    assert type(found).__name__ == "SuggestedLRs" and found._fields == ("minimum", "steep", "valley", "slide")
    assert found.minimum == minimum(finder.lrs, finder.losses) and found.valley == valley(finder.lrs, finder.losses)
    assert learn.lr_find(show_plot=False)._fields == ("valley",)


def test_a_suggestion_may_be_any_function(learn):
    found = learn.lr_find(show_plot=False, suggest_funcs=[partial(slide, share=0.5), lambda lrs, losses: 0.1])
    assert found._fields == ("slide", "_1") and found[1] == 0.1
    assert len(learn.lr_find(show_plot=False, suggest_funcs=steep)) == 1


def state(learn):
    """All that a search must leave as it was."""
    opt = learn.opt and copy.deepcopy(learn.opt.state_dict())
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    return copy.deepcopy(learn.model.state_dict()), opt, generators, learn.epochs_begun, learn.model.training


def assert_same(a, b):
    if isinstance(a, (torch.Tensor, np.ndarray)):
        assert np.array_equal(np.asarray(a), np.asarray(b))
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def norm_net():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("trained", [False, True])
def test_weights_optimizer_and_random_state_are_bit_identical_afterwards(make_learn, trained):
    learn = make_learn(model=norm_net())
    if trained:
        learn.fit_one_cycle(1)
    before = state(learn)
    learn.lr_find(show_plot=False)
    assert_same(state(learn), before)


def test_training_goes_on_as_if_there_had_been_no_search(make_learn):
    searched, other = make_learn(model=norm_net()), make_learn(model=norm_net())
    other.model.load_state_dict(searched.model.state_dict())
    for learn in (searched, other):
        torch.manual_seed(1)
        learn.fit(1)
        if learn is searched:
            learn.lr_find(show_plot=False)
        learn.fit(1)
    assert_same(searched.model.state_dict(), other.model.state_dict())
    assert searched.recorder.losses == other.recorder.losses


def test_an_interrupted_search_changes_nothing_either(make_learn):
    class Interrupt(Callback):
        def after_step(self, learn):
            if learn.train_iter == 10:
                np.random.rand(), random.random(), torch.rand(1)
                raise KeyboardInterrupt

    learn = make_learn(model=norm_net())
    before = state(learn)
    with pytest.raises(KeyboardInterrupt), learn.added_cbs(Interrupt()):
        learn.lr_find(show_plot=False)
    assert_same(state(learn), before)
    assert learn.recorder.lr_finder is None


def test_a_search_is_no_part_of_the_history(learn):
    learn.fit(1)
    learn.lr_find(show_plot=False)
    assert len(learn.recorder.history) == 1 and len(learn.recorder.losses) == 4


def test_it_works_on_a_frozen_model(make_learn):
    learn = make_learn(splitter=lambda m: [list(m[0].parameters()), list(m[2].parameters())])
    learn.freeze()
    before = copy.deepcopy(learn.model.state_dict())
    learn.lr_find(show_plot=False)
    assert_same(learn.model.state_dict(), before)
    assert not learn.model[0].weight.requires_grad and learn.model[2].weight.requires_grad


@pytest.mark.parametrize("train", [(8,), (8, 8, 3)])
def test_a_tiny_loader_is_read_again_and_again(make_learn, train):
    learn = make_learn(train=train)
    learn.lr_find(end_lr=0.1, num_it=20, show_plot=False)
    assert len(learn.recorder.lr_finder.lrs) == 20


def test_a_loader_of_unknown_length_is_read_again_and_again(make_learn):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(torch.ones(4), 1)] * 16)

    learn = make_learn()
    learn.data = DataBunch(torch.utils.data.DataLoader(Stream(), 8), device="cpu")
    learn.lr_find(end_lr=0.1, num_it=9, show_plot=False)
    assert len(learn.recorder.lr_finder.lrs) == 9


def test_it_stops_when_the_loss_explodes(make_learn):
    learn = make_learn(model=nn.Linear(4, 3), opt_func=torch.optim.SGD)
    learn.lr_find(end_lr=1e6, show_plot=False)
    curve = learn.recorder.lr_finder
    assert len(curve.lrs) < 100 and max(curve.losses) <= 4 * min(curve.losses)
    learn.lr_find(end_lr=1e6, show_plot=False, stop_div=False)
    assert len(learn.recorder.lr_finder.lrs) == 100


def test_a_loss_that_is_not_finite_ends_it_in_any_case(make_learn):
    learn = make_learn(loss_func=lambda pred, targ: pred.mean() / (1 if learn.iter < 6 else 0))
    learn.data = DataBunch([(torch.ones(8, 4), torch.ones(8))] * 10, device="cpu")
    learn.lr_find(show_plot=False, stop_div=False)
    assert len(learn.recorder.lr_finder.losses) == 6


def test_a_negative_loss_does_not_count_as_diverged(make_learn):
    learn = make_learn(loss_func=lambda pred, targ: pred.mean() * 0 - 1)
    learn.lr_find(show_plot=False)
    assert len(learn.recorder.lr_finder.lrs) == 100


@pytest.mark.parametrize(
    ("bad", "hint"), [(float("nan"), "saw 0 finite losses"), (float("inf"), "saw 0 finite losses")]
)
def test_too_few_steps_are_an_error_that_says_why(make_learn, bad, hint):
    learn = make_learn(loss_func=lambda pred, targ: pred.mean() * bad)
    with pytest.raises(ValueError, match=f"{hint}, too few to judge. Is start_lr too high, num_it below 5"):
        learn.lr_find(show_plot=False)
    with pytest.raises(ValueError, match="saw 3 finite losses"):
        make_learn().lr_find(num_it=3, show_plot=False)


def test_it_does_not_validate(make_learn):
    class Count(Callback):
        n = 0

        def before_batch(self, learn):
            self.n += not learn.training

    learn, count = make_learn(), Count()
    learn.add_cb(count).lr_find(show_plot=False)
    assert count.n == 0


def test_the_plot_shows_the_curve_and_the_suggestions(learn):
    found = learn.lr_find(suggest_funcs=(valley, slide))
    ax = plt.gcf().axes[0]
    finder, (curve, *points) = learn.recorder.lr_finder, ax.lines
    assert ax.get_xscale() == "log"
    assert list(curve.get_xdata()) == finder.lrs and list(curve.get_ydata()) == finder.losses
    assert [point.get_xdata()[0] for point in points] == list(found)
    assert points[0].get_ydata()[0] == pytest.approx(finder.losses[finder.lrs.index(found.valley)])
    assert [text.get_text().split(":")[0] for text in ax.get_legend().get_texts()] == ["valley", "slide"]


def test_the_recorder_draws_the_last_search_again(learn):
    with pytest.raises(ValueError, match=r"call learn.lr_find\(\) first"):
        learn.recorder.plot_lr_find()
    learn.lr_find(show_plot=False)
    assert not plt.get_fignums()
    learn.recorder.plot_lr_find()
    assert len(plt.gcf().axes[0].lines) == 2


def test_the_finder_is_a_callback_like_any_other(learn):
    finder = LRFinder(1e-4, 1e-2, num_it=6)
    learn.fit(5, cbs=finder)
    assert finder.lrs == pytest.approx(np.geomspace(1e-4, 1e-2, 6))
    assert len(learn.recorder.losses) == 6
