"""Averages of a model's weights over training, which often generalise better than the weights it ends with."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .core import Callback
from .parted import like, own_parts

__all__ = ["EMA", "SWA"]


class _Averaging(Callback):
    """Keeps averages of floating-point weights and buffers, and puts them into the model whenever it does not train.

    So validation, saving and whatever else happens between two epochs' training see the averages; training goes on with
    the weights it had. After the fit the model has the averages.
    """

    order = 70
    real_runs_only = True
    state_names = ("averages", "n_averaged", "inside")

    def __init__(self):
        self.weights: list[Tensor] = []  # of the model
        self.averages: list[Tensor] = []
        self.n_averaged = 0
        self.inside = self.was_inside = False  # whether the model holds the averages, and `averages` its own weights

    def before_fit(self, learn: Any) -> None:
        if others := [cb for cb in learn.cbs if isinstance(cb, _Averaging) and cb is not self]:
            raise ValueError(f"{self!r} and {others[0]!r} would both put their averages into the model: choose one.")
        self.weights = [w for w in learn.model.state_dict().values() if w.is_floating_point()]
        self.averages, self.n_averaged = [w.clone() for w in self.weights], 0
        self.inside = self.was_inside = False

    def before_train(self, learn: Any) -> None:
        self._swap(inside=False)

    def after_train(self, learn: Any) -> None:
        self._swap(inside=True)

    after_cancel_train = after_train

    def before_validate(self, learn: Any) -> None:
        if learn.fitting:  # perhaps in the middle of an epoch
            self.was_inside = self.inside
            self._swap(inside=True)

    def after_validate(self, learn: Any) -> None:
        if learn.fitting:
            self._swap(self.was_inside)

    after_cancel_validate = after_validate

    def after_fit(self, learn: Any) -> None:
        self.weights, self.averages = [], []

    after_cancel_fit = after_fit

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self.weights:  # by which they are parted
            self.averages = [like(a, w) for a, w in zip(self.averages, self.weights, strict=True)]

    def _swap(self, inside: bool) -> None:
        if inside != self.inside and self.n_averaged:
            kept = [w.clone() for w in self.weights]
            torch._foreach_copy_(own_parts(self.weights), own_parts(self.averages))
            self.averages, self.inside = kept, inside

    def _average_in(self, share: float) -> None:
        """Let the present weights be that share of the averages."""
        self.n_averaged += 1
        torch._foreach_lerp_(own_parts(self.averages), own_parts(self.weights), share)


class EMA(_Averaging):
    """Exponential moving average of the weights: after each step `average = decay · average + (1 - decay) · weights`.

    It starts from the weights before the fit (Polyak & Juditsky 1992; as used by Tarvainen & Valpola 2017,
    arXiv:1703.01780), and is what validation sees and the model has in the end. It looks back about `1 / (1 - decay)`
    steps: a fit much shorter than that keeps most of the weights it started from, and is warned of.
    """

    def __init__(self, decay: float = 0.9998):
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: the share that the average keeps in a step, at least 0 and below 1.")
        super().__init__()
        self.decay = decay

    def after_step(self, learn: Any) -> None:
        self._average_in(1 - self.decay)

    def after_fit(self, learn: Any) -> None:
        if learn.n_steps and (kept := self.decay**learn.n_steps) > 0.5:
            warnings.warn(
                f"EMA(decay={self.decay}) keeps {kept:.0%} of the weights that this fit of {learn.n_steps} steps began "
                f"with: a decay of about {1 - 5 / max(10, learn.n_steps):.3g} suits its length.",
                stacklevel=2,
            )
        super().after_fit(learn)


class SWA(_Averaging):
    """Stochastic weight averaging: the mean of the weights at the end of each epoch from `start` on.

    `start` is the share of the fit that is trained as ever; then the learning rate stays at `lr`, if that is given.
    Each averaged model gets BatchNorm statistics of its own by a pass over the training data (Izmailov et al. 2018,
    arXiv:1803.05407).
    """

    def __init__(self, start: float = 0.75, lr: float | None = None):
        if not 0 <= start < 1:
            raise ValueError(f"start={start}: the share of the fit before averaging, at least 0 and below 1.")
        super().__init__()
        self.start, self.lr = start, lr

    def before_batch(self, learn: Any) -> None:
        if self.lr is not None and learn.training and learn.pct_train >= self.start:
            for group in learn.opt.param_groups:
                group["lr"] = self.lr

    def after_train(self, learn: Any) -> None:
        if self.inside or learn.pct_train < self.start:
            return
        self._average_in(1 / (self.n_averaged + 1))
        super().after_train(learn)
        _renew_statistics(learn)


def _renew_statistics(learn: Any) -> None:
    """Set the running statistics of BatchNorm layers to those of the training data under the present weights."""
    layers = [m for m in learn.model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
    try:
        learn.run_forward(learn.data.train_dl)
        learn.ranks.average(value for layer in layers for value in (layer.running_mean, layer.running_var))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
