"""Each loss against its formula in numpy, and what its gradients ask for."""

import numpy as np
import pytest
import torch
from torch import nn
from warmstart.learner import BCEWithLogitsLoss
from warmstart.vision.gan import (
    AdaptiveLoss,
    ByClassifier,
    Hinge,
    LeastSquares,
    NonSaturating,
    Wasserstein,
    critic_accuracy,
)

REAL, FAKE = np.array([2.0, -0.5, 0.3]), np.array([-1.5, 0.7, -0.2])


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


FORMULAS = [
    (Wasserstein(), FAKE.mean() - REAL.mean(), -FAKE.mean()),
    (Hinge(), np.maximum(0, 1 - REAL).mean() + np.maximum(0, 1 + FAKE).mean(), -FAKE.mean()),
    (LeastSquares(), (((REAL - 1) ** 2).mean() + (FAKE**2).mean()) / 2, ((FAKE - 1) ** 2).mean() / 2),
    (NonSaturating(), -log_sigmoid(REAL).mean() - log_sigmoid(-FAKE).mean(), -log_sigmoid(FAKE).mean()),
    (
        NonSaturating(0.1),
        -(0.9 * log_sigmoid(REAL) + 0.1 * log_sigmoid(-REAL)).mean() - log_sigmoid(-FAKE).mean(),
        -log_sigmoid(FAKE).mean(),
    ),
    (
        ByClassifier(nn.BCEWithLogitsLoss()),
        (-log_sigmoid(REAL).mean() - log_sigmoid(-FAKE).mean()) / 2,
        -log_sigmoid(FAKE).mean(),
    ),
    (ByClassifier(nn.MSELoss()), (((REAL - 1) ** 2).mean() + (FAKE**2).mean()) / 2, ((FAKE - 1) ** 2).mean()),
]


@pytest.mark.parametrize("loss, of_critic, of_generator", FORMULAS, ids=lambda x: repr(x)[:30])
def test_losses_are_their_formulas(loss, of_critic, of_generator):
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    assert loss.critic(real, fake).item() == pytest.approx(of_critic)
    assert loss.generator(fake).item() == pytest.approx(of_generator)


@pytest.mark.parametrize("loss", [loss for loss, *_ in FORMULAS], ids=repr)
def test_the_critic_raises_real_scores_and_lowers_fake_ones_and_the_generator_raises_its_own(loss):
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    loss.critic(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad >= 0).all()
    fake.grad = None
    loss.generator(fake).backward()
    assert (fake.grad < 0).all()


def test_losses_are_in_float32_of_half_precision():
    scores = torch.full((3, 2), 0.5, dtype=torch.bfloat16)
    for loss in (Wasserstein(), Hinge(), LeastSquares(), NonSaturating()):
        assert loss.critic(scores, scores).dtype == loss.generator(scores).dtype == torch.float32


def test_adaptive_loss_gives_each_score_the_target_of_its_image():
    pred, targ = torch.randn(3, 4, 2), torch.tensor([1, 0, 1])
    expected = nn.BCEWithLogitsLoss()(pred, torch.tensor([1.0, 0, 1]).view(3, 1, 1).expand(3, 4, 2))
    torch.testing.assert_close(AdaptiveLoss(nn.BCEWithLogitsLoss())(pred, targ), expected)
    torch.testing.assert_close(AdaptiveLoss(BCEWithLogitsLoss())(pred[:, 0, 0], targ),
                               nn.BCEWithLogitsLoss()(pred[:, 0, 0], targ.float()))  # fmt: skip
    torch.testing.assert_close(
        ByClassifier(AdaptiveLoss(nn.BCEWithLogitsLoss())).generator(pred),
        nn.BCEWithLogitsLoss()(pred, torch.ones(3, 4, 2)),
    )


def test_critic_accuracy_counts_scores_on_the_right_side_of_0():
    pred = torch.tensor([[1.0, -2], [-1, -1], [3, 4]])
    assert critic_accuracy(pred, torch.tensor([1, 0, 0])).item() == pytest.approx(3 / 6)


def test_targets_that_are_not_one_for_each_image_are_refused():
    with pytest.raises(ValueError, match="one target for each of 3 images"):
        AdaptiveLoss(nn.MSELoss())(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="smoothing=1"):
        NonSaturating(1)
