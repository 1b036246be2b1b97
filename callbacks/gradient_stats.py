"""How large the gradients are, by layer and step.

    learn.fit_one_cycle(1, cbs=(grads := GradientStats()))
    grads.plot()
    grads.report()               # in words: do they vanish, explode, fail to come?

Where they shrink from layer to layer the first layers do not learn, where they grow training diverges (Pascanu et al.
2013, "On the difficulty of training recurrent neural networks", arXiv:1211.5063).
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .core import Callback
from .parted import put_together
from .report import Report

__all__ = ["GradientStats"]

VANISHING = 1e-3  # of the norm in the layer where it is largest
OFTEN = 0.2  # share of the steps
EXPLODING = 100  # times the median


class GradientStats(Callback):
    """Records the norm of every parameter's gradient at each optimizer step, before it is clipped.

    Under mixed precision that is the unscaled gradient, with gradient accumulation the accumulated one; a step that is
    left out has no row. Steps are counted over all fits of the learner. Norms stay on the device until somebody reads
    them.
    """

    order = 0  # after unscaling, before clipping
    real_runs_only = True

    def __init__(self):
        self.names: list[str] = []  # of all parameters, in the model's order
        self._pending: list[tuple[list[str], Tensor]] = []
        self._rows: list[dict[str, float]] = []

    # ---- recording

    def before_fit(self, learn: Any) -> None:
        self.names = [name for name, _ in learn.model.named_parameters()]

    def before_step(self, learn: Any) -> None:
        grads = {name: p.grad for name, p in learn.model.named_parameters() if p.grad is not None}
        if grads:
            self._pending.append((list(grads), put_together(torch.stack([_norm(grad) for grad in grads.values()]))))

    def state_dict(self) -> dict[str, Any]:
        """The rows as tables, one for each run of steps with the same columns."""
        blocks = [(columns, list(rows)) for columns, rows in groupby(self._read(), key=list)]
        tables = [torch.tensor([list(row.values()) for row in rows], dtype=torch.float64) for _, rows in blocks]
        return {"columns": [columns for columns, _ in blocks], "tables": tables}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        blocks = zip(state["columns"], state["tables"], strict=True)
        self._rows = [dict(zip(columns, row, strict=True)) for columns, table in blocks for row in table.tolist()]
        self._pending = []

    # ---- reading

    @property
    def norms(self) -> pd.DataFrame:
        """A row per step, a column for each parameter that has had a gradient, and `total`, of all of them together."""
        rows = self._read()
        columns = [name for name in self.names if any(name in row for row in rows)]
        return pd.DataFrame(rows, columns=[*columns, "total"]).rename_axis("step")

    @property
    def layer_norms(self) -> pd.DataFrame:
        """`norms` with the parameters of each layer taken together."""
        layers = dict.fromkeys(map(_layer, self.norms.columns))
        return pd.DataFrame([_by_layer(row) for row in self._read()], columns=list(layers)).rename_axis("step")

    def report(self) -> Report:
        """What is odd about the gradients, and what to do about it. Raises ValueError before there are any."""
        norms = self.layer_norms
        if norms.empty:
            raise ValueError("No gradient has been seen yet: pass this callback to a fit, learn.fit(1, cbs=…).")
        return Report.of(*_findings(norms.drop(columns="total"), norms["total"].to_numpy()))

    def _read(self) -> list[dict[str, float]]:
        """The norms by name, a dict per step."""
        for names, norms in self._pending:
            values = norms.tolist()
            self._rows.append(dict(zip(names, values, strict=True)) | {"total": float(np.linalg.norm(values))})
        self._pending.clear()
        return self._rows

    # ---- plot

    def plot(self) -> None:
        """The norm of each layer's gradient by step, as colours (by its logarithm), and below it the total norm."""
        from matplotlib import pyplot as plt
        from matplotlib.ticker import LogLocator

        norms = self.layer_norms
        layers = norms.drop(columns="total")
        height = min(8.0, 1 + 0.22 * layers.shape[1])
        figure, (top, bottom) = plt.subplots(
            2, 1, figsize=(9, height + 2), height_ratios=[height, 1.8], sharex=True, layout="constrained"
        )
        with np.errstate(divide="ignore"):
            logs = np.log10(layers.to_numpy().T)
        image = top.imshow(np.where(np.isfinite(logs), logs, np.nan), aspect="auto", interpolation="nearest")
        figure.colorbar(image, ax=top, label="log10 of the norm")
        every = -(-layers.shape[1] // 30)  # as many names as can be read
        top.set_yticks(range(0, layers.shape[1], every), layers.columns[::every], fontsize="small")
        top.set_title("gradient norm by layer")
        bottom.plot(norms["total"])
        bottom.set(yscale="log", xlabel="step", ylabel="total norm")
        bottom.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        bottom.yaxis.set_major_formatter("{x:g}")
        bottom.yaxis.set_minor_formatter("{x:g}")


def _norm(grad: Tensor) -> Tensor:
    values = grad.coalesce().values() if grad.is_sparse else grad
    return torch.linalg.vector_norm(values, dtype=torch.promote_types(values.dtype, torch.float32))


def _layer(name: str) -> str:
    """The layer that a parameter belongs to: its path without the last part."""
    return name.rpartition(".")[0] or name


def _by_layer(row: Mapping[str, float]) -> dict[str, float]:
    layers: dict[str, list[float]] = {}
    for name, norm in row.items():
        layers.setdefault(_layer(name), []).append(norm)
    return {layer: float(np.linalg.norm(norms)) for layer, norms in layers.items()}


def _findings(layers: pd.DataFrame, total: np.ndarray) -> list[str]:
    """A paragraph on each oddity, or on there being none."""
    oddities = [*_not_finite(total), *_silent(layers), *_vanishing(layers), *_exploding(total)]
    typical, largest = np.nanmedian(total), np.nanmax(total, initial=0)
    norms = f"The total norm is {typical:.3g} in the median of {len(total)} steps, at most {largest:.3g}."
    return [norms, *(oddities or ["Nothing is odd about the gradients."])]


def _not_finite(total: np.ndarray) -> Iterator[str]:
    if len(steps := np.flatnonzero(~np.isfinite(total))):
        yield (
            f"At {len(steps)} of {len(total)} steps the gradient is not finite, first at step {steps[0]}: "
            "DetectAnomaly() finds where that begins."
        )


def _silent(layers: pd.DataFrame) -> Iterator[str]:
    if silent := [name for name, largest in layers.max().items() if largest == 0]:
        yield (
            f"No gradient arrives at {_listed(silent)}: it is 0 at every step. Look for ReLUs that are always 0, "
            "weights that begin at 0, or a detach() on the way."
        )


def _vanishing(layers: pd.DataFrame) -> Iterator[str]:
    shares = layers.lt(VANISHING * layers.max(axis=1), axis=0).mean().to_dict()
    largest = layers.max().to_dict()
    small = {str(name): share for name, share in shares.items() if share >= OFTEN and largest[name] > 0}
    if small:
        yield (
            f"The gradient nearly vanishes in {_listed(list(small))}: below {VANISHING:g} of the largest layer's in up "
            f"to {max(small.values()):.0%} of the steps. Normalisation layers, residual connections or another "
            "initialisation let it through."
        )


def _exploding(total: np.ndarray) -> Iterator[str]:
    typical, largest = np.nanmedian(total), np.nanmax(total[np.isfinite(total)], initial=0)
    if 0 < EXPLODING * typical < largest:
        step = np.flatnonzero(total == largest)[0]
        yield (
            f"The gradient explodes at step {step}, to {largest / typical:.0f} times its median: GradientClip() bounds "
            "it, a lower learning rate or a longer warm-up may avoid it."
        )


def _listed(names: list, n: int = 5) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more layers" if len(names) > n else "")
