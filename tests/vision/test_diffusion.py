"""Diffusion models learn in an ordinary Learner what images look like, make new ones, and come back from a file."""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import nn
from warmstart.callbacks import EMA
from warmstart.data import CategoryBlock, DataBlock, DataBunch, EndSplitter, ItemGetter
from warmstart.learner import Learner, load_learner, set_seed
from warmstart.vision import GrandparentSplitter, ImageBlock, Normalize, RegressionBlock, get_image_files, parent_label
from warmstart.vision.diffusion import diffusion_learner
from warmstart.vision.diffusion_net import DenoisingUnet
from warmstart.vision.diffusion_system import Diffusion
from warmstart.vision.gan import GANSamples

matplotlib.use("Agg")

MNIST = Path(__file__).parents[3] / "shared/data/mnist-10k"


GREY, LABEL = ImageBlock("L"), CategoryBlock()


def stripes(i: int) -> tuple[Image.Image, str]:
    """Two pixels bright, two dark, of 8 × 8; they lie or stand, and begin anywhere."""
    profile = np.roll(np.tile([200, 200, 0, 0], 2) + i % 50, i // 2 % 4).astype(np.uint8)
    lie = np.repeat(profile[:, None], 8, axis=1)
    return Image.fromarray(lie.T.copy() if i % 2 else lie), ("lie", "stand")[i % 2]


def striped(n: int = 80, blocks=(GREY, LABEL), bs: int = 16, **options) -> DataBunch:
    options = {"get_y": ItemGetter(1), **options}
    block = DataBlock(blocks, get_x=ItemGetter(0), splitter=EndSplitter(0.2), **options)
    return block.databunch([stripes(i) for i in range(n)], bs=bs, num_workers=0, device="cpu", seed=0)


def learner(data=None, **options):
    set_seed(0)
    return diffusion_learner(data or striped(), **{"widths": (16,), "patch": 2, "ema": 0.98, **options})


# ---- the network


@pytest.mark.parametrize(("size", "patch"), [((28, 28), 2), ((13, 9), 2), ((5, 7), 1)])
def test_the_u_net_keeps_the_size_of_any_image(size, patch):
    net = DenoisingUnet(3, n_classes=2, widths=(8, 12, 16), patch=patch)
    images = torch.randn(2, 3, *size)
    out = net(images, torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
    assert out.shape == images.shape and bool((out == 0).all())


def test_the_u_net_sees_time_and_label():
    set_seed(0)
    net = DenoisingUnet(1, n_classes=2, widths=(8, 8))
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    images, time = torch.randn(1, 1, 8, 8), torch.tensor([0.5])
    known = net(images, time, torch.tensor([0]))
    assert not net(images, torch.tensor([0.6]), torch.tensor([0])).allclose(known)
    assert not net(images, time, torch.tensor([1])).allclose(known)
    torch.testing.assert_close(net(images, time), net(images, time, torch.tensor([2])))


def test_the_u_net_wants_a_map():
    with pytest.raises(ValueError, match="one map or more"):
        DenoisingUnet(1, widths=())


# ---- the system


class Known(nn.Module):
    """Knows that every value is `value`, of a class +1 or −1 times that."""

    def __init__(self, value: float):
        super().__init__()
        self.value, self.seen = nn.Parameter(torch.tensor(value)), []

    def forward(self, noisy, time, labels):
        self.seen += [] if labels is None else labels.tolist()
        image = self.value * (0 * noisy + 1)
        if labels is not None:
            image = image * torch.tensor([1.0, -1.0, 0.0])[labels].view(-1, 1)
        self.signal = self.signals[(time * 100).round().long()].view(-1, 1)
        noise = (noisy - self.signal.sqrt() * image) / (1 - self.signal).sqrt()
        return self.signal.sqrt() * noise - (1 - self.signal).sqrt() * image


def known(value: float = 0.5, n_classes: int = 0, **options) -> Diffusion:
    model = Diffusion(Known(value), (3,), n_classes, n_steps=100, **options)
    model.net.signals = model.signal
    return model


def test_who_knows_the_images_has_no_loss():
    model = known(0.5)
    assert model.training_step(torch.full((16, 3), 0.5), 0).item() < 1e-6
    assert model.training_step(torch.full((16, 3), 0.7), 0).item() > 1e-3


def test_a_share_of_the_labels_is_hidden_in_training_alone():
    set_seed(0)
    model = known(n_classes=2, p_any=0.25)
    batch = torch.zeros(2000, 3), torch.zeros(2000, dtype=torch.long)
    model.training_step(batch, 0)
    assert 400 < model.net.seen.count(2) < 600
    model.net.seen = []
    model.validation_step(batch, 0)
    assert model.net.seen.count(2) == 0


def test_validation_is_the_same_every_time_and_leaves_the_random_numbers_alone():
    model, batch = known(), torch.rand(16, 3)
    set_seed(1)
    expected = torch.rand(1)
    set_seed(1)
    first = model.validation_step(batch, 3)
    assert torch.rand(1) == expected
    assert first == model.validation_step(batch, 3) != model.validation_step(batch, 4)


@pytest.mark.parametrize(("guidance", "value"), [(0.0, 0.0), (1.0, 0.5), (3.0, 1.5)])
def test_guidance_goes_from_any_image_to_the_class_and_beyond(guidance, value):
    *_, made = known(n_classes=2).generate([0, 1], torch.tensor([0, 1]), steps=20, guidance=guidance)
    torch.testing.assert_close(made, torch.tensor([[value], [-value]]).expand(2, 3), atol=1e-3, rtol=1e-3)


def test_a_mixture_in_the_plane_is_learned():
    set_seed(0)
    centres, labels = torch.tensor([[-0.6, 0.4], [0.5, -0.2]]), torch.arange(2000) % 2
    points = centres[labels] + 0.1 * torch.randn(2000, 2) * torch.tensor([1.0, 2.0])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(6, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

        def forward(self, noisy, time, labels):
            hot = nn.functional.one_hot(labels, 3).float()
            return self.layers(torch.cat([noisy, time[:, None], hot], dim=1))

    model = Diffusion(Net(), (2,), n_classes=2, n_steps=100)
    learn = Learner(DataBunch.from_dsets(torch.utils.data.TensorDataset(points, labels), bs=200, device="cpu"), model)
    with learn.no_bar(), learn.no_logging():
        learn.fit_flat_cos(40, 5e-3)
    *_, made = model.eval().generate(range(1000), torch.arange(1000) % 2, steps=25)
    for label in (0, 1):
        of_class = made[label::2]
        assert (of_class.mean(0) - centres[label]).abs().max() < 0.05
        assert of_class.std(0).tolist() == pytest.approx([0.1, 0.2], abs=0.05)


# ---- the learner


@pytest.fixture(scope="module")
def trained():
    learn = learner(striped(320))
    with learn.no_bar(), learn.no_logging():
        learn.fit_flat_cos(12, 5e-3)
    return learn


def test_stripes_are_made_as_they_are_asked_for(trained):
    made = trained.sample(64, classes=["lie", "stand"], steps=20)
    assert made.shape == (64, 1, 8, 8) and made.min() >= 0 and made.max() <= 1
    stands = made.diff(dim=3).abs().mean((1, 2, 3)) > made.diff(dim=2).abs().mean((1, 2, 3))
    assert (stands == (torch.arange(64) % 2 == 1)).float().mean() > 0.95
    real = torch.stack([image for image, _ in trained.data.train_ds]).float() / 255
    assert made.mean().item() == pytest.approx(real.mean().item(), rel=0.15)
    assert made.std(0).mean().item() == pytest.approx(real.std(0).mean().item(), rel=0.25)
    assert trained.recorder.rows[-1]["valid_loss"] < 0.5 * trained.recorder.rows[0]["valid_loss"]


def test_the_seed_governs_samples_and_their_number_does_not(trained):
    few, many = trained.sample(2, seed=3, steps=5), trained.sample(70, seed=3, steps=5)
    torch.testing.assert_close(few, many[:2], atol=1e-4, rtol=1e-4)
    assert bool((trained.sample(2, seed=3, steps=5) == few).all())
    assert not trained.sample(2, seed=4, steps=5).allclose(few, atol=1e-2)
    stochastic = trained.sample(2, seed=3, steps=5, eta=1.0)
    assert bool((stochastic == trained.sample(2, seed=3, steps=5, eta=1.0)).all()) and not stochastic.allclose(few)


def test_sampling_leaves_the_model_in_training_mode(trained):
    trained.model.train()
    trained.sample(1, steps=2)
    assert trained.model.training and trained.model.net.training


def test_results_are_shown_with_their_classes(trained):
    trained.show_results(4)
    titles = [ax.get_title() for ax in plt.gcf().axes]
    assert titles == ["lie", "stand", "lie", "stand"]
    plt.close("all")


def test_an_exported_model_makes_the_same_images(trained, tmp_path):
    trained.export(tmp_path / "stripes.pt")
    loaded = load_learner(tmp_path / "stripes.pt", custom={})
    torch.testing.assert_close(loaded.sample(2, 1, "stand", steps=5), trained.sample(2, 1, "stand", steps=5))
    loaded.data = striped()
    with loaded.no_bar(), loaded.no_logging():
        loaded.fit(1)


def test_the_summary_lists_the_layers_of_the_network(trained):
    assert "net.first: Conv2d" in str(trained.summary())


def test_images_without_labels_and_with_other_statistics_do(tmp_path):
    data = striped(blocks=(ImageBlock("RGB"),), n_inp=1, get_y=None, batch_tfms=Normalize((0.4,) * 3, (0.2,) * 3))
    learn = learner(data, ema=0.5)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert learn.sample(2, steps=3).shape == (2, 3, 8, 8)
    assert learn.model.bounds.flatten(1)[:, 0].tolist() == pytest.approx([-2.0, 3.0])
    with pytest.raises(ValueError, match="there is no class 'lie', but none at all"):
        learn.sample(2, classes="lie")


def test_samples_are_written_while_it_trains(tmp_path):
    learn = learner(ema=0.5)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, cbs=GANSamples(every=2, n=2, folder=tmp_path), n_batches=1)
    assert [file.name for file in tmp_path.iterdir()] == ["0002.png"]


def test_samples_are_made_of_averaged_weights():
    learn = learner()
    assert [cb.decay for cb in learn.cbs if isinstance(cb, EMA)] == [0.98]
    assert not [cb for cb in learner(ema=None).cbs if isinstance(cb, EMA)]


def test_a_bar_shows_how_far_sampling_is(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    trained.sample(1, steps=3)
    assert "sample" in (shown := capsys.readouterr().out) and "0/3" in shown
    with trained.no_bar():
        trained.sample(1, steps=3)
    assert capsys.readouterr().out == ""


# ---- mistakes


def test_mistakes_are_explained(trained):
    with pytest.raises(ValueError, match=r"there is no class 'up', but \['lie', 'stand'\]"):
        trained.sample(2, classes=["lie", "up"])
    with pytest.raises(ValueError, match="one image or more"):
        trained.sample(0)
    with pytest.raises(ValueError, match="1 to 1000 steps"):
        trained.sample(1, steps=0)
    for ask in (trained.predict, trained.batch_predict, trained.get_preds):
        with pytest.raises(ValueError, match="nothing to predict"):
            ask([])
    with pytest.raises(ValueError, match="from 0 to 1"):
        learner(p_any=2)


def test_data_that_do_not_fit_are_refused(trained):
    with pytest.raises(ValueError, match="blocks are: ImageBlock, RegressionBlock"):
        learner(striped(blocks=(GREY, RegressionBlock), get_y=lambda item: 1.0))
    with pytest.raises(ValueError, match="blocks are: none"):
        learner(DataBunch([torch.zeros(2, 1, 8, 8)], device="cpu"))
    with pytest.raises(ValueError, match="1 channels and 2 classes, and those of the data have 3 and 2"):
        trained.data = striped(blocks=(ImageBlock("RGB"), CategoryBlock))
    with pytest.raises(ValueError, match=r"have \(1, 9, 9\): bring them to one size"):
        trained.model.training_step((torch.zeros(2, 1, 9, 9), torch.zeros(2).long()), 0)
    with pytest.raises(ValueError, match="the batch has no labels"):
        trained.model.training_step(torch.zeros(2, 1, 8, 8), 0)


@pytest.mark.skipif(not MNIST.exists(), reason="the digits are not here")
def test_real_digits_are_trained_on():
    block = DataBlock((ImageBlock("L"), CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=GrandparentSplitter())  # fmt: skip
    learn = learner(block.databunch(MNIST, bs=16, val_bs=16, num_workers=0, seed=0), ema=None, lr=5e-3)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, n_batches=20)
    assert learn.recorder.rows[-1]["valid_loss"] < 0.65  # 0.93 for a network that says nothing
    assert learn.sample(3, classes="7", steps=4).shape == (3, 1, 28, 28)
