"""How far made images are from real ones, as an encoder sees both: FID and KID, metrics for a GAN's validation.

    fid = FID(create_body(resnet18), name="fid")
    learn = GANLearner.wgan_gp(data, generator, critic, metrics=fid)      # a column of each epoch's results

An encoder is any module or function from images as the learner has them, `(bs, c, h, w)`, to features `(bs, nf)`; of a
map the mean over places is taken. Numbers compare only where encoder, real images and their count are the same. Those
of papers are of an Inception network's weights: for these, take the `FrechetInceptionDistance` of torchmetrics with
torch-fidelity. For small images of few kinds, the body of a classifier that was trained on them says more.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...callbacks.evaluating import evaluating
from ...learner.metrics import StatefulMetric
from ...learner.tensors import double_precision

__all__ = ["FID", "KID", "frechet_distance"]


@dataclass(eq=False)
class FID(StatefulMetric):
    """The Fréchet distance between normal distributions fitted to the features of made and of real images.

    Heusel et al. 2017, arXiv:1706.08500; 0 is best. It falls with the number of images, and needs more of them than
    there are features. Only sums are kept, in double precision: `nf²` numbers.
    """

    encoder: Callable[[Tensor], Tensor]

    def measure(self, pred: Tensor, targ: Tensor) -> Tensor:
        return torch.stack([_sums(encoded(self.encoder, images)) for images in (pred, targ)])

    def score(self, state: Tensor) -> Tensor:
        """Raises ValueError for less than two images."""
        made, real = (_mean_and_covariance(sums) for sums in state)
        return frechet_distance(*made, *real)


def _sums(features: Tensor) -> Tensor:
    """Count, sums and sums of products in one matrix `(nf + 1, nf + 1)`: that of features with a 1 before them."""
    rows = torch.cat([features.new_ones(len(features), 1), features], dim=1)
    return rows.T @ rows


def _mean_and_covariance(sums: Tensor) -> tuple[Tensor, Tensor]:
    n = sums[0, 0]
    if n < 2:
        raise ValueError(f"FID needs two images or more of each kind, got {int(n)}.")
    mean = sums[0, 1:] / n
    return mean, (sums[1:, 1:] - n * torch.outer(mean, mean)) / (n - 1)


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """Of two normal distributions: ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½); means `(n,)`, covariances `(n, n)`."""
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()  # of the same eigenvalues as Σ₁Σ₂
    return (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * overlap


@dataclass(eq=False)
class KID(StatefulMetric):
    """The kernel distance: squared maximum mean discrepancy of the features, with the kernel (x·y/nf + 1)³.

    Bińkowski et al. 2018, arXiv:1801.01401. Unlike FID its expected value does not depend on the number of images, and
    is 0 where made and real ones are alike; a single value may lie below that. It is the mean over groups of
    `group_size` images in the order they come, each estimate unbiased. All features are kept, in single precision.
    """

    encoder: Callable[[Tensor], Tensor]
    group_size: int = 1000

    def measure(self, pred: Tensor, targ: Tensor) -> list[Tensor]:
        return [torch.stack([encoded(self.encoder, images).float() for images in (pred, targ)])]

    def score(self, state: list[Tensor]) -> Tensor:
        """Raises ValueError for less than two images."""
        made, real = double_precision(torch.cat(state, dim=1))
        if len(made) < 2:
            raise ValueError(f"KID needs two images or more of each kind, got {len(made)}.")
        groups = zip(*(x.tensor_split(max(1, len(x) // self.group_size)) for x in (made, real)), strict=True)
        return torch.stack([_discrepancy(x, y) for x, y in groups]).mean()


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def of_others(a: Tensor) -> Tensor:
        similarity, n = kernel(a, a), len(a)
        return (similarity.sum() - similarity.trace()) / (n * (n - 1))

    return of_others(x) + of_others(y) - 2 * kernel(x, y).mean()


def encoded(encoder: Any, images: Tensor) -> Tensor:
    """Features `(bs, nf)`, float64, of images in float32; a module goes to their device, and is in evaluation mode."""
    is_module = isinstance(encoder, nn.Module)
    with evaluating(encoder.to(images.device)) if is_module else contextlib.nullcontext(), torch.no_grad():
        features = encoder(images.float())
    if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(images):
        what = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"The encoder made {what} of {len(images)} images, not features (bs, nf) or a map of them.")
    return double_precision(features.flatten(2).mean(2) if features.ndim > 2 else features)
