"""A variational autoencoder as a system: images as a few numbers, and images out of such numbers."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.randomness import seeded_generators

__all__ = ["VAE", "kl"]


class VAE(nn.Module):
    """Codes of `n_latent` numbers for images `(bs, c, h, w)` in [0, 1] (Kingma & Welling 2014, arXiv:1312.6114).

    The encoder gives each image a normal distribution of codes, the decoder each code a chance of every pixel to be
    bright. The loss, in nats per image, is the binary cross-entropy of the pixels plus `beta` times the
    Kullback-Leibler divergence of the codes from standard normal ones (`kl`); both are logged. A `beta` above 1 orders
    codes more and blurs images (Higgins et al. 2017, "beta-VAE"). Called with images, it gives what their mean codes
    say of them.

    Raises ValueError for no codes, a `beta` below 0, or no `widths`, the channels after each halving of the size.
    """

    log_dict: Callable[[dict[str, Tensor]], None]  # lent by the learner

    def __init__(self, size: Sequence[int], n_channels: int, n_latent: int = 16, beta: float = 1.0,
                 widths: Sequence[int] = (32, 64)):  # fmt: skip
        super().__init__()
        if n_latent < 1 or beta < 0 or not widths:
            raise ValueError(f"n_latent={n_latent}, beta={beta}, widths={widths}: from 1, from 0, and one or more.")
        self.size, self.n_latent, self.beta = tuple(size), n_latent, beta
        small = [-(-side // 2 ** len(widths)) for side in size]
        n, n_small = widths[-1], widths[-1] * small[0] * small[1]
        downs = [_halving(n_in, n_out) for n_in, n_out in pairwise([n_channels, *widths])]
        ups = [_doubling(n_in, n_out) for n_in, n_out in pairwise([*reversed(widths), widths[0]])]
        self.encoder = nn.Sequential(*downs, nn.Flatten(), nn.Linear(n_small, 2 * n_latent))
        enter = nn.Sequential(nn.Linear(n_latent, n_small), nn.SiLU(), nn.Unflatten(1, (n, *small)))
        self.decoder = nn.Sequential(enter, *ups, nn.Conv2d(widths[0], n_channels, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images)[0])

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of each image's code, each `(bs, n_latent)`."""
        mean, log_var = self.encoder(images).chunk(2, dim=1)
        return mean, log_var

    def decode(self, codes: Tensor) -> Tensor:
        """Images in [0, 1] of codes `(bs, n_latent)`."""
        return self._logits(codes).sigmoid()

    def _logits(self, codes: Tensor) -> Tensor:
        height, width = self.size
        return self.decoder(codes)[..., :height, :width]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._loss(batch, "")

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss, of the same random codes in each validation."""
        with seeded_generators(batch_idx, self.encoder[-1].weight.device):  # type: ignore[arg-type]
            return self._loss(batch, "valid_")

    def _loss(self, batch: Any, prefix: str) -> Tensor:
        images = (batch[0] if isinstance(batch, (tuple, list)) else batch).as_subclass(Tensor)
        if images.shape[-2:] != self.size:
            raise ValueError(f"Images are {tuple(images.shape[-2:])} pixels, not {self.size}: item_tfms=Resize(…).")
        mean, log_var = self.encode(images)
        codes = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        of_pixels = F.binary_cross_entropy_with_logits(self._logits(codes), images, reduction="none").flatten(1).sum(1)
        parts = {f"{prefix}reconstruction": of_pixels.mean(), f"{prefix}kl": kl(mean, log_var).mean()}
        self.log_dict(parts)
        return parts[f"{prefix}reconstruction"] + self.beta * parts[f"{prefix}kl"]


def kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """How far normal codes `(bs, n)` are from standard normal ones, in nats, `(bs,)`."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def _halving(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.BatchNorm2d(n_out), nn.SiLU())


def _doubling(n_in: int, n_out: int) -> nn.Sequential:
    conv = nn.Conv2d(n_in, n_out, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2), conv, nn.BatchNorm2d(n_out), nn.SiLU())
