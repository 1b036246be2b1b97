"""What `ActivationStats` has recorded, to be read and drawn."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

__all__ = ["LARGEST", "LINEAR", "N_BINS", "ActivationRecords"]

COLUMNS = ["mean", "std", "near_zero"]
N_BINS = 51  # odd, so that the middle one is around 0
LINEAR, LARGEST = 0.01, 1000.0  # bins are even up to about LINEAR, then grow by a factor
TICKS = [-1000, -100, -10, -1, -0.1, 0, 0.1, 1, 10, 100, 1000]


class ActivationRecords:
    """Statistics and histograms of layers' outputs by training step, and their pictures."""

    near: float  # what counts as near zero

    def __init__(self):
        self.layers: dict[str, str] = {}  # name → class
        self.step = -1
        self._pending: list[tuple[str, int, Tensor]] = []  # layer, step and the summary of an output
        self._sums: dict[str, dict[int, np.ndarray]] = {}  # layer → step → n, sum, sum of squares, n near 0, n per bin

    @property
    def stats(self) -> pd.DataFrame:
        """A row per step and layer: `step, layer, mean, std` (of the population), `near_zero` (share, 0 to 1)."""
        sums = [(step, layer, row) for layer, rows in self._read().items() for step, row in rows.items()]
        ordered = sorted(sums, key=lambda named: named[0])
        rows = [(step, layer, *_moments(row)) for step, layer, row in ordered]
        return pd.DataFrame(rows, columns=["step", "layer", *COLUMNS])

    def layer_stats(self, idx: int | str) -> pd.DataFrame:
        """`mean, std, near_zero` of one layer, by step."""
        sums = self._read().get(self._name(idx), {})
        return pd.DataFrame(map(_moments, sums.values()), pd.Index(sums, name="step"), COLUMNS)

    def hist(self, idx: int | str) -> np.ndarray:
        """How many values of a layer's output fell in each bin at each step: counts (n_bins, n_steps)."""
        sums = self._read().get(self._name(idx), {})
        return np.array([row[4:] for row in sums.values()]).reshape(-1, N_BINS).T

    @property
    def bin_edges(self) -> np.ndarray:
        """The limits of the bins (n_bins + 1), -1000 to 1000; the outermost bins hold what is beyond, too."""
        return LINEAR * np.sinh(np.linspace(-1, 1, N_BINS + 1) * np.arcsinh(LARGEST / LINEAR))

    def _read(self) -> dict[str, dict[int, np.ndarray]]:
        """The sums by layer and step, with what has been recorded since the last time."""
        if self._pending:
            rows = torch.stack([summary for *_, summary in self._pending]).cpu().double().numpy()
            for (layer, step, _), row in zip(self._pending, rows, strict=True):
                sums = self._sums.setdefault(layer, {})
                sums[step] = sums.get(step, 0) + _as_sums(row)
            self._pending.clear()
        return self._sums

    def _name(self, idx: int | str) -> str:
        """The name of a layer. Raises ValueError before there is any, IndexError for one that there is not."""
        names = list(self.layers)
        if not self._read():
            raise ValueError(
                "No activation has been seen yet: pass this callback to a fit, learn.fit(1, cbs=…). (A model that "
                "torch.compile compiled before that fit does not call hooks.)"
            )
        if idx not in names and not (isinstance(idx, int) and -len(names) <= idx < len(names)):
            raise IndexError(f"There is no layer {idx!r}: the {len(names)} layers are {', '.join(names)}.")
        return names[idx] if isinstance(idx, int) else idx

    # ---- plots

    def plot_layer_stats(self, idx: int | str) -> None:
        """Mean, standard deviation and percentage near zero of one layer, by step."""
        from matplotlib import pyplot as plt

        stats, name = self.layer_stats(idx), self._name(idx)
        columns = {
            "mean": stats["mean"],
            "standard deviation": stats["std"],
            f"% within ±{self.near:g}": 100 * stats["near_zero"],
        }
        figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
        figure.suptitle(self._title(name))
        for ax, (label, values) in zip(axes, columns.items(), strict=True):
            ax.plot(values)
            ax.set(title=label, xlabel="step")
        axes[2].set_ylim(0, 100)

    def color_dim(self, idx: int | str, ax: Any = None) -> None:
        """The histogram of one layer's output over the steps: the brighter, the more values, by their logarithm."""
        from matplotlib import pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
        self._draw([self._name(idx)], [ax])

    def plot(self, max_n: int = 16) -> None:
        """`color_dim` of every layer, or of `max_n` spread evenly from the first to the last, over the same range."""
        from matplotlib import pyplot as plt

        self._name(0)
        shown = _spread(list(self.layers), max_n)
        n_cols = min(4, len(shown))
        n_rows = -(-len(shown) // n_cols)
        figure, axes = plt.subplots(n_rows, n_cols, figsize=(3 * n_cols + 1, 2.2 * n_rows + 0.5), squeeze=False,
                                    layout="constrained")  # fmt: skip
        self._draw(shown, axes.flat)
        for number, ax in enumerate(axes.flat):
            ax.title.set_fontsize("small")
            if number % n_cols:
                ax.set(ylabel="", yticklabels=[])
            if number + n_cols < len(shown):
                ax.set(xlabel="", xticklabels=[])
            if number >= len(shown):
                ax.remove()
        if len(shown) < len(self.layers):
            figure.suptitle(f"{len(shown)} of {len(self.layers)} layers")

    def _draw(self, names: Sequence[str], axes: Iterable[Any]) -> None:
        """Draw a layer's histogram on each of the axes, over the bins that any of them uses."""
        hists = {name: self.hist(name) for name in names}
        used = np.flatnonzero(sum(hist.sum(axis=1) for hist in hists.values()))
        low, high = (used[0], used[-1] + 1) if len(used) else (0, N_BINS)
        for (name, hist), ax in zip(hists.items(), axes, strict=False):
            steps = list(self._read().get(name, [0]))
            extent = (steps[0] - 0.5, steps[-1] + 0.5, low, high)
            _draw_hist(ax, hist[low:high], extent)
            ax.set(title=self._title(name), xlabel="step", ylabel="activation")

    def _title(self, name: str) -> str:
        kind = self.layers[name]
        return name if name == kind else f"{name}: {kind}"


def _as_sums(summary: np.ndarray) -> np.ndarray:
    """A summary with sums instead of averages, so that several can be added."""
    n, mean, var, near = summary[:4]
    return np.concatenate([[n, n * mean, n * (var + mean**2), n * near], summary[4:]])


def _moments(sums: np.ndarray) -> tuple[float, float, float]:
    """Mean, standard deviation and share near 0 of all values that are in the sums."""
    n, total, squares, near = sums[:4]
    mean = total / n
    return mean, np.sqrt(np.maximum(squares / n - mean**2, 0)), near / n


def _spread(names: list[str], max_n: int) -> list[str]:
    """At most `max_n` of the names, the first and the last among them."""
    if len(names) <= max_n:
        return names
    return [names[i] for i in np.linspace(0, len(names) - 1, max_n).round().astype(int)]


def _draw_hist(ax: Any, counts: np.ndarray, extent: tuple) -> None:
    """Logarithms of counts (n_bins, n_steps) as an image; `extent` are the first and last step, and bin."""
    if counts.size:
        ax.imshow(np.log1p(counts), origin="lower", aspect="auto", interpolation="nearest", extent=extent)
    ticks = [value for value in TICKS if extent[2] <= _bin(value) <= extent[3]]
    ax.set_yticks([_bin(value) for value in ticks], [f"{value:g}" for value in ticks])
    ax.xaxis.get_major_locator().set_params(integer=True)


def _bin(value: float) -> float:
    """Where a value is, counted in bins."""
    return (np.arcsinh(value / LINEAR) / np.arcsinh(LARGEST / LINEAR) + 1) / 2 * N_BINS
