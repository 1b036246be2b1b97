"""Statistics of what the layers put out while a model trains, and pictures of them.

    learn.fit_one_cycle(1, cbs=(acts := ActivationStats()))
    acts.plot()                  # an overview of all layers
    acts.plot_layer_stats(-1)    # mean, standard deviation and share near zero of the last one

Activations that shrink towards zero, or grow, fall back and grow again, are what makes training fail. The pictures are
those of fast.ai's course, with bins that widen away from zero.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .activation_records import LARGEST, LINEAR, N_BINS, ActivationRecords
from .hooks import HookCallback, Modules
from .nested import tensors_in

__all__ = ["ActivationStats"]


class ActivationStats(ActivationRecords, HookCallback):
    """Records mean, standard deviation, share near zero and a histogram of each layer's output, by training step.

    `modules` and `every` as for `HookCallback`; near zero is `|x| <= near`. Layers are numbered in the order of
    `modules`, and go by their names, too. Of an output of several values the first tensor counts, and one without any
    is left out; where a layer is called several times in a step, all its outputs count together. Steps are training
    batches, over all fits of the learner. Everything stays on the device until somebody reads it; on a CPU a look takes
    as long as a cheap layer, so give large models an `every`.
    """

    real_runs_only = True
    state_names = ("layers", "step")

    def __init__(self, modules: Modules = None, every: int | None = None, near: float = 0.05):
        ActivationRecords.__init__(self)
        HookCallback.__init__(self, modules, every)
        self.near = near

    def before_fit(self, learn: Any) -> None:
        super().before_fit(learn)
        self.layers |= {name: type(module).__name__ for module, name in self.names.items()}

    def before_batch(self, learn: Any) -> None:
        super().before_batch(learn)
        self.step += learn.training

    def hook(self, module: nn.Module, input: Any, output: Any) -> None:
        values = next(tensors_in(output), None)
        if values is not None and values.numel():
            self._pending.append((self.names[module], self.step, _summary(values.float(), self.near)))

    def state_dict(self) -> dict[str, Any]:
        sums = {layer: (torch.tensor(list(rows)), _stacked(rows.values())) for layer, rows in self._read().items()}
        return {**super().state_dict(), "sums": sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._pending = []
        self._sums = {
            layer: dict(zip(steps.tolist(), sums.cpu().numpy(), strict=True))
            for layer, (steps, sums) in state["sums"].items()
        }


def _stacked(rows: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(rows)))


def _summary(values: Tensor, near: float) -> Tensor:
    """How many values, mean, variance, share near 0, and how many in each bin: a vector on the values' device."""
    var, mean = torch.var_mean(values, correction=0)
    near_zero = (values.abs() <= near).float().mean()
    n = torch.full_like(mean, values.numel())
    return torch.cat([torch.stack([n, mean, var, near_zero]), _counts(values.flatten())])


def _counts(values: Tensor) -> Tensor:
    """How many of the values (n,) are in each bin: (n_bins,); NaN is in none. The device need not be waited for."""
    scale = float(np.arcsinh(LARGEST / LINEAR))
    places = (torch.asinh(values / LINEAR) / scale).clamp(-1, 1)  # of equal width in this, -1 to 1, are the bins
    if not torch.are_deterministic_algorithms_enabled():
        return torch.histc(places, N_BINS, -1, 1)
    bins = ((places.nan_to_num() + 1) / 2 * N_BINS).long().clamp(max=N_BINS - 1)  # histc is refused in this mode
    return values.new_zeros(N_BINS).scatter_add_(0, bins, (~places.isnan()).float())
