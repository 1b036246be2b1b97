"""Diffusion as arithmetic: how noise comes into an image step by step, and how it is taken out again.

    signal = cosine_signal(1000)                   # (1001,): 1 for the image itself … 0 for noise alone
    noisy = diffused(image, noise, signal[500])    # half-way
    for now in denoising(model, noise, signal, steps=50):
        ...                                        # what the image is after each step

`signal` is what Ho et al. 2020 (DDPM, arXiv:2006.11239) write ᾱ: at step t the square root of signal[t] of the image is
left, and noise makes up the rest. Nothing here knows of a network or of a loop that trains it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["clean_and_noise", "cosine_signal", "ddim_step", "denoising", "diffused", "fresh_noise", "linear_signal",
           "velocity"]  # fmt: skip

MOST_NOISE = 0.999  # that one step adds at most, as in Nichol & Dhariwal


def cosine_signal(n_steps: int = 1000, offset: float = 0.008) -> Tensor:
    """The share of signal after 0 … `n_steps` steps, float32 `(n_steps + 1,)`: a squared cosine.

    Nichol & Dhariwal 2021, arXiv:2102.09672. Small images are not lost in noise for half of the steps, as with
    `linear_signal`.
    """
    angles = (torch.linspace(0, 1, n_steps + 1, dtype=torch.float64) + offset) / (1 + offset) * math.pi / 2
    signal = angles.cos().square()
    return _after_steps(1 - signal[1:] / signal[:-1])


def linear_signal(n_steps: int = 1000) -> Tensor:
    """The share of signal where each step adds more noise than the one before, linearly, as in DDPM.

    From 0.0001 to 0.02 for 1,000 steps, and accordingly more for fewer.
    """
    scale = 1000 / n_steps
    return _after_steps(torch.linspace(1e-4 * scale, 0.02 * scale, n_steps, dtype=torch.float64))


def _after_steps(added: Tensor) -> Tensor:
    """What is left when each step adds so much noise (β)."""
    left = (1 - added.clamp(max=MOST_NOISE)).cumprod(0)
    return torch.cat([left.new_ones(1), left]).float()


def diffused(image: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """`image` with noise, all its steps at once; `signal` is a number, or `(bs,)` for images `(bs, …)`."""
    signal = _like(signal, image)
    return signal.sqrt() * image + (1 - signal).sqrt() * noise


def velocity(image: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """What a network is to predict: where an image goes as noise comes in (Salimans & Ho 2022, arXiv:2202.00512).

    At little noise it is nearly the noise, at much of it nearly minus the image: neither end is trivial or impossible.
    """
    signal = _like(signal, image)
    return signal.sqrt() * noise - (1 - signal).sqrt() * image


def clean_and_noise(noisy: Tensor, predicted: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """The image and the noise that a noisy image is made of, if `predicted` is its velocity."""
    signal = _like(signal, noisy)
    image = signal.sqrt() * noisy - (1 - signal).sqrt() * predicted
    noise = (1 - signal).sqrt() * noisy + signal.sqrt() * predicted
    return image, noise


def ddim_step(image: Tensor, noise: Tensor, signal: Tensor, signal_after: Tensor, eta: float = 0.0,
              fresh: Tensor | None = None) -> Tensor:  # fmt: skip
    """From an estimate of image and noise the noisy image at the earlier step where `signal_after` is left of it.

    Song et al. 2021 (DDIM, arXiv:2010.02502), equation 12. With `eta` a part of the noise is replaced by `fresh`; 1,
    and every step taken, is the sampling of DDPM.
    """
    replaced = eta * ((1 - signal_after) / (1 - signal) * (1 - signal / signal_after)).sqrt()
    after = signal_after.sqrt() * image + (1 - signal_after - replaced**2).clamp(min=0).sqrt() * noise
    return after if fresh is None else after + replaced * fresh


def denoising(predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, signal: Tensor, steps: int = 50,
              eta: float = 0.0, bounds: tuple[Tensor, Tensor] | None = None,
              generators: Sequence[torch.Generator] = ()) -> Iterator[Tensor]:  # fmt: skip
    """Take the noise out of `noise` `(bs, …)` in `steps` steps: the image as it is after each, at last clean.

    `predict(noisy, t)`, with `t` int64 `(bs,)`, gives velocities. `bounds` are the lowest and highest values that an
    image has, which each estimate of it is cut to. With `eta`, fresh noise is drawn from `generators`, one per image.
    Raises ValueError for numbers of steps that `signal` does not have.
    """
    n = len(signal) - 1
    if not 1 <= steps <= n:
        raise ValueError(f"steps={steps}: between pure noise and an image there are 1 to {n} steps.")
    if eta and len(generators) != len(noise):
        raise ValueError(f"eta={eta} takes fresh noise, from one generator for each of {len(noise)} images.")
    stops = torch.linspace(n, 0, steps + 1).round().long().tolist()
    for now, after in pairwise(stops):
        predicted = predict(noise, torch.full((len(noise),), now, device=noise.device))
        image, apart = clean_and_noise(noise, predicted, signal[now])
        if bounds is not None:
            image = image.clamp(*bounds)
            apart = (noise - signal[now].sqrt() * image) / (
                1 - signal[now]
            ).sqrt()  # so that both make up what is there
        fresh = fresh_noise(generators, noise.shape[1:]).to(noise) if eta and after else None
        noise = ddim_step(image, apart, signal[now], signal[after], eta if after else 0.0, fresh)
        yield noise


def fresh_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """`(len(generators), *shape)` standard normal numbers, those of each image from its own generator."""
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])


def _like(signal: Tensor, image: Tensor) -> Tensor:
    """A number, or one per image, in a form that multiplies images."""
    return signal if signal.ndim == 0 else signal.view(-1, *[1] * (image.ndim - 1))
