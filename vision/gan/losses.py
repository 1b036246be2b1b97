"""What a generator and its critic want: losses of the scores that the critic gives to real and to made images.

A critic gives any number of scores to an image, one or a map of them; a higher score says "real". Each loss here has
`critic(real, fake)` and `generator(fake)`, scalars in float32 of the scores of a batch:

| loss | the critic pushes | the generator pushes |
|---|---|---|
| `Wasserstein` | real scores up, fake ones down, without end: its slope has to be limited | its scores up |
| `Hinge` | real scores above 1, fake ones below −1 | its scores up |
| `LeastSquares` | real scores to 1, fake ones to 0 | its scores to 1 |
| `NonSaturating` | the logit of "this is real" up and down | its own logit up |
| `ByClassifier` | by any loss of yes-or-no answers, such as that of a critic trained before | its answers to yes |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from ...data.portable import Portable

__all__ = ["ByClassifier", "GANLoss", "Hinge", "LeastSquares", "NonSaturating", "Wasserstein"]


class GANLoss(Protocol):
    """The two losses that play against each other."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Of the critic's scores of real and of made images: small where it tells them apart."""
        ...

    def generator(self, fake: Tensor) -> Tensor:
        """Of the critic's scores of made images: small where it takes them for real."""
        ...


@dataclass
class Wasserstein(Portable):
    """The difference of mean scores (Arjovsky et al. 2017, arXiv:1701.07875).

    The critic's loss is minus an estimate of how far apart real and made images are, up to a factor, if the critic is
    kept from being steep: by clipped weights, by a `GradientPenalty` or by spectral normalisation.
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.float().mean() - real.float().mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.float().mean()


@dataclass
class Hinge(Portable):
    """Scores beyond ±1 are good enough for the critic (Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.float().mean()


@dataclass
class LeastSquares(Portable):
    """Half the squared distance to 1 for real and to 0 for made images (Mao et al. 2017, arXiv:1611.04076)."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real.float() - 1).square().mean() + fake.float().square().mean()) / 2

    def generator(self, fake: Tensor) -> Tensor:
        return (fake.float() - 1).square().mean() / 2


@dataclass
class NonSaturating(Portable):
    """The first GAN's: cross-entropy of "is it real?", scores as logits (Goodfellow et al. 2014, arXiv:1406.2661).

    The generator raises the probability of "real" rather than lowering that of "made", whose gradient vanishes as long
    as the critic wins. With `smoothing` the critic is content with a probability of 1 − `smoothing` for real images
    (Salimans et al. 2016, arXiv:1606.03498).
    """

    smoothing: float = 0.0

    def __post_init__(self):
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing={self.smoothing}: what is taken off the probability of real images, 0 to 1.")

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        real, fake = real.float(), fake.float()
        return (F.softplus(-real) + self.smoothing * real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake.float()).mean()


@dataclass
class ByClassifier(Portable):
    """By `loss_func(scores, targets)`, targets being 1 for real and 0 for made images, one for each image.

    So a critic goes on with the loss that it was trained with before. The critic's loss is the mean of both parts.
    """

    loss_func: Callable[[Tensor, Tensor], Tensor]

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return (self._loss(real, 1.0) + self._loss(fake, 0.0)) / 2

    def generator(self, fake: Tensor) -> Tensor:
        return self._loss(fake, 1.0)

    def _loss(self, scores: Tensor, target: float) -> Tensor:
        scores = scores.float()
        return self.loss_func(scores, scores.new_full((len(scores),), target))
