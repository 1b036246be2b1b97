"""Saliency: the pixels that an output depends on the most (Simonyan et al. 2013, arXiv:1312.6034).

Saliency(learn).show(file)                       # speckled, as gradients are
Saliency(learn, n_noisy=25).show(file)           # smoother: SmoothGrad
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .evidence import Evidence, Target, scores_of

__all__ = ["Saliency"]


class Saliency(Evidence):
    """Maps of how much an output changes with each pixel: the largest absolute gradient among its channels.

    With `n_noisy` the mean of the gradients' sizes over so many noisy copies of the image, each with Gaussian noise of
    standard deviation `noise` × (largest − smallest value in the image): SmoothGrad (Smilkov et al. 2017,
    arXiv:1706.03825), which here averages absolute gradients, since their sign means little for photos. The noise is
    the same in every call.
    """

    over_image: ClassVar[bool] = False

    def __init__(self, learn: Any, n_noisy: int = 0, noise: float = 0.15):
        super().__init__(learn)
        if n_noisy < 0 or noise < 0:
            raise ValueError(f"Saliency(n_noisy={n_noisy}, noise={noise}): neither can be negative.")
        self.n_noisy, self.noise = n_noisy, noise

    def compute(self, model: nn.Module, xb: tuple, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            output = model(*xb)
        numbers = self.numbers(output, target)
        slopes = [self._slope(model, image, xb[1:], numbers) for image in self._copies(xb[0])]
        return torch.stack(slopes).mean(0), numbers, output

    def _copies(self, images: Tensor) -> list[Tensor]:
        if not self.n_noisy:
            return [images]
        generator = torch.Generator(images.device).manual_seed(0)
        scale = self.noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        draws = (torch.randn(images.shape, generator=generator, device=images.device) for _ in range(self.n_noisy))
        return [images + scale * draw for draw in draws]

    @staticmethod
    def _slope(model: nn.Module, images: Tensor, others: tuple, numbers: Tensor) -> Tensor:
        """The largest absolute gradient of each pixel, `(bs, h, w)`."""
        images = images.detach().requires_grad_()
        output = model(images.clone(), *others)  # which the model may change in place
        (slope,) = torch.autograd.grad(scores_of(output, numbers), images)
        return slope.abs().amax(1)
