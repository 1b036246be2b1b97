"""Penalties of critics whose slopes are known."""

import pytest
import torch
from torch import nn
from warmstart.vision.gan import R1, GradientPenalty


class Steep(nn.Module):
    """The sum of a·x²/2 over pixels: its gradient is a·x."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return (self.a * x.square() / 2).flatten(1).sum(1)


def linear(slope):
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    nn.init.constant_(critic[1].weight, slope / 2)  # of norm `slope` over four pixels
    return critic


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic_is_that_of_its_slope(slope):
    real, fake = torch.rand(5, 1, 2, 2), torch.rand(5, 1, 2, 2)
    assert GradientPenalty(10)(linear(slope), real, fake).item() == pytest.approx(10 * (slope - 1) ** 2, abs=1e-5)
    assert GradientPenalty(2, target=0)(linear(slope), real, fake).item() == pytest.approx(2 * slope**2, rel=1e-5)
    assert R1(4)(linear(slope), real, fake).item() == pytest.approx(2 * slope**2, rel=1e-5)


def test_it_is_taken_between_real_and_made_images():
    seen = []

    class Looks(Steep):
        def forward(self, x):
            seen.append(x.detach().clone())
            return super().forward(x)

    real, fake = torch.ones(50, 1, 2, 2), -torch.ones(50, 1, 2, 2)
    GradientPenalty()(Looks(), real, fake)
    places = seen[0].flatten(1)
    assert (places == places[:, :1]).all() and places.min() > -1 and places.max() < 1 and places[:, 0].std() > 0.4


def test_its_gradient_reaches_the_critics_weights():
    critic, real = Steep(), torch.rand(6, 1, 2, 2)
    R1(2)(critic, real, real).backward()
    expected = 2 * critic.a.detach() * real.square().flatten(1).sum(1).mean()  # of a² · mean ‖x‖²
    torch.testing.assert_close(critic.a.grad, expected)


def test_it_is_in_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        loss = GradientPenalty()(linear(2.0), torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 2).bfloat16())
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(10, rel=1e-5)
