"""Small images first."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from warmstart.callbacks import Callback, CutMix, ProgressiveResize
from warmstart.data import DataBunch
from warmstart.learner import Learner


@pytest.fixture
def learn():
    torch.manual_seed(0)
    batches = [(torch.randn(8, 1, 32, 48) + y.view(-1, 1, 1, 1), y) for y in torch.randint(0, 2, (4, 8))]
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    learn = Learner(DataBunch(batches, batches[:1], device="cpu"), model, nn.CrossEntropyLoss())
    learn.progress.bar = learn.progress.table = False
    return learn


class Look(Callback):
    order = 50

    def __init__(self):
        self.training, self.validation = [], []

    def before_batch(self, learn):
        (self.training if learn.training else self.validation).append(learn.xb[0])


def test_sizes_grow_linearly_and_end_whole(learn):
    look = Look()
    learn.fit(2, cbs=[ProgressiveResize(0.5, full=0.25, multiple=8), look])
    assert [tuple(x.shape[-2:]) for x in look.training] == [
        (16, 24), (16, 32), (24, 32), (24, 32), (24, 40), (32, 48), (32, 48), (32, 48)
    ]  # fmt: skip
    assert {tuple(x.shape[-2:]) for x in look.validation} == {(32, 48)}
    image = learn.data.train_dl.dl[0][0]
    torch.testing.assert_close(look.training[0], F.interpolate(image, (16, 24), mode="bilinear", antialias=True))
    assert look.training[-1] is learn.data.train_dl.dl[-1][0]


def test_a_network_learns_from_it_and_from_blended_images_too(learn):
    learn.fit(25, 0.05, cbs=[ProgressiveResize(), CutMix()])
    assert learn.validate()["valid_loss"] < 0.3


def test_images_are_never_scaled_up(learn):
    look = Look()
    learn.fit(1, cbs=[ProgressiveResize(0.5, multiple=64), look])
    assert all(x.shape[-2:] == (32, 48) for x in look.training)


@pytest.mark.parametrize("wrong", [{"start": 0}, {"start": 1.5}, {"full": -1}, {"multiple": 0}])
def test_wrong_shares_are_refused(wrong):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        ProgressiveResize(**wrong)


def test_what_is_no_image_is_refused():
    data = DataBunch([(torch.randn(4, 3), torch.zeros(4).long())], device="cpu")
    with pytest.raises(TypeError, match="ProgressiveResize scales images"):
        Learner(data, nn.Linear(3, 2), nn.CrossEntropyLoss()).fit(1, cbs=ProgressiveResize())
