"""Several losses as one: the weighted sum, read as the first is, for training, export and losses per item."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from warmstart.data import DataBunch
from warmstart.data.portable import describe, restore
from warmstart.learner import (
    BCEWithLogitsLoss,
    CombinedLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    L1Loss,
    Learner,
    MSELoss,
    load_learner,
)

torch.set_num_threads(1)


@pytest.fixture
def pixels():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 5, 6, generator=rng), torch.randint(3, (4, 5, 6), generator=rng)


def test_it_is_the_weighted_sum_of_its_parts(pixels):
    pred, targ = pixels
    parts = [CrossEntropyLoss(axis=1), DiceLoss(), FocalLoss(axis=1)]
    values = [part(pred, targ) for part in parts]
    torch.testing.assert_close(CombinedLoss(parts)(pred, targ), values[0] + values[1] + values[2])
    expected = 0.5 * values[0] + 2 * values[1]
    torch.testing.assert_close(CombinedLoss(parts, weights=(0.5, 2, 0))(pred, targ), expected)


def test_parts_may_be_losses_of_pytorch_and_functions(pixels):
    pred, targ = pixels
    expected = 2 * F.cross_entropy(pred, targ) + DiceLoss()(pred, targ)
    for cross_entropy in (nn.CrossEntropyLoss(), F.cross_entropy):
        loss = CombinedLoss([cross_entropy, DiceLoss()], [2, 1])
        loss.check(pred, targ)
        torch.testing.assert_close(loss(pred, targ), expected)
        torch.testing.assert_close(loss.activation(pred), pred.softmax(1))


def test_it_reads_predictions_as_the_first_part_does(pixels):
    pred, _ = pixels
    loss = CombinedLoss([DiceLoss(), MSELoss()])
    torch.testing.assert_close(loss.activation(pred), pred.softmax(1))
    assert torch.equal(loss.decodes(pred), pred.argmax(1))
    assert CombinedLoss([MSELoss(), L1Loss()]).activation(pred) is pred


def test_every_part_checks_the_targets(pixels):
    pred, targ = pixels
    with pytest.raises(ValueError, match="weight holds 2 numbers"):
        CombinedLoss([CrossEntropyLoss(axis=1), DiceLoss(weight=[1, 2])]).check(pred, targ)


def test_setting_reduction_sets_that_of_all_parts(pixels):
    pred, targ = pixels
    parts = [CrossEntropyLoss(axis=1), DiceLoss()]
    loss = CombinedLoss(parts, [1, 2])
    mean = loss(pred, targ)
    assert loss.reduction == "mean"
    loss.reduction = "none"
    assert [part.reduction for part in parts] == ["none", "none"] == [loss.reduction] * 2
    per_image = loss(pred, targ)
    expected = F.cross_entropy(pred, targ, reduction="none").mean((1, 2)) + 2 * parts[1](pred, targ)
    torch.testing.assert_close(per_image, expected)
    torch.testing.assert_close(per_image.mean(), mean)


def test_a_part_without_reduction_is_told_where_losses_per_item_are_asked_for(pixels):
    assert not hasattr(CombinedLoss([DiceLoss(), F.cross_entropy]), "reduction")


def test_it_survives_json_and_prints_what_builds_it_again():
    parts = (BCEWithLogitsLoss(pos_weight=[1.0, 2.0]), DiceLoss(ignore_index=255))
    loss = CombinedLoss(parts, torch.tensor([1.0, 0.5]))
    assert restore(json.loads(json.dumps(describe(loss)))) == loss
    assert eval(repr(loss)) == loss


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CombinedLoss([DiceLoss, CrossEntropyLoss()]), TypeError, r"it takes losses, \[CrossEntropyLoss\(\)"),
        (lambda: CombinedLoss([DiceLoss(), "dice"]), TypeError, "CombinedLoss got 'dice'"),
        (lambda: CombinedLoss([]), ValueError, "0 losses and 0 weights"),
        (lambda: CombinedLoss([DiceLoss(), L1Loss()], [1]), ValueError, "2 losses and 1 weights: give a weight"),
        (lambda: CombinedLoss([DiceLoss(), L1Loss("sum")]), ValueError, r"reduce by \['mean', 'sum'\]: make them all"),
    ],
)
def test_what_cannot_be_combined_is_explained(make, error, message):
    with pytest.raises(error, match=message):
        make()


class Segment(nn.Conv2d):
    def __init__(self):
        super().__init__(1, 3, 3, padding=1)


def test_a_learner_trains_with_it_gives_losses_per_item_and_exports_it(tmp_path, pixels):
    torch.manual_seed(0)
    images, targ = torch.randn(4, 1, 5, 6), pixels[1]
    loss = CombinedLoss([CrossEntropyLoss(axis=1), DiceLoss()], [1.0, 0.5])
    learn = Learner(DataBunch([(images, targ)], [(images, targ)], device="cpu"), Segment(), loss, path=tmp_path)
    learn.progress.bar = learn.progress.table = False
    before = learn.validate()["valid_loss"]
    learn.fit(5, 0.05)
    after = learn.validate()["valid_loss"]
    preds, _, losses = learn.get_preds(with_loss=True)
    assert after < before and losses.shape == (4,) and float(losses.mean()) == pytest.approx(after, abs=1e-6)
    assert loss.reduction == "mean"
    again = load_learner(learn.export(), custom={"Segment": Segment})
    assert again.loss_func == loss
    torch.testing.assert_close(again.get_preds(dl=[(images, targ)])[0], preds)
