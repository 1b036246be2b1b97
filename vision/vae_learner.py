"""Variational autoencoders in a Learner.

learn = vae_learner(data, n_latent=16)
learn.fit_one_cycle(10, 2e-3)
images = learn.sample(9)
codes = learn.features(layer=learn.model.encoder)[:, :16]     # (n, 16)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import AdamW

from ..callbacks import Callback
from ..callbacks.evaluating import evaluating
from ..data import DataBunch
from ..data.portable import Portable
from ..learner import Learner
from ..learner.inference import Prediction, picked_samples
from .image import ImageBlock, show_images
from .normalisation import given_stats
from .vae import VAE

__all__ = ["VAELearner", "VAEModel", "vae_learner"]


class VAELearner(Learner):
    """A Learner whose model is a `VAE`: it gives images back, and makes new ones."""

    model: VAE

    def sample(self, n: int = 16, seed: int = 0) -> Tensor:
        """`n` images of random codes, float32 `(n, c, h, w)` in [0, 1] on the CPU; which ones follows from `seed`."""
        codes = torch.randn(n, self.model.n_latent, generator=torch.Generator().manual_seed(seed))
        self.model.to(self.data.device)
        with evaluating(self.model), torch.no_grad():
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
