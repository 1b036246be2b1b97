"""Losses: the numbers are PyTorch's, for any shape; they say how to read predictions, and explain what does not fit."""

import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from warmstart.data.portable import describe, restore
from warmstart.learner.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    FocalLoss,
    L1Loss,
    LabelSmoothingCrossEntropy,
    MSELoss,
    loss_activation,
    loss_decodes,
)

torch.set_num_threads(1)
ALL_LOSSES = [
    CrossEntropyLoss(weight=[1.0, 2.0, 0.5], ignore_index=255, label_smoothing=0.1, axis=1),
    LabelSmoothingCrossEntropy(eps=0.2),
    FocalLoss(gamma=1.5, weight=(1.0, 2.0, 3.0)),
    BCEWithLogitsLoss(thresh=0.3, pos_weight=torch.tensor([1.0, 2.0])),
    MSELoss(),
    L1Loss(reduction="sum"),
]


@pytest.fixture
def logits():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def classes():
    return torch.tensor([0, 1, 2, 2, 1, 0, 0, 2])


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, check_dtype=False)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, [0.2, 1.0, 3.0]])
def test_cross_entropy_is_pytorchs(logits, classes, reduction, smoothing, weight):
    loss = CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)
    expected = nn.CrossEntropyLoss(weight and torch.tensor(weight), reduction=reduction, label_smoothing=smoothing)
    assert_same(loss(logits, classes), expected(logits, classes))


def test_cross_entropy_finds_the_classes_on_any_axis():
    pixels, classes = torch.randn(2, 5, 4, 6), torch.randint(5, (2, 4, 6))
    expected = F.cross_entropy(pixels, classes)
    assert_same(CrossEntropyLoss(axis=1)(pixels, classes), expected)
    assert_same(CrossEntropyLoss(axis=-3)(pixels, classes), expected)
    assert_same(CrossEntropyLoss()(pixels.movedim(1, -1), classes), expected)
    assert_same(CrossEntropyLoss(axis=2)(pixels.movedim(1, 2), classes), expected)


def test_targets_may_be_flat_or_have_an_axis_of_length_1(logits, classes):
    expected = F.cross_entropy(logits, classes)
    assert_same(CrossEntropyLoss()(logits, classes[:, None]), expected)
    assert_same(CrossEntropyLoss()(logits.view(2, 4, 3), classes), expected)
    assert_same(CrossEntropyLoss(axis=1)(logits[:, :, None, None], classes[:, None, None, None]), expected)


@pytest.mark.parametrize("loss", [CrossEntropyLoss(axis=1), FocalLoss(axis=1), LabelSmoothingCrossEntropy(axis=1)])
def test_without_reduction_there_is_one_loss_per_target_in_the_targets_shape(loss):
    pixels, classes = torch.randn(2, 5, 4, 6), torch.randint(5, (2, 1, 4, 6))
    mean = loss(pixels, classes)
    loss.reduction = "none"
    assert loss(pixels, classes).shape == (2, 1, 4, 6)
    assert_same(loss(pixels, classes).mean(), mean)
    loss.reduction = "mean"


def test_targets_equal_to_ignore_index_do_not_count(logits, classes):
    with_holes = torch.where(torch.arange(8) < 3, 255, classes)
    for loss in (CrossEntropyLoss(ignore_index=255), FocalLoss(ignore_index=255)):
        assert_same(loss(logits, with_holes), loss(logits[3:], classes[3:]))
        loss.check(logits, with_holes)


def test_cross_entropy_takes_probabilities_as_mixup_makes_them(logits, classes):
    soft = 0.3 * F.one_hot(classes, 3) + 0.7 * F.one_hot(classes.flip(0), 3)
    plain = CrossEntropyLoss()
    plain.check(logits, soft)
    assert_same(plain(logits, soft), 0.3 * plain(logits, classes) + 0.7 * plain(logits, classes.flip(0)))
    assert CrossEntropyLoss(reduction="none")(logits, soft).shape == (8,)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool])
