import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_small, resnet18
from warmstart.data import DataBunch
from warmstart.data.portable import describe, restore
from warmstart.learner import L1Loss, Learner, MSELoss
from warmstart.vision import FeatureLoss, StyleLoss, create_body, gram_matrix, imagenet_stats
from warmstart.vision.frozen_features import FrozenFeatures

MEAN, STD = (torch.tensor(stat).view(3, 1, 1) for stat in imagenet_stats)


def tiny_body():
    """Maps of two resolutions: 8 channels at half the size, 16 at a quarter."""
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(inplace=True))


def vgg_like():
    """Convolutions between poolings, the last of which has nothing of its own to say."""
    stages = [[nn.Conv2d(n_in, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)] for n_in in (3, 8, 8)]
    return nn.Sequential(
        nn.Sequential(*(layer for stage in stages for layer in stage)), nn.Flatten(), nn.Linear(512, 2)
    )


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, 3, 16, 16, generator=generator), torch.rand(4, 3, 16, 16, generator=generator)


# ---- the features


@pytest.mark.parametrize(
    ("arch", "sizes"),
    [(vgg_like, [64, 32, 16]), (resnet18, [32, 16, 8, 4, 2]), (mobilenet_v3_small, [32, 16, 8, 4, 2])],
)
def test_by_default_the_last_map_of_each_resolution_is_taken(arch, sizes):
    features = FrozenFeatures(create_body(arch, pretrained=False))(torch.rand(1, 3, 64, 64))
    assert [f.shape[-1] for f in features] == sizes


def test_features_are_those_of_the_layers_for_normalised_images(images):
    body, (image, _) = tiny_body().eval(), images
    normalised = (image - MEAN) / STD
    found = FrozenFeatures(body, ["1", "2", "4"])(image)
    torch.testing.assert_close(found[0], body[:2](normalised))  # not what the ReLU in place makes of it
    torch.testing.assert_close(found[1], body[:3](normalised))
    torch.testing.assert_close(found[2], body(normalised))


def test_a_grey_image_counts_as_its_copy_in_colour():
    grey, features = torch.rand(2, 1, 16, 16), FrozenFeatures(tiny_body())
    for one, other in zip(features(grey), features(grey.expand(-1, 3, -1, -1)), strict=True):
        torch.testing.assert_close(one, other)


def test_the_body_that_was_given_stays_as_it_was(images):
    body = tiny_body().train()
    before = copy.deepcopy(body.state_dict())
    FeatureLoss(body)(images[0].requires_grad_(), images[1]).backward()
    assert all(p.requires_grad and p.grad is None for p in body.parameters())
    assert all(module.training for module in body.modules()) and body[2].inplace
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())


def test_what_is_no_body_or_no_layer_is_refused():
    with pytest.raises(TypeError, match="create_body"):
        FeatureLoss(resnet18)
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        FeatureLoss(tiny_body(), layers=["conv9"])
    with pytest.raises(ValueError, match="3 weights for 2 layers"):
        FeatureLoss(tiny_body(), weights=[1, 2, 3])


# ---- the losses


def test_gram_matrix_is_the_mean_product_of_features():
    features = torch.randn(2, 3, 4, 5)
    expected = torch.einsum("bchw,bdhw->bcd", features, features) / (3 * 4 * 5)
    torch.testing.assert_close(gram_matrix(features), expected)


