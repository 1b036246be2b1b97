"""Diffusion as a system: a network that learns to take noise out of images, and makes images out of noise."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.randomness import mix, seeded_generators
from .diffusion_process import cosine_signal, denoising, diffused, fresh_noise, velocity

__all__ = ["Diffusion", "generators_for"]


class Diffusion(nn.Module):
    """Trains `net(noisy, time, labels)` to predict the velocity of noisy values (see `diffusion_process.velocity`).

    A batch is (values, labels) or values alone, each of `shape`: images `(c, h, w)`, or anything else between the
    numbers of `bounds` (None: they are not bounded). In training, each gets noise of a random step. A share `p_any` of
    the labels is hidden, so that the network learns both what a class looks like and what anything does: the difference
    is what guidance goes by (Ho & Salimans 2022, arXiv:2207.12598). Validation has the same noise every time.

    The loss is the plain mean squared error of velocities. So the steps of much noise, where it is decided what an
    image shows, count more than by DDPM's loss, the error of the noise.
    """

    signal: Tensor
    bounds: Tensor | None

    def __init__(self, net: nn.Module, shape: Sequence[int], n_classes: int = 0, bounds: Tensor | None = None,
                 n_steps: int = 1000, p_any: float = 0.1):  # fmt: skip
        super().__init__()
        if not 0 <= p_any <= 1:
            raise ValueError(f"p_any={p_any}: the share of labels that is hidden in training, from 0 to 1.")
        self.net, self.shape, self.n_classes = net, tuple(shape), n_classes
        self.p_any = p_any
        self.register_buffer("signal", cosine_signal(n_steps), persistent=False)
        self.register_buffer("bounds", bounds, persistent=False)

    @property
    def n_steps(self) -> int:
        return len(self.signal) - 1

    def forward(self, noisy: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """The velocity of `noisy` at steps int64 `(bs,)`; where none is given, of pure noise, at the last one."""
        time = noisy.new_ones(len(noisy)) if step is None else step.to(noisy.dtype) / self.n_steps
        return self.net(noisy, time, labels)

    # ---- training

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = self._parted(batch)
        if labels is not None and self.p_any:
            hidden = torch.rand(len(labels), device=labels.device) < self.p_any
            labels = labels.masked_fill(hidden, self.n_classes)
        return self._loss(images, labels, torch.rand(1, device=images.device))

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = self._parted(batch)
        with seeded_generators(batch_idx, images.device):
            return self._loss(images, labels, torch.rand(1, device=images.device))

    def _loss(self, images: Tensor, labels: Tensor | None, offset: Tensor) -> Tensor:
        """Steps are spread evenly over a batch, from `offset` on (Kingma et al. 2021, arXiv:2107.00630)."""
        times = (offset + torch.arange(len(images), device=images.device) / len(images)) % 1
        step = (times * self.n_steps).long().clamp(max=self.n_steps - 1) + 1
        signal, noise = self.signal[step], torch.randn_like(images)
        predicted = self(diffused(images, noise, signal), step, labels)
        return F.mse_loss(predicted, velocity(images, noise, signal))

    def _parted(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Images and labels. Raises ValueError for images of another shape, or labels that are missing."""
        values: Sequence[Any] = batch if isinstance(batch, (tuple, list)) else [batch]
        images = values[0].as_subclass(Tensor)
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"This diffusion model makes images of shape {self.shape}, and those of the batch have "
                f"{tuple(images.shape[1:])}: bring them to one size, item_tfms=Resize(…)."
            )
        if self.n_classes and len(values) < 2:
            raise ValueError(f"This diffusion model knows {self.n_classes} classes, and the batch has no labels.")
        return images, values[1] if self.n_classes else None

    # ---- making

    def generate(self, seeds: Sequence[int], labels: Tensor | None = None, steps: int = 50, guidance: float = 1.0,
                 eta: float = 0.0) -> Iterator[Tensor]:  # fmt: skip
        """Values `(len(seeds), *shape)` after each of `steps` steps from noise by `seeds`; the last are clean.

        With `labels` int64 `(bs,)`, velocities are those of any image plus `guidance` times what the class changes: 0
        ignores the class, 1 is as trained, more is more typical and less varied. Runs without gradients, in the mode
        that the network is in.
        """
        device = self.signal.device
        generators = generators_for(seeds)

        @torch.no_grad()
        def predict(noisy: Tensor, step: Tensor) -> Tensor:
            if labels is None or guidance == 1:
                return self(noisy, step, labels)
            hidden = torch.full_like(labels, self.n_classes)
            both = self(torch.cat([noisy, noisy]), torch.cat([step, step]), torch.cat([hidden, labels]))
            of_any, of_class = both.chunk(2)
            return torch.lerp(of_any, of_class, guidance)

        noise = fresh_noise(generators, self.shape).to(device)
        bounds = None if self.bounds is None else (self.bounds[0], self.bounds[1])
        return denoising(predict, noise, self.signal, steps, eta, bounds, generators)


def generators_for(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator on the CPU for each seed, so that what is made of one does not depend on the others."""
    return [torch.Generator().manual_seed(mix(seed) >> 1) for seed in seeds]
