"""Noise comes in and goes out again as the papers say."""

import math
from itertools import pairwise

import pytest
import torch
from warmstart.vision.diffusion_process import (
    clean_and_noise,
    cosine_signal,
    ddim_step,
    denoising,
    diffused,
    fresh_noise,
    linear_signal,
    velocity,
)


def true_velocity(image, signal):
    """What a network would say that knows the one image that there is."""

    def predict(noisy, step):
        of_now = signal[step].view(-1, *[1] * (image.ndim - 1))
        noise = (noisy - of_now.sqrt() * image) / (1 - of_now).sqrt()
        return of_now.sqrt() * noise - (1 - of_now).sqrt() * image

    return predict


@pytest.mark.parametrize("schedule", [linear_signal, cosine_signal])
def test_signal_falls_from_all_to_nearly_nothing(schedule):
    signal = schedule(1000)
    assert signal.shape == (1001,) and signal[0] == 1 and signal[-1] < 1e-4
    assert bool((signal.diff() < 0).all())


def test_linear_signal_is_the_one_of_ddpm():
    betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    left = math.prod(1 - beta for beta in betas[:500])
    assert linear_signal(1000)[500].item() == pytest.approx(left, rel=1e-5)


def test_cosine_signal_is_the_one_of_its_paper_where_no_step_is_cut():
    def f(share):
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    assert cosine_signal(1000)[700].item() == pytest.approx(f(0.7) / f(0), rel=1e-5)


def test_all_steps_of_noise_at_once_are_as_one_after_the_other():
    signal, generator, n = linear_signal(100), torch.Generator().manual_seed(0), 200_000
    x = torch.full((n,), 0.7)
    for before, after in pairwise(signal[:61].tolist()):
        beta = 1 - after / before
        x = (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn(n, generator=generator)
    at_once = diffused(torch.full((n,), 0.7), torch.randn(n, generator=generator), signal[60])
    assert x.mean().item() == pytest.approx(0.7 * signal[60].sqrt().item(), abs=0.01)
    assert at_once.mean().item() == pytest.approx(x.mean().item(), abs=0.01)
    assert at_once.std().item() == pytest.approx(x.std().item(), abs=0.01)


def test_velocity_tells_image_and_noise():
    image, noise, signal = torch.rand(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.99, 0.5, 0.01])
    found = clean_and_noise(diffused(image, noise, signal), velocity(image, noise, signal), signal)
    torch.testing.assert_close(found, (image, noise), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_ddim_with_the_true_noise_finds_the_image(steps):
    image, signal = torch.rand(2, 1, 5, 5), cosine_signal(200)
    *_, found = denoising(true_velocity(image, signal), torch.randn(2, 1, 5, 5), signal, steps)
    torch.testing.assert_close(found, image, atol=1e-3, rtol=1e-3)


def test_a_ddim_step_lands_where_that_much_noise_would_be():
    image, noise, signal = torch.rand(4), torch.randn(4), linear_signal(100)
    after = ddim_step(image, noise, signal[80], signal[30])
    torch.testing.assert_close(after, diffused(image, noise, signal[30]))


def test_eta_1_is_the_step_of_ddpm():
    signal, image, noise, fresh = linear_signal(100), torch.rand(4), torch.randn(4), torch.randn(4)
    t = 40
    beta, noisy = 1 - signal[t] / signal[t - 1], diffused(image, noise, signal[t])
    mean = (noisy - beta / (1 - signal[t]).sqrt() * noise) / (1 - beta).sqrt()  # equation 11 of DDPM
    std = ((1 - signal[t - 1]) / (1 - signal[t]) * beta).sqrt()
    step = ddim_step(image, noise, signal[t], signal[t - 1], 1.0, fresh)
    torch.testing.assert_close(step, mean + std * fresh, atol=1e-5, rtol=1e-5)


def test_denoising_takes_fresh_noise_from_each_images_own_generator():
    image, signal = torch.zeros(3, 2), cosine_signal(50)

    def made(seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = fresh_noise(generators, (2,))
        steps = denoising(true_velocity(image[: len(seeds)], signal), noise, signal, 10, 1.0, None, generators)
        return [*steps][4]

    torch.testing.assert_close(made([5, 6, 7])[1:2], made([6]))
    assert not made([5])[0].allclose(made([6])[0])


def test_estimates_are_cut_to_the_bounds_of_images():
    signal, bounds = cosine_signal(50), (torch.tensor(-1.0), torch.tensor(1.0))
    *_, found = denoising(true_velocity(torch.full((1, 3), 4.0), signal), torch.randn(1, 3), signal, 5, bounds=bounds)
    torch.testing.assert_close(found, torch.ones(1, 3))


def test_denoising_says_how_many_steps_there_are():
    noise, signal = torch.randn(1, 3), cosine_signal(50)
    with pytest.raises(ValueError, match="1 to 50 steps"):
        next(denoising(true_velocity(noise, signal), noise, signal, 51))
    with pytest.raises(ValueError, match="one generator for each of 1 images"):
        next(denoising(true_velocity(noise, signal), noise, signal, 5, eta=0.5))
