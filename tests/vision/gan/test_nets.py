"""Generators and critics: shapes, ranges, and what their norms are for."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from warmstart.data import DataBunch
from warmstart.learner import Learner
from warmstart.vision.gan import (
    AdaptiveLoss,
    basic_critic,
    basic_generator,
    critic_accuracy,
    gan_critic,
    residual_critic,
    residual_generator,
    with_spectral_norm,
)


@pytest.mark.parametrize("size", [8, 28, 32, 48, 64])
@pytest.mark.parametrize("generator, critic", [(basic_generator, basic_critic), (residual_generator, residual_critic)])
def test_images_of_any_usual_size_are_made_and_scored(size, generator, critic):
    images = generator(size, 3, in_sz=10, n_features=4)(torch.randn(2, 10))
    assert images.shape == (2, 3, size, size) and images.abs().max() <= 1
    assert critic(size, 3, n_features=4)(images).shape == (2, 1)


def test_dcgans_widths_double_with_each_halving():
    convs = [m for m in basic_critic(64, 3).modules() if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [64, 128, 256, 512, 1]
    convs = [m for m in basic_generator(64, 3).modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [conv.out_channels for conv in convs] == [512, 256, 128, 64, 3]


def test_extra_layers_are_added_where_maps_are_largest():
    def n_convs(network):
        return sum(isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) for m in network.modules())

    for make in (basic_generator, basic_critic):
        more = make(28, 1, n_features=4, n_extra_layers=2)
        assert n_convs(more) == n_convs(make(28, 1, n_features=4)) + 2


@pytest.mark.parametrize("size", [1, 4, 6, 9, 30, 225])
def test_sizes_that_cannot_be_doubled_to_are_refused(size):
    for make in (basic_generator, basic_critic, residual_generator, residual_critic):
        with pytest.raises(ValueError, match=f"Images of {size} pixels"):
            make(size, 1)


@pytest.mark.parametrize("norm", ["instance", "layer", "spectral", "none"])
def test_without_batch_norm_a_score_does_not_depend_on_other_images(norm):
    critic, images = basic_critic(16, 1, n_features=4, norm=norm).eval(), torch.randn(5, 1, 16, 16)
    torch.testing.assert_close(critic(images)[:2], critic(images[:2]))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in basic_critic(16, 1).modules())


def test_spectral_norm_makes_the_largest_singular_value_1():
    network = with_spectral_norm(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)))
    for _ in range(50):
        network(torch.randn(3, 6))
    network.eval()
    for layer in (network[0], network[2]):
        assert torch.linalg.svdvals(layer.weight)[0].item() == pytest.approx(1, abs=1e-3)
    for critic in (basic_critic(8, 1, 4, norm="spectral"), residual_critic(8, 1, 4, norm="spectral"), gan_critic(1, 4)):
        layers = [m for m in critic.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        own = [m for m in layers if nn.utils.parametrize.is_parametrized(m)]
        assert len(own) >= len(layers) - 1  # self-attention has a layer of its own


def test_gan_critic_scores_patches_of_images_of_any_size():
    critic = gan_critic(n_channels=1, nf=4, n_blocks=2)
    assert critic(torch.randn(2, 1, 32, 32)).shape == (2, 1)
    assert critic(torch.randn(2, 1, 64, 48)).shape == (2, 5 * 3)


def test_another_norm_is_refused():
    with pytest.raises(ValueError, match="norm='weight': a critic's norm is one of batch, instance"):
        basic_critic(28, 1, norm="weight")
    with pytest.raises(ValueError, match="'spectral' or 'none'"):
        residual_critic(28, 1, norm="batch")


def test_gan_critic_soon_tells_blurred_images_from_sharp_ones():
    torch.manual_seed(0)
    sharp = torch.rand(160, 3, 8, 8).repeat_interleave(4, -1).repeat_interleave(4, -2)
    images, labels = torch.cat([sharp, F.avg_pool2d(sharp, 5, 1, 2)]), torch.tensor([1.0] * 160 + [0.0] * 160)
    data = DataBunch.from_dsets(TensorDataset(images, labels), TensorDataset(images, labels), bs=16, seed=0)
    learn = Learner(data, gan_critic(nf=8, n_blocks=2), AdaptiveLoss(nn.BCEWithLogitsLoss()), metrics=critic_accuracy)
    learn.progress.bar = learn.progress.table = False
    assert learn.validate()["critic_accuracy"] < 0.6
    learn.fit_one_cycle(4, 2e-3)
    assert learn.validate()["critic_accuracy"] > 0.9
