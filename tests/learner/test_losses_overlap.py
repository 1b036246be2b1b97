"""Dice loss: 1 − the coefficient that torchmetrics and a formula written out find, whatever the shapes."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchmetrics.segmentation import DiceScore
from warmstart.data import DataBunch
from warmstart.data.portable import describe, restore
from warmstart.learner import DiceLoss, DiceMulti, Learner

torch.set_num_threads(1)


def masks(c=3, seed=0, shape=(4, 6, 5)):
    """Logits (bs, c, h, w) and classes (bs, h, w)."""
    rng = torch.Generator().manual_seed(seed)
    bs, *size = shape
    return torch.randn(bs, c, *size, generator=rng), torch.randint(c, shape, generator=rng)


def dice_by_hand(pred, targ, smooth=1e-6, squared=False, ignored=-100):
    """The coefficients (bs, c), by loops."""
    p = pred.double().softmax(1).numpy()
    coefficients = np.zeros(p.shape[:2])
    for i, c in np.ndindex(*coefficients.shape):
        kept = targ[i].numpy() != ignored
        true, prob = (targ[i].numpy() == c)[kept], p[i, c][kept]
        predicted = (prob**2).sum() if squared else prob.sum()
        coefficients[i, c] = (2 * prob[true].sum() + smooth) / (predicted + true.sum() + smooth)
    return coefficients


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), c=st.integers(2, 4), smooth=st.sampled_from([1e-6, 1.0]), squared=st.booleans())
def test_it_is_1_minus_the_mean_of_each_images_coefficients(seed, c, smooth, squared):
    pred, targ = masks(c, seed)
    targ[0, :2] = -100
    losses = 1 - dice_by_hand(pred, targ, smooth, squared).mean(1)
    loss = DiceLoss(smooth=smooth, square_in_union=squared)
    assert float(loss(pred, targ)) == pytest.approx(losses.mean(), rel=1e-5)
    loss.reduction = "sum"
    assert float(loss(pred, targ)) == pytest.approx(losses.sum(), rel=1e-5)
    loss.reduction = "none"
    np.testing.assert_allclose(loss(pred, targ), losses, rtol=1e-5)


def test_for_predictions_without_doubt_it_is_1_minus_the_dice_score():
    pred, targ = masks(seed=3)
    targ[:, 0, :3] = torch.arange(3)  # each class occurs in each image
    sure = 200 * F.one_hot(pred.argmax(1), 3).movedim(-1, 1).float()
    score = DiceScore(3, average="macro", input_format="index")
    assert float(DiceLoss()(sure, targ)) == pytest.approx(1 - float(score(pred.argmax(1), targ)), abs=1e-5)


def test_classes_may_be_on_any_axis_and_targets_may_have_an_axis_of_length_1():
    pred, targ = masks()
    expected = DiceLoss()(pred, targ)
    torch.testing.assert_close(DiceLoss(axis=-1)(pred.movedim(1, -1), targ), expected)
    torch.testing.assert_close(DiceLoss()(pred, targ[:, None]), expected)
    torch.testing.assert_close(DiceLoss()(pred.flatten(2), targ.flatten(1)), expected)
    pred, targ = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(DiceLoss()(pred, targ), DiceLoss()(pred[:, :, None, None], targ[:, None, None]))


def test_a_weight_of_0_leaves_the_background_out():
    pred, targ = masks()
    losses = 1 - dice_by_hand(pred, targ)
    assert float(DiceLoss(weight=[0, 1, 1])(pred, targ)) == pytest.approx(losses[:, 1:].mean(), rel=1e-5)
    expected = (losses @ [1, 2, 5]).mean() / 8
    assert float(DiceLoss(weight=torch.tensor([1.0, 2.0, 5.0]))(pred, targ)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_class_numbers_may_be_of_any_integer_type_and_predictions_in_half_precision(dtype):
    pred, targ = masks()
    torch.testing.assert_close(DiceLoss()(pred, targ.to(dtype)), DiceLoss()(pred, targ))
    torch.testing.assert_close(DiceLoss()(pred.half(), targ), DiceLoss()(pred.half().float(), targ))


def test_a_byte_that_wraps_round_to_ignore_index_is_not_ignored():
    pred, targ = masks()
    targ[0] = 156  # -100 as a byte: no class, so all is predicted in vain
    assert DiceLoss(reduction="none")(pred, targ.byte())[0] == pytest.approx(1, abs=1e-6)


def test_ignored_pixels_have_no_gradient():
    pred, targ = masks()
    targ[1, 2:4] = 255
    pred.requires_grad_()
    DiceLoss(ignore_index=255)(pred, targ).backward()
    assert torch.equal((pred.grad != 0).any(1), targ != 255)


def test_it_reads_predictions_by_softmax_and_argmax():
    pred, _ = masks()
    torch.testing.assert_close(DiceLoss().activation(pred), pred.softmax(1))
    assert torch.equal(DiceLoss().decodes(pred), pred.argmax(1))


def test_it_checks_targets_as_cross_entropy_does():
    pred, targ = masks()
    DiceLoss(weight=[1, 2, 3]).check(pred, targ)
    with pytest.raises(ValueError, match="targets must be class numbers, integers"):
        DiceLoss().check(pred, targ.float())
    with pytest.raises(ValueError, match="weight holds 2 numbers for a model with 3 outputs"):
        DiceLoss(weight=[1, 2]).check(pred, targ)
    targ[1, 2, 3] = 3
    with pytest.raises(ValueError, match=r"0…2 for a model with 3 outputs, found 3 \(first at index \(1, 2, 3\)"):
        DiceLoss().check(pred, targ)


def test_it_never_broadcasts():
    pred, targ = masks()
    with pytest.raises(RuntimeError):
        DiceLoss()(pred, targ[:, :1, :1])


def test_it_survives_json_and_prints_what_builds_it_again():
    loss = DiceLoss(-1, 1.0, "sum", True, (1, 2, 3), 255)
    assert restore(json.loads(json.dumps(describe(loss)))) == loss
    assert eval(repr(loss)) == loss


def test_calling_it_reads_nothing_back_from_the_device():
    pred = torch.empty(2, 3, 4, 4, device="meta")  # tensors without values: reading one is an error
    targ = torch.empty(2, 4, 4, dtype=torch.long, device="meta")
    assert DiceLoss(weight=[1, 2, 3])(pred, targ).shape == ()


def test_a_network_learns_to_mark_squares_and_gives_a_loss_per_image():
    rng = torch.Generator().manual_seed(0)
    targ = torch.zeros(32, 8, 8, dtype=torch.long)
    for mask, corner in zip(targ, torch.randint(5, (32, 2), generator=rng).tolist(), strict=True):
        mask[corner[0] : corner[0] + 3, corner[1] : corner[1] + 3] = 1
    images = targ[:, None] + 0.3 * torch.randn(32, 1, 8, 8, generator=rng)
    torch.manual_seed(0)
    model = torch.nn.Conv2d(1, 2, 3, padding=1)
    data = DataBunch(list(zip(images.split(8), targ.split(8), strict=True)), [(images[:5], targ[:5])], device="cpu")
    learn = Learner(data, model, DiceLoss(), metrics=DiceMulti())
    learn.progress.bar = learn.progress.table = False
    before = learn.validate()
    learn.fit(10, 0.05)
    after = learn.validate()
    assert after["valid_loss"] < before["valid_loss"] - 0.2 and after["dice_multi"] > 0.9
    *_, losses = learn.get_preds(with_loss=True)
    assert losses.shape == (5,) and float(losses.mean()) == pytest.approx(after["valid_loss"], abs=1e-6)