def test_gram_matrix_does_not_overflow_in_half_precision():
    features = torch.full((1, 4, 8, 8), 300.0, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gram = gram_matrix(features)
    torch.testing.assert_close(gram, torch.full((1, 4, 4), 300.0**2 / 4))


def test_the_loss_is_pixels_plus_features_plus_style(images):
    body, (pred, targ) = tiny_body().eval(), images
    ours, theirs = ([body[:3](x), body(x)] for x in ((pred - MEAN) / STD, (targ - MEAN) / STD))
    expected = {"pixel": F.mse_loss(pred, targ)}
    for i, weight in enumerate((5.0, 2.0)):
        _, c, h, w = ours[i].shape
        grams = [torch.einsum("bchw,bdhw->bcd", x[i], x[i]) / (c * h * w) for x in (ours, theirs)]
        expected[f"feature_{i}"] = weight * F.l1_loss(ours[i], theirs[i])
        expected[f"style_{i}"] = 30 * weight**2 * F.l1_loss(*grams)
    loss = FeatureLoss(body, ["2", "4"], [5, 2], MSELoss(), style_weight=30.0)
    torch.testing.assert_close(loss(pred, targ), sum(expected.values()))
    assert loss.parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(loss.parts[name], value.detach())


def test_a_weight_of_zero_and_no_style_leave_their_terms_out(images):
    loss = FeatureLoss(tiny_body(), weights=[0, 1])
    loss(*images)
    assert [*loss.parts] == ["pixel", "feature_1"] == [metric.name for metric in loss.metrics]


def test_style_loss_is_the_style_of_feature_loss_and_heeds_no_place(images):
    body, (pred, targ) = tiny_body(), images
    loss = FeatureLoss(body, weights=[3, 2], style_weight=7.0)
    loss(pred, targ)
    style = StyleLoss(body, weights=[3, 2])
    torch.testing.assert_close(7 * style(pred, targ), loss.parts["style_0"] + loss.parts["style_1"])
    assert style(pred, targ[:1, :, :8]).isfinite()  # one image of another size for all
    flat = torch.full((1, 3, 16, 16), 0.5)
    flat[..., 4:8, 4:8] = 1
    assert style(flat, flat.roll((4, 4), (2, 3))) < 1e-6 < FeatureLoss(body)(flat, flat.roll((4, 4), (2, 3)))


def test_losses_per_item_average_to_the_loss(images):
    for kind in (FeatureLoss, StyleLoss):
        mean, per_item = kind(tiny_body()), kind(tiny_body(), reduction="none")
        total = kind(tiny_body(), reduction="sum")
        assert per_item(*images).shape == (4,)
        torch.testing.assert_close(per_item(*images).mean(), mean(*images))
        torch.testing.assert_close(total(*images), 4 * mean(*images))


def test_gradients_reach_the_prediction_alone(images):
    pred, targ = images[0].requires_grad_(), images[1].requires_grad_()
    FeatureLoss(tiny_body(), pixel_loss=nn.L1Loss(), style_weight=1.0)(pred, targ.detach()).backward()
    assert pred.grad is not None and pred.grad.abs().sum() > 0 and targ.grad is None


def test_check_wants_images_of_one_shape():
    loss = FeatureLoss(tiny_body())
    with pytest.raises(ValueError, match="images"):
        loss.check(torch.rand(2, 5), torch.rand(2, 5))
    with pytest.raises(ValueError, match="target's size"):
        loss.check(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16))
    with pytest.raises(TypeError, match="reduction"):
        FeatureLoss(tiny_body(), pixel_loss=lambda pred, targ: 0)


# ---- with a learner


def test_a_learner_trains_with_it_and_tells_its_terms(images):
    loss = FeatureLoss(tiny_body(), weights=[1, 0.5], style_weight=10.0)
    blurred = F.avg_pool2d(images[1], 3, 1, 1)
    batches = [(blurred, images[1])]
    model = nn.Conv2d(3, 3, 3, padding=1)
    learn = Learner(DataBunch(batches * 8, batches), model, loss, lr=0.03, metrics=loss.metrics)
    assert len([*learn.model.parameters()]) == 2  # the body's are not among them
    before = learn.validate()
    with learn.no_bar(), learn.no_logging():
        learn.fit(6)
    after = learn.validate()
    names = ["pixel", "feature_0", "feature_1", "style_0", "style_1"]
    assert [*after] == ["valid_loss", *names]
    assert after["valid_loss"] == pytest.approx(sum(after[name] for name in names), rel=1e-5)
    assert after["valid_loss"] < 0.5 * before["valid_loss"] and after["feature_0"] < before["feature_0"]


def test_a_description_leaves_the_body_out():
    loss = FeatureLoss(tiny_body(), weights=[1, 2], pixel_loss=MSELoss(), style_weight=5.0)
    back = restore(describe(loss))
    assert (back.weights, back.style_weight, back.pixel_loss) == ([1, 2], 5.0, MSELoss())
    assert torch.equal(back.decodes(torch.ones(2)), torch.ones(2))
    with pytest.raises(RuntimeError, match="exported file"):
        back(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
    assert isinstance(FeatureLoss(tiny_body()).pixel_loss, L1Loss)
