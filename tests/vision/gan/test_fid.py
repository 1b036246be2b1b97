"""FID and KID of features that are known, against scipy and sums written out."""

import numpy as np
import pytest
import torch
from torch import nn
from warmstart.learner import launch
from warmstart.learner.ranks import join
from warmstart.vision.gan import FID, KID, frechet_distance

linalg = pytest.importorskip("scipy.linalg", reason="scikit-learn, of the extra dev, brings scipy")


def features(n, seed, nf=6):
    """Of some normal distribution, of other mean and covariance for each seed."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, nf)) @ rng.normal(size=(nf, nf)) + rng.normal(size=nf))


def by_scipy(mean1, cov1, mean2, cov2):
    return ((mean1 - mean2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * linalg.sqrtm(cov1 @ cov2).real)


def of_batches(metric, made, real, bs=17):
    metric.reset()
    for x, y in zip(made.split(bs), real.split(bs), strict=True):
        metric.update(x, y)
    return metric.compute().item()


@pytest.mark.parametrize("seed", range(4))
def test_the_frechet_distance_is_scipys(seed):
    parts = []
    for x in (features(40, seed), features(40, seed + 10)):
        parts += [x.numpy().mean(0), np.cov(x.numpy().T)]
    assert frechet_distance(*map(torch.from_numpy, parts)).item() == pytest.approx(by_scipy(*parts), rel=1e-9)


def test_the_frechet_distance_of_diagonal_covariances_is_that_of_their_roots():
    a, b = torch.tensor([4.0, 9, 0]).double(), torch.tensor([1.0, 16, 1]).double()
    distance = frechet_distance(torch.zeros(3).double(), a.diag(), torch.ones(3).double(), b.diag())
    assert distance.item() == pytest.approx(3 + (2 - 1) ** 2 + (3 - 4) ** 2 + 1)


def test_fid_over_batches_is_that_of_all_images():
    made, real = features(101, 1), features(101, 2)
    expected = by_scipy(made.numpy().mean(0), np.cov(made.numpy().T), real.numpy().mean(0), np.cov(real.numpy().T))
    assert of_batches(FID(nn.Identity()), made.float(), real.float()) == pytest.approx(expected, rel=1e-5)
    assert of_batches(FID(nn.Identity()), real, real) == pytest.approx(0, abs=1e-9)


def test_fid_holds_where_features_depend_on_each_other():
    made, real = features(30, 1, 3).repeat(1, 2), features(30, 2, 3).repeat(1, 2)
    parts = [part for x in (made, real) for part in (x.numpy().mean(0), np.cov(x.numpy().T))]
    alone = [part for x in (made, real) for part in (x[:, :3].numpy().mean(0), np.cov(x[:, :3].numpy().T))]
    assert of_batches(FID(nn.Identity()), made, real) == pytest.approx(2 * by_scipy(*alone), rel=1e-4)
    assert parts[1].shape == (6, 6)


def kid_by_hand(x, y):
    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n = len(x)
    others = [(i, j) for i in range(n) for j in range(n) if i != j]
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in others) / len(others)
    return within - 2 * sum(k(a, b) for a in x for b in y) / n**2


def test_kid_is_the_sum_over_pairs_in_each_group():
    made, real = features(20, 1), features(20, 2)
    assert of_batches(KID(nn.Identity()), made, real, 7) == pytest.approx(kid_by_hand(made, real), rel=1e-4)
    halves = [kid_by_hand(made[i : i + 10], real[i : i + 10]) for i in (0, 10)]
    assert of_batches(KID(nn.Identity(), group_size=10), made, real, 7) == pytest.approx(np.mean(halves), rel=1e-4)


def test_kid_of_like_images_is_0_on_average():
    values = [of_batches(KID(nn.Identity()), torch.randn(50, 4), torch.randn(50, 4)) for _ in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 60**0.5 and min(values) < 0


def test_an_encoder_is_used_in_evaluation_mode_and_left_as_it_was():
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    images = torch.rand(20, 1, 6, 6)
    fid = FID(encoder, name="digits")
    assert of_batches(fid, images, images) == pytest.approx(0, abs=1e-9) and fid.name == "digits"
    assert encoder.training and encoder[1].num_batches_tracked == 0


def test_too_few_images_and_no_features_are_refused():
    one = torch.zeros(1, 3)
    for metric in (FID(nn.Identity()), KID(nn.Identity())):
        with pytest.raises(ValueError, match="two images or more"):
            of_batches(metric, one, one)
    with pytest.raises(ValueError, match="not features"):
        of_batches(FID(lambda images: images.mean()), one, one)


def test_several_processes_have_the_value_of_all_images():
    def values():
        ranks, made, real = join(), features(40, 1), features(40, 2)
        found = []
        for metric in (FID(nn.Identity()), KID(nn.Identity(), group_size=20)):
            metric.update(made[ranks.rank :: ranks.n], real[ranks.rank :: ranks.n])
            metric.sync_from(ranks.gather)
            found.append(metric.compute().item())
        return found

    one, two = launch(values, nprocs=2)
    made, real = features(40, 1), features(40, 2)
    assert one == two and one[0] == pytest.approx(of_batches(FID(nn.Identity()), made, real), rel=1e-9)
