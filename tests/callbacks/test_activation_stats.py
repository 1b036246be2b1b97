"""Statistics of activations, against those computed by hand from the activations themselves."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn
from warmstart.callbacks import Callback
from warmstart.callbacks.activation_stats import N_BINS, ActivationStats


class Outputs(Callback):
    """What the layers put out in each training batch, from a forward pass of its own."""

    def __init__(self, *layers):
        self.layers, self.outputs = layers, []

    def before_batch(self, learn):
        if learn.training:
            x, outputs = learn.xb[0], []
            for layer in learn.model:
                x = layer(x)
                outputs.append(x.detach())
            self.outputs.append([outputs[i] for i in self.layers])


@pytest.fixture
def trained(make_learn):
    """Statistics of two epochs, and the outputs that they are of."""
    learn, stats, outputs = make_learn(train=(8, 8, 5)), ActivationStats(), Outputs(0, 2)
    learn.fit(2, 0.1, cbs=[outputs, stats])
    return stats, outputs.outputs


def test_stats_are_those_of_the_activations(trained):
    stats, outputs = trained
    table = stats.stats
    assert list(table) == ["step", "layer", "mean", "std", "near_zero"]
    assert table["step"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5] and table["layer"].tolist() == ["0", "2"] * 6
    by_hand = [[o.mean(), o.std(correction=0), (o.abs() <= 0.05).float().mean()] for step in outputs for o in step]
    np.testing.assert_allclose(table[["mean", "std", "near_zero"]], by_hand, rtol=1e-5, atol=1e-7)


def test_a_layer_goes_by_number_or_name(trained):
    stats, outputs = trained
    last = stats.layer_stats(-1)
    assert last.equals(stats.layer_stats(1)) and last.equals(stats.layer_stats("2"))
    assert last.index.tolist() == list(range(6))
    np.testing.assert_allclose(last["mean"], [step[1].mean() for step in outputs], rtol=1e-5, atol=1e-7)


def test_histograms_count_what_is_between_the_edges(trained):
    stats, outputs = trained
    hist = stats.hist(0)
    by_hand = [np.histogram(step[0].double().numpy(), stats.bin_edges)[0] for step in outputs]
    assert hist.shape == (N_BINS, 6)
    np.testing.assert_array_equal(hist, np.transpose(by_hand))
    assert hist.sum(axis=0).tolist() == [64, 64, 40] * 2


def test_bins_are_symmetric_and_the_outermost_hold_what_is_beyond(make_learn):
    class Fixed(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 0 + torch.tensor([-1e6, 1e6, float("inf"), 0.0, 0.001, 5.0, float("nan"), 0.0])

    learn, stats = make_learn(train=(1,), model=nn.Sequential(Fixed(4, 8), nn.Linear(8, 3))), ActivationStats()
    learn.fit(1, cbs=stats)
    counts, edges = stats.hist(0)[:, 0], stats.bin_edges
    np.testing.assert_allclose(edges, -edges[::-1], atol=1e-9)
    assert edges[-1] == pytest.approx(1000)
    assert counts[0] == 1 and counts[-1] == 2 and counts[N_BINS // 2] == 3 and counts.sum() == 7  # NaN in none
    assert np.isnan(stats.layer_stats(0)["mean"][0])


def test_deterministic_mode_gives_the_same_counts(make_learn):
    def hist():
        learn, stats = make_learn(), ActivationStats()
        learn.fit(1, cbs=stats)
        return stats.hist(-1)

    expected = hist()
    torch.use_deterministic_algorithms(True)
    try:
        np.testing.assert_array_equal(hist(), expected)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_large_mean_does_not_drown_the_deviation(make_learn):
    class Far(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 0 + 1e4 + torch.tensor([-0.5, 0.5])

    learn, stats = make_learn(train=(64,), model=nn.Sequential(Far(4, 2), nn.Linear(2, 3))), ActivationStats()
    learn.fit(1, cbs=stats)
    assert stats.layer_stats(0)["std"].tolist() == pytest.approx([0.5], rel=1e-3)


class Twice(nn.Module):
    """A layer that is used for two outputs."""

    def __init__(self):
        super().__init__()
        self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.shared(self.shared(x)))


def test_outputs_of_a_layer_used_twice_count_together(make_learn):
    learn, stats = make_learn(train=(8,), model=Twice()), ActivationStats()
    with torch.no_grad():
        x = learn.data.one_batch()[0]
        first = learn.model.shared(x)
        both = torch.cat([first, learn.model.shared(first)])
    learn.fit(1, cbs=stats)
    row = stats.layer_stats("shared").iloc[0]
    assert row["mean"] == pytest.approx(both.mean().item()) and row["std"] == pytest.approx(
        both.std(correction=0).item()
    )
    assert stats.hist("shared").sum() == both.numel()


class Odd(nn.Module):
    """Layers that put out a tuple, and no tensor at all."""

    class NoTensor(nn.Linear):
        def forward(self, x):
            return "text"

    def __init__(self):
        super().__init__()
        self.rnn, self.text, self.head = nn.LSTM(4, 6, batch_first=True), self.NoTensor(1, 1), nn.Linear(6, 3)

    def forward(self, x):
        self.text(x)
        return self.head(self.rnn(x)[0])


def test_of_several_values_the_first_tensor_counts_and_without_any_a_layer_is_left_out(make_learn):
    learn, stats = make_learn(train=(8,), model=Odd()), ActivationStats()
    learn.fit(1, cbs=stats)
    assert stats.hist("rnn").sum() == 8 * 6
    assert stats.layer_stats("text").empty and stats.hist("text").shape == (N_BINS, 0)
    stats.color_dim("text")
    stats.plot()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_is_summed_up_in_full_precision(make_learn, dtype):
    class Convert(Callback):
        def before_batch(self, learn):
            learn.xb = (learn.xb[0].to(dtype),)

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    learn, stats, outputs = make_learn(train=(512,), model=model), ActivationStats(), Outputs(0, 2)
    learn.fit(1, cbs=[Convert(), outputs, stats])
    by_hand = [o.double().std(correction=0).item() for o in outputs.outputs[0]]
    assert stats.stats["std"].tolist() == pytest.approx(by_hand, rel=1e-5)


def test_steps_go_on_over_fits_and_every_leaves_some_out(make_learn):
    learn, stats = make_learn(), ActivationStats(every=2)  # 4 batches an epoch
    learn.fit(1, cbs=stats)
    learn.fit(1, cbs=stats)
    assert stats.layer_stats(0).index.tolist() == [0, 2, 4, 6]


def test_nothing_is_read_from_the_device_in_a_step(make_learn, device_reads):
    def reads_of_an_epoch(n):
        device_reads.clear()
        make_learn(train=(8,) * n).fit(1, cbs=ActivationStats())
        return len(device_reads)

    assert reads_of_an_epoch(2) == reads_of_an_epoch(20)


def test_training_is_the_same_with_it(make_learn):
    plain, watched = make_learn(), make_learn()
    plain.fit(2)
    watched.fit(2, cbs=ActivationStats())
    assert plain.recorder.losses == watched.recorder.losses


def test_mistakes_are_explained(trained):
    stats, _ = trained
    with pytest.raises(IndexError, match="no layer 2: the 2 layers are 0, 2"):
        stats.hist(2)
    with pytest.raises(IndexError, match="no layer '1'"):
        stats.plot_layer_stats("1")
    with pytest.raises(ValueError, match="pass this callback to a fit"):
        ActivationStats().plot()


# ---- plots


def test_plot_layer_stats_draws_mean_deviation_and_percentage(trained):
    stats, _ = trained
    stats.plot_layer_stats("2")
    drawn = [list(ax.lines[0].get_ydata()) for ax in plt.gcf().axes]
    table = stats.layer_stats("2")
    assert drawn == [table["mean"].tolist(), table["std"].tolist(), (100 * table["near_zero"]).tolist()]
    assert plt.gcf().get_suptitle() == "2: Linear"


def test_color_dim_draws_the_logarithms_of_the_bins_that_are_used(trained):
    stats, _ = trained
    stats.color_dim(0)
    ax, hist = plt.gca(), stats.hist(0)
    used = np.flatnonzero(hist.any(axis=1))
    np.testing.assert_allclose(ax.images[0].get_array(), np.log1p(hist[used[0] : used[-1] + 1]))
    places = {
        float(label.get_text()): place for label, place in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)
    }
    assert places[0] == N_BINS / 2
    assert stats.bin_edges[int(places[0.1])] < 0.1 < stats.bin_edges[int(places[0.1]) + 1]


def test_plot_shows_layers_from_the_first_to_the_last(make_learn):
    model = nn.Sequential(nn.Linear(4, 3), *(nn.Linear(3, 3) for _ in range(7)))
    learn, stats = make_learn(model=model), ActivationStats()
    learn.fit(1, cbs=stats)
    stats.plot(max_n=5)
    titles = [ax.get_title() for ax in plt.gcf().axes]
    assert len(titles) == 5 and titles[0] == "0: Linear" and titles[-1] == "7: Linear"
    assert plt.gcf().get_suptitle() == "5 of 8 layers"
    assert len({ax.get_ylim() for ax in plt.gcf().axes}) == 1  # so that they can be compared