def test_class_numbers_may_be_of_any_integer_type(dtype):
    logits, classes = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    CrossEntropyLoss().check(logits, classes.to(dtype))
    assert_same(CrossEntropyLoss()(logits, classes.to(dtype)), F.cross_entropy(logits, classes))


def test_half_precision_predictions_are_computed_with_in_float32(logits, classes):
    half = logits.bfloat16()
    whole = CrossEntropyLoss(weight=[1, 2, 3])(half.float(), classes)
    assert_same(CrossEntropyLoss(weight=[1, 2, 3])(half, classes), whole)
    assert MSELoss()(torch.tensor([300.0]).half(), torch.tensor([0])) == 90_000  # beyond the largest half, 65,504


def test_class_weights_first_used_in_inference_mode_serve_training_too(logits, classes):
    loss = CrossEntropyLoss(weight=[1.25, 2.5, 3.75])
    with torch.inference_mode():
        loss(logits, classes)
    logits = logits.clone().requires_grad_()
    loss(logits, classes).backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0


def test_label_smoothing_cross_entropy_is_cross_entropy_with_eps(logits, classes):
    assert_same(LabelSmoothingCrossEntropy(0.2)(logits, classes), F.cross_entropy(logits, classes, label_smoothing=0.2))


def test_focal_loss_follows_the_papers_formula(logits, classes):
    p = logits.softmax(1)[range(8), classes]
    alpha = torch.tensor([0.25, 0.5, 0.75])[classes]
    assert_same(FocalLoss(reduction="none")(logits, classes), -((1 - p) ** 2) * p.log())
    assert_same(FocalLoss(3.0, [0.25, 0.5, 0.75])(logits, classes), (-alpha * (1 - p) ** 3 * p.log()).mean())
    assert_same(FocalLoss(reduction="sum")(logits, classes), (-((1 - p) ** 2) * p.log()).sum())


def test_focal_loss_with_gamma_0_is_cross_entropy(logits, classes):
    assert_same(FocalLoss(gamma=0.0)(logits, classes), F.cross_entropy(logits, classes))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_a_finite_gradient_where_a_prediction_is_perfect(gamma):
    logits = torch.tensor([[100.0, 0.0], [0.0, 1.0]], requires_grad=True)
    FocalLoss(gamma)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_bce_takes_targets_of_any_type(dtype):
    logits, yes = torch.randn(4, 3), torch.rand(4, 3) > 0.5
    assert_same(BCEWithLogitsLoss()(logits, yes.to(dtype)), F.binary_cross_entropy_with_logits(logits, yes.float()))


def test_bce_weighs_positives_and_outputs_as_pytorch_does():
    logits, yes = torch.randn(4, 3), (torch.rand(4, 3) > 0.5).float()
    loss = BCEWithLogitsLoss(pos_weight=[1, 2, 3], weight=[0.5, 1, 2], reduction="none")
    expected = nn.BCEWithLogitsLoss(torch.tensor([0.5, 1, 2]), pos_weight=torch.tensor([1.0, 2, 3]), reduction="none")
    assert_same(loss(logits, yes), expected(logits, yes))
    expected = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(4.0))
    assert_same(BCEWithLogitsLoss(pos_weight=4.0)(logits, yes), expected(logits, yes))


