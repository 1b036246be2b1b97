"""Norms of gradients, against PyTorch's, and what is said about them."""

from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn
from warmstart.callbacks import Callback, CancelStep
from warmstart.callbacks.gradient_stats import GradientStats


class Norms(Callback):
    """Norms as PyTorch computes them, before anything is clipped."""

    order = -1

    def __init__(self):
        self.total, self.by_name = [], []

    def before_step(self, learn):
        self.total.append(nn.utils.clip_grad_norm_(learn.model.parameters(), float("inf")).item())
        self.by_name.append({name: p.grad.norm().item() for name, p in learn.model.named_parameters()})


class Clip(Callback):
    order = 20

    def before_step(self, learn):
        nn.utils.clip_grad_norm_(learn.model.parameters(), 0.01)


@pytest.fixture
def trained(learn):
    """The norms of two epochs, and PyTorch's."""
    stats, expected = GradientStats(), Norms()
    learn.fit(2, 0.1, cbs=[stats, Clip(), expected])
    return stats, expected


def test_norms_are_those_before_clipping(trained):
    stats, expected = trained
    norms = stats.norms
    assert list(norms) == ["0.weight", "0.bias", "2.weight", "2.bias", "total"] and norms.index.tolist() == list(
        range(8)
    )
    for name in list(norms)[:-1]:
        assert norms[name].tolist() == pytest.approx([row[name] for row in expected.by_name])
    assert norms["total"].tolist() == pytest.approx(expected.total)


def test_layers_take_their_parameters_together(trained):
    stats, expected = trained
    layers = stats.layer_norms
    assert list(layers) == ["0", "2", "total"]
    together = [np.hypot(row["2.weight"], row["2.bias"]) for row in expected.by_name]
    assert layers["2"].tolist() == pytest.approx(together)
    assert layers["total"].tolist() == pytest.approx(expected.total)


def test_a_step_that_is_left_out_has_no_row(learn):
    class EverySecond(Callback):
        order = -50

        def before_step(self, learn):
            if learn.iter % 2 == 0:
                raise CancelStep

    stats = GradientStats()
    learn.fit(1, cbs=[stats, EverySecond()])
    assert len(stats.norms) == 2


def test_steps_go_on_over_fits_and_a_frozen_layer_has_no_norm(learn):
    stats = GradientStats()
    learn.model[0].requires_grad_(False)
    learn.fit(1, cbs=stats)
    assert list(stats.norms) == ["2.weight", "2.bias", "total"]
    learn.model[0].requires_grad_(True)
    learn.opt = None
    learn.fit(1, cbs=stats)
    norms = stats.norms
    assert list(norms) == ["0.weight", "0.bias", "2.weight", "2.bias", "total"]
    assert norms["0.weight"].isna().tolist() == [True] * 4 + [False] * 4
    assert stats.layer_norms["0"].isna().tolist() == [True] * 4 + [False] * 4


def test_nothing_is_read_from_the_device_in_a_step(make_learn, device_reads):
    def reads_of_an_epoch(n):
        device_reads.clear()
        make_learn(train=(8,) * n).fit(1, cbs=GradientStats())
        return len(device_reads)

    assert reads_of_an_epoch(2) == reads_of_an_epoch(20)


def test_sparse_gradients_have_a_norm_too(make_learn):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 4, sparse=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.embed((x[:, 0].abs() * 3).long().clamp(max=9)))

    opt_func = partial(torch.optim.SGD, fused=False)
    learn, stats, expected = make_learn(model=Words(), opt_func=opt_func), GradientStats(), []

    class Dense(Callback):
        def before_step(self, learn):
            expected.append(learn.model.embed.weight.grad.to_dense().norm().item())

    learn.fit(1, cbs=[stats, Dense()])
    assert stats.norms["embed.weight"].tolist() == pytest.approx(expected)


def test_a_norm_beyond_half_precision_is_finite(make_learn):
    class Convert(Callback):
        def before_batch(self, learn):
            learn.xb = (learn.xb[0].half(),)

    def loss_func(pred, targ):
        return (pred.float() * 1e4).sum()

    learn, stats = (
        make_learn(train=(1,), valid=None, model=nn.Linear(4, 100).half(), loss_func=loss_func),
        GradientStats(),
    )
    learn.fit(1, cbs=[stats, Convert()])
    assert stats.norms["bias"].tolist() == pytest.approx([1e5])  # float16 ends at 65504


# ---- the report


def rows(*norms):
    """Statistics with these norms of three layers, a row per step."""
    stats = GradientStats()
    stats.names = ["first.weight", "middle.weight", "last.weight"]
    stats._pending = [(stats.names, torch.tensor(row)) for row in norms]
    return stats


def test_report_says_that_nothing_is_odd(trained):
    stats, expected = trained
    report = stats.report()
    assert "Nothing is odd" in report and f"{np.median(expected.total):.3g}" in report
    assert repr(report) == str(report)


@pytest.mark.parametrize(
    ("norms", "says"),
    [
        ([[1e-6, 0.5, 1.0]] * 3, "nearly vanishes in first: below 0.001 of the largest layer's in up to 100% of the"),
        (
            [[1e-6, 0.5, 1.0]] * 3 + [[0.4, 0.5, 1.0]] * 7,
            "nearly vanishes in first: below 0.001 of the largest layer's in",
        ),
        ([[0.0, 0.5, 1.0]] * 3, "No gradient arrives at first"),
        ([[1.0, 1.0, 1.0]] * 9 + [[1.0, 900.0, 1.0]], "explodes at step 9, to 520 times its median"),
        (
            [[1.0, 1.0, 1.0], [1.0, float("nan"), float("inf")]],
            "At 1 of 2 steps the gradient is not finite, first at step 1",
        ),
    ],
)
def test_report_names_what_is_odd(norms, says):
    report = " ".join(rows(*norms).report().split())
    assert says in report and "Nothing is odd" not in report


def test_without_a_step_there_is_nothing_to_report():
    with pytest.raises(ValueError, match="pass this callback to a fit"):
        GradientStats().report()
    assert list(GradientStats().norms) == ["total"]


def test_plot_draws_layers_by_step_and_the_total(trained):
    stats, _ = trained
    stats.plot()
    top, bottom = plt.gcf().axes[:2]
    layers = stats.layer_norms
    np.testing.assert_allclose(top.images[0].get_array(), np.log10(layers[["0", "2"]].to_numpy().T))
    assert [label.get_text() for label in top.get_yticklabels()] == ["0", "2"]
    assert list(bottom.lines[0].get_ydata()) == layers["total"].tolist()


def test_plot_bears_norms_of_zero_and_infinity():
    rows([0.0, 1.0, float("inf")], [1.0, 1.0, 1.0]).plot()
    drawn = np.ma.filled(plt.gcf().axes[0].images[0].get_array(), np.nan)
    assert np.isnan(drawn).sum() == 2
