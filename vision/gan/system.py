"""A generator and a critic as one model with a training step: all that a GAN needs of the training loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Adam

from ...learner.metrics import as_metric, metric_name
from ...learner.optim import create_optimizer, layer_groups, per_group
from .losses import GANLoss

__all__ = ["ADAM", "BOTH", "CRITIC", "GAN", "GENERATOR", "Rates", "all_params"]

CRITIC, GENERATOR, BOTH = ("critic",), ("generator",), ("critic", "generator")
ADAM = partial(Adam, betas=(0.5, 0.999))  # as DCGAN's
Rates = float | slice | Sequence[float]


def all_params(network: nn.Module) -> list[nn.Parameter]:
    """All parameters as one layer group, also those that are frozen for now."""
    return list(network.parameters())


class GAN(nn.Module):
    """Trains `generator` and `critic` against each other (Goodfellow et al. 2014, arXiv:1406.2661), one at a time.

    A batch is (inputs of the generator, …, real images). In the critic's turn it gets the loss of real and made images
    and its optimizer steps; in the generator's turn likewise. The other network does not move meanwhile: neither
    weights nor buffers nor gradients, to the bit. `turns` says whose turn a batch is, and a switcher sets it; without
    one the critic's, then the generator's. A network that is frozen has no turn: the other one has it instead.

    `loss` is one of `losses.py`. `penalty(critic, real, fake)` is added to the critic's; with `clip` its weights are
    cut to ±`clip` after each of its steps. `likeness(fake, real)` is added to the generator's, each with its weight of
    `weights_gen`: (that of the critic's opinion, that of likeness). `opt_func(params, lr=…)` makes an optimizer for
    each network, by default Adam with DCGAN's `betas=(0.5, 0.999)`; `lr` is one for both or (generator's, critic's),
    and may be a list over the layer groups that `splitters` part a network into. `metrics` compare made with real
    images in validation.

    Called as any model, it generates.
    """

    automatic_optimization = False
    learner: ClassVar[type]  # what an exported file is loaded as

    def __init__(self, generator: nn.Module, critic: nn.Module, loss: GANLoss,
                 penalty: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None, clip: float | None = None,
                 likeness: Callable[[Tensor, Tensor], Tensor] | None = None,
                 weights_gen: tuple[float, float] = (1.0, 1.0),
                 opt_func: Callable = ADAM, lr: Rates | tuple[Rates, Rates] = 2e-4,
                 splitters: tuple[Callable, Callable] = (all_params, all_params),
                 metrics: Sequence[Any] = ()):  # fmt: skip
        super().__init__()
        if clip is not None and clip <= 0:
            raise ValueError(f"clip={clip}: the largest size of a weight, above 0; None does not cut them.")
        self.generator, self.critic = generator, critic
        self.loss, self.penalty, self.clip, self.likeness, self.weights_gen = loss, penalty, clip, likeness, weights_gen
        self.opt_func, self.lr, self.splitters = opt_func, lr, splitters
        for network in (generator, critic):
            if not any(p.requires_grad for p in network.parameters()):
                raise ValueError(f"{type(network).__name__} has no parameter that trains: both networks have to learn.")
        self.metrics = {metric_name(metric): as_metric(metric) for metric in metrics}
        self.turns = BOTH

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.generator(*inputs)

    # ---- training

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        inputs, real = _parted(batch)
        for network in self._who_learns():
            if network == "critic":
                self._critic_step(inputs, real)
            else:
                self._generator_step(inputs, real)

    def _who_learns(self) -> tuple[str, ...]:
        able = tuple(name for name in BOTH if any(p.requires_grad for p in getattr(self, name).parameters()))
        return tuple(name for name in self.turns if name in able) or able

    def _critic_step(self, inputs: Sequence[Tensor], real: Tensor) -> None:
        _, opt = self.optimizers()  # type: ignore[operator]  # lent by the learner, as what follows is
        with unmoved(self.generator), self._training_alone(opt):
            with torch.no_grad():
                fake = _checked(self.generator(*inputs), real)
            loss = self.loss.critic(self.critic(real), self.critic(fake))
            if self.penalty is not None:
                loss = loss + self.penalty(self.critic, real, fake)
            self._step("critic_loss", loss, opt)
        if self.clip is not None:
            with torch.no_grad():
                trained: list[Tensor] = [p for p in self.critic.parameters() if p.requires_grad]
                torch._foreach_clamp_min_(trained, -self.clip)
                torch._foreach_clamp_max_(trained, self.clip)

    def _generator_step(self, inputs: Sequence[Tensor], real: Tensor) -> None:
        opt, _ = self.optimizers()  # type: ignore[operator]
        with unmoved(self.critic), self._training_alone(opt):
            fake = _checked(self.generator(*inputs), real)
            self._step("gen_loss", self._generator_loss(fake, real), opt)

    def _generator_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        loss = self.weights_gen[0] * self.loss.generator(self.critic(fake))
        return loss if self.likeness is None else loss + self.weights_gen[1] * self.likeness(fake, real)

    @contextmanager
    def _training_alone(self, opt: Any) -> Iterator[None]:
        """Inside, only what `opt` steps gets gradients."""
        self.toggle_optimizer(opt)  # type: ignore[operator]
        try:
            yield
        finally:
            self.untoggle_optimizer(opt)  # type: ignore[operator]

    def _step(self, name: str, loss: Tensor, opt: Any) -> None:
        self.log(name, loss)  # type: ignore[operator]
        opt.zero_grad()
        self.manual_backward(loss)  # type: ignore[operator]
        opt.step()
        opt.zero_grad()

    # ---- validation

    def on_validation_epoch_start(self) -> None:
        for metric in self.metrics.values():
            metric.reset()

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        inputs, real = _parted(batch)
        fake = _checked(self.generator(*inputs), real)
        self.log("valid_critic_loss", self.loss.critic(self.critic(real), self.critic(fake)))  # type: ignore[operator]
        for name, metric in self.metrics.items():
            metric.update(fake, real)
            self.log(name, metric)  # type: ignore[operator]
        return self._generator_loss(fake, real)

    # ---- optimizers

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Those of the generator, then those of the critic."""
        return [group for groups in self._groups_of_networks() for group in groups]

    def _groups_of_networks(self) -> list[list[list[nn.Parameter]]]:
        networks = zip(self.splitters, (self.generator, self.critic), strict=True)
        return [layer_groups(splitter, network) for splitter, network in networks]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for the generator, one for the critic; layer groups are counted through."""
        of_networks, n = self._groups_of_networks(), 0
        optimizers = []
        for groups, lr in zip(of_networks, _pair(self.lr), strict=True):
            opt = create_optimizer(self.opt_func, groups, per_group(lr, len(groups)), set())
            for group in opt.param_groups:
                group["layer_group"] += n
            optimizers.append(opt)
            n += len(groups)
        return optimizers


def _parted(batch: Any) -> tuple[Sequence[Any], Tensor]:
    """The generator's inputs and the real images. Raises ValueError for a batch that has not both."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        kind = f"{len(batch)} value" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise ValueError(
            f"A GAN's batch is (inputs of the generator, real images), and this one is {kind}. For noise as input: "
            "DataBlock((NoiseBlock(100), ImageBlock), …)."
        )
    return batch[:-1], batch[-1]


def _checked(fake: Tensor, real: Tensor) -> Tensor:
    """Made images. Raises ValueError where they are not of the size of the real ones."""
    if fake.shape != real.shape:
        raise ValueError(
            f"The generator makes images of shape {tuple(fake.shape[1:])} and the real ones are "
            f"{tuple(real.shape[1:])}: make it for that size and so many channels, as in basic_generator(28, "
            "n_channels=1), or bring the images to its own, item_tfms=Resize(…)."
        )
    return fake


def _pair(lr: Any) -> tuple[Any, Any]:
    return lr if isinstance(lr, tuple) else (lr, lr)


@contextmanager
def unmoved(network: nn.Module) -> Iterator[None]:
    """Inside, a network works as in training; afterwards its buffers, such as BatchNorm's statistics, are as before."""
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