@pytest.mark.parametrize(("loss", "expected"), [(MSELoss, F.mse_loss), (L1Loss, F.l1_loss)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_of_values_are_pytorchs(loss, expected, reduction):
    pred, targ = torch.randn(4, 2), torch.randn(4, 2, dtype=torch.float64)
    assert_same(loss(reduction)(pred, targ), expected(pred, targ.float(), reduction=reduction))


@pytest.mark.parametrize("loss", [MSELoss(), L1Loss(), BCEWithLogitsLoss()])
def test_predictions_with_one_output_meet_flat_targets_without_broadcasting(loss):
    pred, targ = torch.randn(4, 1), torch.tensor([0, 1, 1, 0])
    loss.check(pred, targ)
    assert_same(loss(pred, targ), loss(pred[:, 0], targ.float()))
    loss.reduction = "none"
    assert loss(pred, targ).shape == (4,)
    loss.reduction = "mean"


def test_cross_entropy_reads_predictions_by_softmax_and_argmax():
    pixels = torch.randn(2, 5, 4, 6)
    loss = CrossEntropyLoss(axis=1)
    assert_same(loss.activation(pixels), pixels.softmax(1))
    assert loss.decodes(pixels).equal(pixels.argmax(1))


def test_bce_decodes_probabilities_above_its_threshold():
    logits = torch.tensor([[-3.0, -0.5, 0.5, 3.0]])
    assert BCEWithLogitsLoss().decodes(logits).tolist() == [[False, False, True, True]]
    assert BCEWithLogitsLoss(thresh=0.3).decodes(logits).tolist() == [[False, True, True, True]]
    assert_same(BCEWithLogitsLoss().activation(logits), logits.sigmoid())


def test_values_are_read_as_they_are():
    assert MSELoss().activation(x := torch.randn(3)) is x and L1Loss().decodes(x) is x


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.cross_entropy, partial(F.cross_entropy, ignore_index=0)])
def test_pytorchs_cross_entropy_is_read_by_softmax_and_argmax_on_axis_1(loss):
    pixels = torch.randn(2, 5, 4, 6)
    assert_same(loss_activation(loss)(pixels), pixels.softmax(1))
    assert loss_decodes(loss)(pixels).equal(pixels.argmax(1))
    assert loss_decodes(loss)(torch.tensor([1.0, 3.0, 2.0])) == 1


@pytest.mark.parametrize(
    ("loss", "activation", "decodes"),
    [
        (nn.BCEWithLogitsLoss(), torch.sigmoid, lambda x: x > 0),
        (F.binary_cross_entropy_with_logits, torch.sigmoid, lambda x: x > 0),
        (nn.NLLLoss(), torch.exp, lambda x: x.argmax(1)),
        (F.nll_loss, torch.exp, lambda x: x.argmax(1)),
        (nn.MSELoss(), lambda x: x, lambda x: x),
        (lambda pred, targ: pred.mean(), lambda x: x, lambda x: x),
        (FocalLoss(), lambda x: x.softmax(-1), lambda x: x.argmax(-1)),
    ],
)
def test_any_loss_can_be_read(loss, activation, decodes):
    pred = torch.randn(4, 3)
    assert_same(loss_activation(loss)(pred), activation(pred))
    assert loss_decodes(loss)(pred).equal(decodes(pred))


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_loss_survives_json_and_prints_what_builds_it_again(loss):
    assert restore(json.loads(json.dumps(describe(loss)))) == loss
    assert eval(repr(loss)) == loss


@pytest.mark.parametrize("loss", [CrossEntropyLoss([1, 2]), FocalLoss(2, [1, 2]), BCEWithLogitsLoss(), MSELoss()])
def test_calling_a_loss_reads_nothing_back_from_the_device(loss):
    pred = torch.empty(4, 2, device="meta")  # tensors without values: reading one is an error
    targ = torch.empty(4, dtype=torch.long, device="meta") if hasattr(loss, "axis") else pred
    assert loss(pred, targ).shape == ()


def complaint(loss, pred, targ):
    with pytest.raises(ValueError) as error:
        loss.check(pred, targ)
    return str(error.value)


def test_check_names_the_first_target_that_is_no_class_of_the_model():
    message = complaint(CrossEntropyLoss(), torch.randn(5, 10), torch.tensor([0, 9, 2, 10, 11]))
    assert message.startswith(
        "targets must lie in 0…9 for a model with 10 outputs, found 10 (first at position 3 of the batch). "
        "Is the model's n_out smaller than the number of classes?"
    )


