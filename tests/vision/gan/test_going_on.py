"""A GAN's fit that breaks off goes on to the same bits, and several processes train as one."""

import sys

import pytest
import torch
from torch import nn
from torch.optim import SGD
from warmstart.callbacks import EMA, Callback
from warmstart.data import DataBunch
from warmstart.learner import Checkpoint, launch, set_seed
from warmstart.vision.gan import (
    AdaptiveGANSwitcher,
    FixedGANSwitcher,
    GANLearner,
    GradientPenalty,
    Hinge,
    NonSaturating,
    Wasserstein,
)

pytestmark = pytest.mark.filterwarnings("ignore:EMA", "ignore:This CPU has no")


class Crash(Callback):
    """Ends the run at a batch (fit, epoch, batch), where one is planned."""

    order = 99

    def __init__(self):
        self.where = None

    def after_batch(self, learn):
        if learn.training and (learn.fits_done, learn.epoch, learn.iter) == self.where:
            raise ZeroDivisionError


RECIPES = {
    "WGAN-GP": dict(loss=Wasserstein(), penalty=GradientPenalty(), switcher=lambda: FixedGANSwitcher(2, 1)),
    "clipped": dict(loss=Wasserstein(), clip=0.05, switcher=lambda: FixedGANSwitcher(3, 1), norm="batch"),
    "by loss": dict(loss=NonSaturating(), switcher=lambda: AdaptiveGANSwitcher(0.7, 1.38), lr=1e-2),
    "spectral": dict(loss=Hinge(), switcher=lambda: None, norm="spectral"),
}


@pytest.mark.parametrize(
    "recipe, where, every",
    [
        ("WGAN-GP", (0, 1, 1), "epoch"),
        ("WGAN-GP", (1, 0, 2), 2),
        ("clipped", (0, 1, 2), 3),
        ("by loss", (0, 1, 3), 2),
        ("spectral", (1, 1, 0), "epoch"),
    ],
)
def test_a_run_that_broke_off_ends_with_the_bits_of_one_that_did_not(learner, tmp_path, recipe, where, every):
    def train(folder, where=None):
        options = dict(RECIPES[recipe])
        learn = learner(options.pop("switcher")(), **options).to_bf16()
        crash = Crash()
        crash.where = where
        cbs = [EMA(0.9), Checkpoint(folder, every), crash]
        learn.fit_one_cycle(2, cbs=cbs)
        learn.fit(2, cbs=cbs)
        return learn

    expected = train(tmp_path / "undisturbed")
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "run", where)
    found = train(tmp_path / "run")
    torch.testing.assert_close(found.model.state_dict(), expected.model.state_dict(), rtol=0, atol=0)
    assert found.recorder.losses == expected.recorder.losses
    assert rows_of(found) == rows_of(expected)


def rows_of(learn):
    return learn.recorder.history.drop(columns="time").fillna(0).to_dict("list")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
@pytest.mark.parametrize(
    "switcher", [lambda: FixedGANSwitcher(2, 1), lambda: AdaptiveGANSwitcher(0.2, 1.9), lambda: None]
)
def test_two_processes_train_as_one(switcher):
    def train(bs):
        set_seed(0)
        generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        rng = torch.Generator().manual_seed(1)
        noise, real = torch.randn(50, 3, generator=rng), torch.randn(50, 2, generator=rng) + 1
        data = DataBunch.from_dsets(pairs := list(zip(noise, real, strict=True)), pairs[:11], bs, seed=3, device="cpu")
        learn = GANLearner.from_models(data, generator, critic, Hinge(), switcher(), opt_func=SGD, lr=0.1)
        learn.progress.bar = learn.progress.table = False
        learn.to_distributed(timeout=30)
        learn.fit(3)
        history = learn.recorder.history.drop(columns="time").to_dict("list")
        return {name: value.clone() for name, value in learn.model.state_dict().items()}, history, learn.n_steps

    (weights, history, n_steps), ranks = train(12), launch(train, [6], 2)
    for found, rows, n in ranks:
        torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found, ranks[0][0], rtol=0, atol=0)
        assert n == n_steps and set(rows) == set(history)
        for name in ("critic_loss", "valid_loss", "valid_critic_loss"):
            assert rows[name] == pytest.approx(history[name], rel=1e-4, abs=1e-6)
