"""Grids of samples while a GAN trains."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from warmstart.callbacks import EMA
from warmstart.learner import Learner
from warmstart.vision.gan import GANSamples
from warmstart.vision.gan.samples import image_grid


def pixels_of(file):
    with Image.open(file) as image:
        return np.asarray(image)


def test_a_picture_is_written_after_each_second_epoch(learner, tmp_path):
    learn = learner()
    learn.fit(3, cbs=GANSamples(every=2, n=6, folder=tmp_path))
    learn.fit(3, cbs=GANSamples(every=2, n=6, folder=tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0002.png", "0004.png", "0006.png"]
    assert pixels_of(tmp_path / "0002.png").shape == (2 * 18 + 2, 3 * 18 + 2, 3)


@pytest.mark.filterwarnings("ignore:EMA")
def test_it_shows_what_the_learner_would_sample(learner, tmp_path):
    learn = learner(lr=1e-2)
    learn.fit(2, cbs=[EMA(0.9), GANSamples(n=4, folder=tmp_path, seed=3)])
    expected = np.asarray(image_grid(learn.sample(4, seed=3), 2))
    np.testing.assert_array_equal(pixels_of(tmp_path / "0002.png"), expected)


def test_in_a_notebook_it_draws(learner):
    learner().fit(1, cbs=GANSamples(n=4))
    assert len(plt.gcf().axes) == 4
    plt.close("all")


def test_watching_changes_nothing(learner, tmp_path):
    watched, other = learner(), learner()
    watched.fit(2, cbs=GANSamples(folder=tmp_path))
    other.fit(2)
    torch.testing.assert_close(watched.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)


def test_a_dry_run_writes_nothing(learner, tmp_path):
    learner().fit(1, fast_dev_run=True, cbs=GANSamples(folder=tmp_path))
    assert not list(tmp_path.iterdir())


def test_counts_below_1_are_refused():
    with pytest.raises(ValueError, match="counted from 1"):
        GANSamples(every=0)


def test_a_learner_that_cannot_sample_is_refused(learner):
    learn = Learner(learner().data, learner().model)
    with pytest.raises(TypeError, match="Learner has none, see GANLearner"):
        learn.fit(1, cbs=GANSamples())