def test_check_gives_the_place_of_a_wrong_pixel_and_names_ignore_index():
    mask = torch.zeros(2, 4, 6, dtype=torch.uint8)
    mask[1, 2, 3] = 255
    message = complaint(CrossEntropyLoss(axis=1), torch.randn(2, 5, 4, 6), mask)
    assert "found 255 (first at index (1, 2, 3) of the batch)" in message and "ignore_index (now -100)" in message


def test_a_byte_that_wraps_round_to_ignore_index_is_still_wrong():
    assert "found 156" in complaint(CrossEntropyLoss(), torch.randn(1, 5), torch.tensor([156], dtype=torch.uint8))


def test_check_refuses_float_class_numbers():
    message = complaint(CrossEntropyLoss(), torch.randn(4, 3), torch.tensor([0.0, 1.0, 2.0, 0.0]))
    assert "class numbers" in message and "float32 of shape (4,)" in message and "MSELoss" in message
    assert "class numbers" in complaint(FocalLoss(), torch.randn(4, 3), torch.rand(4, 3))
    assert "class numbers" in complaint(CrossEntropyLoss(), torch.randn(4, 1), torch.rand(4, 1))


def test_check_refuses_probabilities_outside_0_and_1():
    soft = torch.tensor([[0.5, 0.5], [-1.0, 2.0]])
    message = complaint(CrossEntropyLoss(), torch.randn(2, 2), soft)
    assert "between 0 and 1, found -1 (first at index (1, 0) of the batch)" in message


def test_check_explains_one_hot_targets():
    one_hot = F.one_hot(torch.tensor([0, 2, 1]), 3)
    assert "one-hot" in complaint(CrossEntropyLoss(), torch.randn(3, 3), one_hot)


def test_check_says_which_shapes_do_not_fit():
    assert "(64, 10) do not fit targets of shape (64, 3)" in complaint(
        BCEWithLogitsLoss(), torch.randn(64, 10), torch.zeros(64, 3)
    )
    assert "(4, 2) do not fit targets of shape (4,)" in complaint(MSELoss(), torch.randn(4, 2), torch.randn(4))
    assert "(3, 4) do not fit targets of shape (4, 3)" in complaint(L1Loss(), torch.randn(3, 4), torch.randn(4, 3))
    assert "targets of shape (2, 4, 6) are expected" in complaint(
        CrossEntropyLoss(axis=1), torch.randn(2, 5, 4, 6), torch.zeros(2, 8, 6, dtype=torch.long)
    )


def test_check_wants_a_class_axis():
    message = complaint(CrossEntropyLoss(), torch.randn(4), torch.zeros(4, dtype=torch.long))
    assert "class axis (here axis=-1), found shape (4,)" in message and "BCEWithLogitsLoss" in message


def test_check_sends_single_label_targets_from_bce_to_cross_entropy():
    message = complaint(BCEWithLogitsLoss(), torch.randn(4, 1), torch.tensor([0, 1, 3, 1]))
    assert "between 0 and 1, found 3 (first at position 2 of the batch)" in message and "CrossEntropyLoss" in message


def test_check_finds_missing_targets():
    assert "found nan (first at position 1" in complaint(MSELoss(), torch.randn(2), torch.tensor([0.0, torch.nan]))


def test_check_counts_the_weights():
    zeros = torch.zeros(4, dtype=torch.long)
    assert "weight holds 2 numbers for a model with 3" in complaint(CrossEntropyLoss([1, 2]), torch.randn(4, 3), zeros)
    assert "pos_weight holds 2" in complaint(BCEWithLogitsLoss(pos_weight=[1, 2]), torch.randn(4, 3), torch.zeros(4, 3))


@pytest.mark.parametrize("loss", [MSELoss(), BCEWithLogitsLoss(), CrossEntropyLoss()])
def test_a_loss_never_broadcasts(loss):
    with pytest.raises(RuntimeError):
        loss(torch.randn(4, 3), torch.zeros(3, dtype=torch.long))
