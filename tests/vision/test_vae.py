"""Variational autoencoders: their loss is the one of the paper, they learn, give images back, and make new ones."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch.distributions import Bernoulli, Normal, kl_divergence
from warmstart.data import CategoryBlock, DataBlock, DataBunch, EndSplitter, ItemGetter
from warmstart.learner import load_learner, set_seed
from warmstart.vision import ImageBlock, Normalize
from warmstart.vision.vae import VAE, kl
from warmstart.vision.vae_learner import vae_learner

matplotlib.use("Agg")

GREY, LABEL = ImageBlock("L"), CategoryBlock()


def bar(i: int) -> tuple[Image.Image, str]:
    """A bright bar in a picture of 9 × 10 pixels, at one of eight places."""
    pixels = np.zeros((9, 10), np.uint8)
    pixels[:, i % 8 : i % 8 + 3] = 255
    return Image.fromarray(pixels), ("low", "high")[i % 8 > 3]


def bars(n: int = 80, blocks=(GREY, LABEL), **options) -> DataBunch:
    options = {"get_y": ItemGetter(1), **options}
    block = DataBlock(blocks, get_x=ItemGetter(0), splitter=EndSplitter(0.2), **options)
    return block.databunch([bar(i) for i in range(n)], bs=16, num_workers=0, device="cpu", seed=0)


@pytest.fixture(scope="module")
def trained():
    set_seed(0)
    learn = vae_learner(bars(), n_latent=2, widths=(8, 16))
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(30, 1e-2)
    return learn


def test_kl_is_that_of_torchs_distributions():
    mean, log_var = torch.randn(5, 3), torch.randn(5, 3)
    codes = Normal(mean, (0.5 * log_var).exp())
    expected = kl_divergence(codes, Normal(torch.zeros(5, 3), torch.ones(5, 3))).sum(1)
    torch.testing.assert_close(kl(mean, log_var), expected)


def test_the_loss_is_minus_the_evidence_bound_in_nats_per_image():
    set_seed(0)
    model, images = VAE((9, 10), 1, n_latent=4, beta=3.0, widths=(4,)), torch.rand(6, 1, 9, 10).round()
    model.eval()
    logged = {}
    model.log_dict = logged.update
    set_seed(1)
    loss = model.training_step((images, None), 0)
    set_seed(1)
    mean, log_var = model.encode(images)
    codes = Normal(mean, (0.5 * log_var).exp()).mean + (0.5 * log_var).exp() * torch.randn(6, 4)
    likelihood = Bernoulli(probs=model.decode(codes)).log_prob(images).flatten(1).sum(1).mean()
    torch.testing.assert_close(loss, -likelihood + 3 * kl(mean, log_var).mean(), rtol=1e-4, atol=1e-4)
    assert logged["reconstruction"].item() == pytest.approx(-likelihood.item(), rel=1e-4)


@pytest.mark.parametrize("size", [(28, 28), (9, 10), (7, 5)])
def test_images_of_any_size_come_back_in_theirs(size):
    images = torch.rand(2, 3, *size)
    made = VAE(size, 3, widths=(4, 8))(images)
    assert made.shape == images.shape and made.min() >= 0 and made.max() <= 1


def test_images_come_back_through_two_numbers(trained):
    images = torch.stack([trained.data.valid_ds[i][0] for i in range(8)]).float() / 255
    made = trained.model.eval()(images)
    assert (made - images).abs().mean() < 0.3 * (images.mean(0) - images).abs().mean()
    rows = trained.recorder.rows
    assert rows[-1]["valid_loss"] < 0.6 * rows[0]["valid_loss"]
    assert rows[-1]["valid_loss"] == pytest.approx(rows[-1]["valid_reconstruction"] + rows[-1]["valid_kl"], rel=1e-4)


def test_validation_is_the_same_every_time(trained):
    with trained.no_bar():
        assert trained.validate() == trained.validate()


def test_samples_are_bars_and_follow_from_the_seed(trained):
    made = trained.sample(64, seed=1)
    assert made.shape == (64, 1, 9, 10)
    assert made.std(2).mean() < 0.1 < made.std(3).mean()
    assert bool((made == trained.sample(64, seed=1)).all()) and not made.allclose(trained.sample(64, seed=2))


def test_predict_gives_the_image_back_and_results_show_both(trained):
    item = bar(3)
    image = trained.predict(item).decoded
    assert image.shape == (1, 9, 10) and image[..., 3:6].mean() > image[..., 7:].mean()
    trained.show_results(4)
    assert sum(len(ax.images) for ax in plt.gcf().axes) == 8
    plt.close("all")


def test_an_exported_model_makes_the_same_images(trained, tmp_path):
    trained.export(tmp_path / "bars.pt")
    loaded = load_learner(tmp_path / "bars.pt")
    torch.testing.assert_close(loaded.sample(3), trained.sample(3))


def test_a_high_beta_brings_codes_to_the_normal_distribution():
    def divergence(beta):
        set_seed(0)
        learn = vae_learner(bars(), n_latent=2, beta=beta, widths=(8,))
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(10, 1e-2)
        return learn.recorder.rows[-1]["valid_kl"]

    assert divergence(20.0) < 0.5 * divergence(0.1)


def test_mistakes_are_explained(trained):
    with pytest.raises(ValueError, match="pixels are to stay in"):
        vae_learner(bars(batch_tfms=Normalize((0.5,), (0.5,))))
    with pytest.raises(ValueError, match="needs an ImageBlock of as many"):
        trained.data = bars(blocks=(ImageBlock("RGB"), LABEL))
    with pytest.raises(ValueError, match="n_latent=0"):
        VAE((8, 8), 1, n_latent=0)
    with pytest.raises(ValueError, match=r"not \(9, 10\): item_tfms=Resize"):
        trained.model.training_step(torch.rand(1, 1, 8, 8), 0)
