"""Penalties that keep a critic from being steep: added to its loss, on top of what it says of a batch.

Each is called as `penalty(critic, real, fake)` with two batches of images `(bs, …)`, and gives a scalar in float32.
They need the gradient of the score of each image on its own, so the critic may not have BatchNorm.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...data.portable import Portable

__all__ = ["R1", "GradientPenalty"]


@dataclass
class GradientPenalty(Portable):
    """`weight` times the mean of (‖∇ critic‖ − `target`)² at random places between real and made images.

    Gulrajani et al. 2017, "Improved training of Wasserstein GANs", arXiv:1704.00028.
    """

    weight: float = 10.0
    target: float = 1.0

    def __call__(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
        norms = _slopes(critic, torch.lerp(fake.float(), real.float(), share))
        return self.weight * (norms - self.target).square().mean()


@dataclass
class R1(Portable):
    """`weight`/2 times the mean of ‖∇ critic‖² at real images (Mescheder et al. 2018, arXiv:1801.04406)."""

    weight: float = 10.0

    def __call__(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return self.weight / 2 * _slopes(critic, real.float()).square().mean()


def _slopes(critic: nn.Module, images: Tensor) -> Tensor:
    """The norm of the gradient of each image's score by its pixels, `(bs,)`; of several scores their mean's."""
    images = images.detach().requires_grad_()
    with torch.autocast(images.device.type, enabled=False):
        scores = critic(images).reshape(len(images), -1).mean(1)
        (gradients,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return torch.linalg.vector_norm(gradients.flatten(1), dim=1)
