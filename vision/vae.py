"""Variational autoencoders: images as a few numbers, and images out of such numbers.

learn = vae_learner(data, n_latent=16)
learn.fit_one_cycle(10, 2e-3)
images = learn.sample(9)
codes = learn.features(layer=learn.model.encoder)[:, :16]     # (n, 16)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from ..callbacks import Callback
from ..data import DataBunch
from ..data.portable import Portable
from ..data.randomness import seeded_generators
from ..learner import Learner
from ..learner.inference import Prediction, picked_samples
from .image import ImageBlock, show_images
from .normalisation import given_stats

__all__ = ["VAE", "VAELearner", "VAEModel", "vae_learner"]


class VAE(nn.Module):
    """Codes of `n_latent` numbers for images `(bs, c, h, w)` in [0, 1] (Kingma & Welling 2014, arXiv:1312.6114).

    The encoder gives each image a normal distribution of codes, the decoder each code a chance of every pixel to be
    bright. The loss, in nats per image, is the binary cross-entropy of the pixels plus `beta` times the Kullback-Leibler
    divergence of the codes from standard normal ones (`kl`); both are logged. A `beta` above 1 orders codes more and
    blurs images (Higgins et al. 2017, "beta-VAE"). Called with images, it gives what their mean codes say of them.
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


class VAELearner(Learner):
    """A Learner whose model is a `VAE`: it gives images back, and makes new ones."""

    model: VAE

    def sample(self, n: int = 16, seed: int = 0) -> Tensor:
        """`n` images of random codes, float32 `(n, c, h, w)` in [0, 1] on the CPU; which ones follows from `seed`."""
        codes = torch.randn(n, self.model.n_latent, generator=torch.Generator().manual_seed(seed))
        self.model.to(self.data.device).eval()
        with torch.no_grad():
            return self.model.decode(codes.to(self.data.device)).cpu()

    def predict(self, item: Any) -> Prediction:
        """What the model makes of one raw item: its image, three times."""
        image = self.run_batch(self.data.input_batch(item))[0].cpu()
        return Prediction(image, image, image)

    def show_results(self, max_n: int = 9) -> None:
        """Show validation images, and below each what its code says of it."""
        items, samples = picked_samples(self, max_n)
        made = [self.predict(item).decoded for item in items]
        if self.ranks.rank == 0:
            show_images([*(sample[0] for sample in samples), *made], nrows=2)


@dataclass
class VAEModel(Portable):
    """The description of a `VAE`; the fields are its arguments."""

    size: tuple[int, int]
    n_channels: int
    n_latent: int = 16
    beta: float = 1.0
    widths: Sequence[int] = (32, 64)

    learner: ClassVar[type] = VAELearner  # what an exported file is loaded as

    def build(self, pretrained: bool = False) -> VAE:
        """With random weights; there are no others."""
        return VAE(self.size, self.n_channels, self.n_latent, self.beta, self.widths)

    def prepare(self, data: DataBunch) -> DataBunch:
        """`data` itself. Raises ValueError for data without images in [0, 1] of the right channels."""
        block = data.blocks[0] if data.blocks else None
        if not isinstance(block, ImageBlock) or block.channels != self.n_channels:
            raise ValueError(f"A VAE of {self.n_channels} channels needs an ImageBlock of as many, not {block!r}.")
        if stats := given_stats(data):
            raise ValueError(f"The data is normalised by {stats}, and pixels are to stay in [0, 1]: leave it out.")
        return data


def vae_learner(data: DataBunch, n_latent: int = 16, beta: float = 1.0, widths: Sequence[int] = (32, 64),
                opt_func: Callable = AdamW, lr: float = 2e-3,
                cbs: Callback | Iterable[Callback] | None = None, wd: float | None = None,
                path: str | Path | None = None) -> VAELearner:  # fmt: skip
    """A Learner of a `VAE` for the images of the data, which have one size and no `Normalize`; labels are not read.

    `n_latent` and `beta` as in `VAE`; `widths` are the channels after each halving of the size.
    """
    images, *_ = batch if isinstance(batch := data.one_batch(), (tuple, list)) else (batch,)
    n_channels, height, width = images.shape[1:]
    spec = VAEModel((height, width), n_channels, n_latent, beta, widths)
    return VAELearner(data, spec.build(), None, opt_func, lr, cbs=cbs, path=path, wd=wd, model_spec=spec)
