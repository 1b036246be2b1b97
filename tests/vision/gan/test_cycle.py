"""CycleGAN: what goes there comes back, and each network learns from its own loss alone."""

import copy
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.optim import SGD
from warmstart.callbacks import Callback
from warmstart.data import DataBlock, IndexSplitter
from warmstart.learner import Checkpoint, launch, load_learner
from warmstart.vision.gan import (
    CategoryBlock,
    CycleGANLearner,
    ImageBlock,
    RandomImage,
    Resize,
    get_image_files,
    patch_critic,
    resnet_generator,
    set_seed,
)

N = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of images of soft spots on black: red ones in `a`, green ones in `b`."""
    folder, rng = tmp_path_factory.mktemp("spots"), np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    for channel, kind in enumerate("ab"):
        (folder / kind).mkdir()
        for number in range(N):
            top, left = rng.uniform(4, 12, 2)
            pixels = np.zeros((16, 16, 3), np.uint8)
            pixels[..., channel] = 255 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 12)
            Image.fromarray(pixels).save(folder / kind / f"{number:02}.png")
    return folder


def data_of(folder, bs=4):
    block = DataBlock((ImageBlock, ImageBlock), get_items=get_image_files, get_y=RandomImage(folder / "b"),
                      splitter=IndexSplitter(range(4)), item_tfms=Resize(16))  # fmt: skip
    return block.databunch(folder / "a", bs=bs, num_workers=0, device="cpu", seed=0)


def learner_of(folder, bs=4, networks=None, **settings):
    set_seed(0)
    data = data_of(folder, bs)
    networks = networks or [
        resnet_generator(3, 8, 1),
        resnet_generator(3, 8, 1),
        patch_critic(3, 8, 1),
        patch_critic(3, 8, 1),
    ]
    learn = CycleGANLearner.from_models(data, *networks, **settings)
    learn.progress.bar = learn.progress.table = False
    return learn


def test_red_spots_become_green_ones_and_come_back_as_they_were(folders):
    learn = learner_of(folders, lr=2e-3)
    learn.fit_flat_cos(15, pct_start=0.5)
    a, _ = next(iter(learn.data.valid_dl))
    with torch.no_grad():
        as_b = learn.model(a)
        back = learn.model.to_a(as_b)
    red, green, blue = ((as_b + 1) / 2).clamp(0, 1).unbind(1)
    assert green.mean() > 3 * red.mean() and green.mean() > 3 * blue.mean()
    assert torch.corrcoef(torch.stack([back[:, 0].flatten(), a[:, 0].flatten()]))[0, 1] > 0.9
    history = learn.recorder.history
    assert history["valid_cycle_loss"].iloc[-1] < history["valid_cycle_loss"].iloc[0] / 2
    assert {"gen_loss", "cycle_loss", "critic_loss", "valid_critic_loss"} <= set(history)


def test_the_losses_are_those_of_the_paper(folders):
    model = learner_of(folders).model
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    losses, fake_a, fake_b = model._generators(a, b)
    opinion = sum((score - 1).square().mean() / 2 for score in (model.critic_a(fake_a), model.critic_b(fake_b)))
    there_and_back = (model.to_a(fake_b) - a).abs().mean() + (model.to_b(fake_a) - b).abs().mean()
    changed = (model.to_b(b) - b).abs().mean() + (model.to_a(a) - a).abs().mean()
    assert torch.allclose(sum(losses.values()), opinion + 10 * there_and_back + 5 * changed)
    of_critics = model._critics(a, b, fake_a, fake_b)
    pairs = (model.critic_a, a, fake_a), (model.critic_b, b, fake_b)
    expected = sum(((critic(x) - 1).square().mean() + critic(y).square().mean()) / 2 for critic, x, y in pairs)
    assert torch.allclose(of_critics, expected)


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_half_does_not_move(frozen, folders):
    learn = learner_of(folders)
    halves = [("to_b", "to_a"), ("critic_a", "critic_b")]
    for name in halves[frozen]:
        getattr(learn.model, name).requires_grad_(False)
    before = copy.deepcopy(learn.model.state_dict())
    learn.fit(1)
    moved = {name.split(".")[0] for name, value in learn.model.state_dict().items() if not value.equal(before[name])}
    assert moved == set(halves[1 - frozen])


class Crash(Callback):
    """Ends the run after the second batch of the second epoch, if that is wanted."""

    order = 99
    wanted = False

    def after_batch(self, learn):
        if self.wanted and learn.training and (learn.epoch, learn.iter) == (1, 1):
            raise ZeroDivisionError


@pytest.mark.parametrize("every", ["epoch", 3])
def test_a_run_that_broke_off_ends_with_the_bits_of_one_that_did_not(every, folders, tmp_path):
    def train(name, crashes=False):
        learn, crash = learner_of(folders, buffer_size=6), Crash()
        crash.wanted = crashes
        learn.fit_flat_cos(3, cbs=[Checkpoint(tmp_path / name, every), crash])
        return learn

    expected = train("undisturbed")
    with pytest.raises(ZeroDivisionError):
        train("run", crashes=True)
    found = train("run")
    torch.testing.assert_close(found.model.state_dict(), expected.model.state_dict(), rtol=0, atol=0)
    assert found.recorder.losses == expected.recorder.losses
    for ours, theirs in zip(found.model.buffers_of_made, expected.model.buffers_of_made, strict=True):
        assert len(ours.images) == 6 and torch.equal(torch.stack(ours.images), torch.stack(theirs.images))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_two_processes_train_as_one(folders):
    def small_generator():
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1), nn.Tanh())

    def small_critic():
        return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4, 2, 1), nn.Flatten())

    def train(bs):
        # without norms and Adam, which make much of what is next to nothing, and that is a matter of rounding
        set_seed(0)
        networks = [small_generator(), small_generator(), small_critic(), small_critic()]
        learn = learner_of(folders, bs, networks, buffer_size=0, opt_func=SGD, lr=1e-2)
        learn.to_distributed(timeout=60)
        learn.fit(2)
        losses = learn.recorder.history[["gen_loss", "critic_loss", "valid_loss"]].to_numpy()
        return {name: value.clone() for name, value in learn.model.state_dict().items()}, losses

    (weights, losses), ranks = train(4), launch(train, [2], 2)
    for found, rows in ranks:
        torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-6)
        assert rows == pytest.approx(losses, rel=1e-4)


def test_every_kind_is_shown_on_its_way_there_and_back(folders, monkeypatch):
    import matplotlib.pyplot as plt

    learner_of(folders).show_results(3)
    axes = plt.gcf().axes
    assert [ax.get_title() for ax in axes[:6]] == ["A", "as B", "and back", "B", "as A", "and back"]
    assert len(axes) == 18 and all(ax.images for ax in axes)
    plt.close("all")


def test_showing_results_moves_nothing(folders):
    import matplotlib.pyplot as plt

    learn = learner_of(folders)
    learn.model.to_a = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.Tanh())
    before = copy.deepcopy(learn.model.state_dict())
    learn.show_results(2)
    plt.close("all")
    assert all(value.equal(before[name]) for name, value in learn.model.state_dict().items())


def test_an_exported_learner_turns_photos(folders, tmp_path):
    learn = learner_of(folders)
    photo = folders / "a/00.png"
    learn.path = tmp_path
    other = load_learner(learn.export("cycle.pt"), custom={"CycleGAN": learner_of(folders).model})
    assert isinstance(other, CycleGANLearner)
    assert torch.equal(torch.as_tensor(other.predict(photo)[0]), torch.as_tensor(learn.predict(photo)[0]))


def test_data_that_are_not_two_images_are_refused(folders):
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=lambda file: file.parent.name,
                      splitter=IndexSplitter([0]), item_tfms=Resize(16))  # fmt: skip
    with pytest.raises(ValueError, match=r"two heaps of images, and this data has \['ImageBlock', 'CategoryBlock'\]"):
        CycleGANLearner.from_models(block.databunch(folders / "a", bs=4, num_workers=0, device="cpu"))


def test_generator_and_critic_have_the_sizes_of_the_paper():
    generator, critic = resnet_generator(), patch_critic()
    n_params = [sum(p.numel() for p in network.parameters()) for network in (generator, critic)]
    assert n_params == [11_378_179, 2_764_737]  # those of the authors' code
    field = torch.zeros(1, 3, 256, 256, requires_grad=True)
    scores = critic(field)
    assert scores.shape == (1, 30 * 30)


def test_a_score_is_of_70_by_70_pixels():
    critic = nn.Sequential(*[layer for layer in patch_critic() if not isinstance(layer, nn.InstanceNorm2d)])
    image = torch.randn(1, 3, 256, 256, requires_grad=True)
    critic(image)[0, 15 * 30 + 15].backward()
    rows, columns = image.grad.abs().sum((0, 1)).nonzero().unbind(1)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)
