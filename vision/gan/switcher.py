"""Whose turn it is: the critic's or the generator's, batch by batch.

Without a switcher both learn from every batch, first the critic, then the generator.
"""

from typing import Any

from ...callbacks import Callback
from .system import BOTH, CRITIC, GAN, GENERATOR

__all__ = ["AdaptiveGANSwitcher", "FixedGANSwitcher"]


class FixedGANSwitcher(Callback):
    """`n_crit` steps of the critic, then `n_gen` of the generator, and so on; each takes a batch.

    Each fit begins with the critic. Steps count, so one that mixed precision leaves out is made up for.
    """

    state_names = ("n_steps",)

    def __init__(self, n_crit: int = 1, n_gen: int = 1):
        if n_crit < 1 or n_gen < 1:
            raise ValueError(f"FixedGANSwitcher({n_crit}, {n_gen}): each network has at least one step in turn.")
        self.n_crit, self.n_gen, self.n_steps = n_crit, n_gen, 0

    def before_fit(self, learn: Any) -> None:
        _check_gan(self, learn)
        self.n_steps = 0

    def before_batch(self, learn: Any) -> None:
        if learn.training:
            is_critics = self.n_steps % (self.n_crit + self.n_gen) < self.n_crit
            learn.model.turns = CRITIC if is_critics else GENERATOR

    def after_step(self, learn: Any) -> None:
        self.n_steps += 1

    def after_fit(self, learn: Any) -> None:
        learn.model.turns = BOTH

    after_cancel_fit = after_fit


class AdaptiveGANSwitcher(Callback):
    """The critic learns until its loss is below `critic_thresh`, then the generator until its is below `gen_thresh`.

    A threshold of None is reached with every batch. To know the loss, each batch waits for the device.
    """

    state_names = ("is_critics",)

    def __init__(self, gen_thresh: float | None = None, critic_thresh: float | None = None):
        self.gen_thresh, self.critic_thresh, self.is_critics = gen_thresh, critic_thresh, True

    def before_fit(self, learn: Any) -> None:
        _check_gan(self, learn)
        self.is_critics = True

    def before_batch(self, learn: Any) -> None:
        if learn.training:
            learn.model.turns = CRITIC if self.is_critics else GENERATOR

    def after_batch(self, learn: Any) -> None:
        if learn.training:
            thresh = self.critic_thresh if self.is_critics else self.gen_thresh
            if thresh is None or learn.loss.item() < thresh:
                self.is_critics = not self.is_critics

    def after_fit(self, learn: Any) -> None:
        learn.model.turns = BOTH

    after_cancel_fit = after_fit


def _check_gan(cb: Callback, learn: Any) -> None:
    """Raise TypeError for a model that takes no turns."""
    if not isinstance(learn.model, GAN):
        raise TypeError(f"{cb!r} says whose turn it is in a GAN, and the model is {type(learn.model).__name__}.")
