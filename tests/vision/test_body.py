import copy

import pytest
import torch
import torchvision
from torch import nn
from warmstart.vision.architecture import as_architecture
from warmstart.vision.body import adapt_input, create_body, model_sizes, num_features_model, output_shape
from warmstart.vision.dry_run import dry_run
from warmstart.vision.models import efficientnet_lite0
from warmstart.vision.parameter_groups import split_body

POOL_FC = lambda m, x: m.fc(m.avgpool(x).flatten(1))  # noqa: E731
POOL_CLASSIFIER = lambda m, x: m.classifier(m.avgpool(x).flatten(1))  # noqa: E731
MEAN_CLASSIFIER = lambda m, x: m.classifier(x.mean((2, 3)))  # noqa: E731
CLASSIFIER = lambda m, x: m.classifier(x).flatten(1)  # noqa: E731

# one small member of each of torchvision's families: image size, shape of the body's output, what the network does then
FAMILIES = {
    "alexnet": (64, (256, 1, 1), POOL_CLASSIFIER),
    "convnext_tiny": (64, (768, 2, 2), lambda m, x: m.classifier(m.avgpool(x))),
    "densenet121": (64, (1024, 2, 2), MEAN_CLASSIFIER),
    "efficientnet_b0": (64, (1280, 2, 2), POOL_CLASSIFIER),
    "efficientnet_v2_s": (64, (1280, 2, 2), POOL_CLASSIFIER),
    "googlenet": (64, (1024, 2, 2), POOL_FC),
    "inception_v3": (96, (2048, 1, 1), POOL_FC),
    "maxvit_t": (224, (512, 7, 7), CLASSIFIER),
    "mnasnet0_5": (64, (1280, 2, 2), MEAN_CLASSIFIER),
    "mobilenet_v2": (64, (1280, 2, 2), MEAN_CLASSIFIER),
    "mobilenet_v3_small": (64, (576, 2, 2), POOL_CLASSIFIER),
    "regnet_y_400mf": (64, (440, 2, 2), POOL_FC),
    "resnet18": (64, (512, 2, 2), POOL_FC),
    "shufflenet_v2_x0_5": (64, (1024, 2, 2), lambda m, x: m.fc(x.mean((2, 3)))),
    "squeezenet1_1": (64, (512, 3, 3), CLASSIFIER),
    "swin_t": (64, (768, 2, 2), lambda m, x: m.head(m.avgpool(x).flatten(1))),
    "swin_v2_t": (64, (768, 2, 2), lambda m, x: m.head(m.avgpool(x).flatten(1))),
    "vgg11": (64, (512, 2, 2), POOL_CLASSIFIER),
    "vit_b_32": (224, (768,), lambda m, x: m.heads(x)),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A whole network with random weights, its image size, its features' shape and what follows its body."""
    network = as_architecture(getattr(torchvision.models, request.param)).build(pretrained=False).eval()
    return network, *FAMILIES[request.param]


def body_of(network: nn.Module, n_in: int = 3) -> nn.Module:
    """A body with the weights of `network`."""

    def build():
        return copy.deepcopy(network)

    return create_body(build, pretrained=False, n_in=n_in).eval()


def images_of(n_in: int, size: int) -> torch.Tensor:
    return torch.randn(2, n_in, size, size, generator=torch.Generator().manual_seed(1))


def test_the_families_are_all_that_torchvision_has():
    modules = {torchvision.models.get_model_builder(name).__module__ for name in FAMILIES}
    names = torchvision.models.list_models(module=torchvision.models)
    assert modules == {torchvision.models.get_model_builder(name).__module__ for name in names}


def test_body_and_the_networks_own_classifier_make_the_network(family):
    network, size, shape, rest = family
    body, images = body_of(network), images_of(3, size)
    with torch.no_grad():
        features, logits = body(images), network(images)
        torch.testing.assert_close(rest(network, features), logits)
    assert features.shape == (2, *shape)
    assert not torch.equal(features[0], features[1])


def test_a_grey_image_is_answered_as_its_rgb_copy(family):
    network, size, _, _ = family
    grey = images_of(1, size)
    with torch.no_grad():
        expected = body_of(network)(grey.repeat(1, 3, 1, 1))
        torch.testing.assert_close(body_of(network, n_in=1)(grey), expected, rtol=1e-3, atol=1e-4)


def test_a_fourth_channel_changes_nothing_before_training(family):
    network, size, _, _ = family
    images = images_of(4, size)
    with torch.no_grad():
        torch.testing.assert_close(body_of(network, n_in=4)(images), body_of(network)(images[:, :3]))


def test_each_parameter_of_a_body_is_in_one_of_two_halves(family):
    body = body_of(family[0])
    halves = split_body(body)
    assert sorted(map(id, halves[0] + halves[1])) == sorted(map(id, body.parameters()))
    assert all(halves)


def test_our_own_architecture_is_cut_at_its_features():
    network = efficientnet_lite0().eval()
    images = images_of(3, 64)
    with torch.no_grad():
        torch.testing.assert_close(POOL_CLASSIFIER(network, body_of(network)(images)), network(images))


@pytest.mark.parametrize("name, shape", [("resnet18", (512, 2, 2)), ("swin_s3_tiny_224", (768, 7, 7)),
                                         ("test_vit", (64,)), ("inception_next_atto", (960,))])  # fmt: skip
def test_a_timm_model_gives_a_map_or_a_vector(name, shape):
    pytest.importorskip("timm")
    assert output_shape(create_body(name, pretrained=False)) == shape


def test_every_convolution_that_sees_the_image_of_a_timm_model_is_adapted():
    pytest.importorskip("timm")
    body = create_body("mobileone_s0", pretrained=False, n_in=1)  # two stems side by side
    assert num_features_model(body, n_in=1) == 1024


def test_two_channels_share_the_weight_equally():
    conv = nn.Conv2d(3, 4, 3)
    grey = torch.randn(1, 1, 5, 5)
    expected = conv(grey.repeat(1, 3, 1, 1))
    adapt_input(conv, 2)
    torch.testing.assert_close(conv(grey.repeat(1, 2, 1, 1)), expected)


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = small_network()

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("arch", [small_network, Wrapped])
def test_a_network_of_ones_own_is_cut_where_it_pools(arch):
    assert [type(layer) for layer in create_body(arch, pretrained=False)] == [nn.Conv2d, nn.ReLU]


def test_cut_is_a_number_of_children_or_a_function():
    assert len(create_body(small_network, pretrained=False, cut=1)) == 1
    assert len(create_body(small_network, pretrained=False, cut=-2)) == 3
    assert isinstance(create_body(small_network, pretrained=False, cut=lambda network: network[0]), nn.Conv2d)


@pytest.mark.parametrize("cut", [0, 6, -5, -6])
def test_a_cut_outside_the_network_is_an_error_that_lists_its_children(cut):
    with pytest.raises(ValueError, match=r"5 children: 0 \(Conv2d\)"):
        create_body(small_network, pretrained=False, cut=cut)


def test_a_cut_of_another_type_is_an_error():
    with pytest.raises(TypeError, match="number of children"):
        create_body(small_network, pretrained=False, cut="layer4")


def test_a_network_without_a_classifier_is_an_error_that_says_to_pass_cut():
    with pytest.raises(ValueError, match="Pass cut="):
        create_body(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), pretrained=False)


def test_a_network_without_convolutions_cannot_take_other_channels():
    network = lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2))  # noqa: E731
    with pytest.raises(ValueError, match="pass n_in=3"):
        create_body(network, pretrained=False, cut=1, n_in=4)


def test_a_body_that_returns_tokens_is_an_error():
    with pytest.raises(ValueError, match=r"returned \(1, 8, 3844\)"):
        output_shape(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2)))


def test_num_features_model_leaves_the_modes_and_statistics_as_they_were():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()).train()
    body[1].eval()
    before = copy.deepcopy(body.state_dict())
    assert num_features_model(body) == 8
    assert body.training and not body[1].training
    assert all(torch.equal(a, b) for a, b in zip(before.values(), body.state_dict().values(), strict=True))


def test_a_network_that_accepts_no_image_is_an_error_with_its_own_reason():
    with pytest.raises(ValueError, match="64 or 224 pixels; the last attempt failed with RuntimeError"):
        dry_run(nn.Conv2d(5, 8, 3))


def test_model_sizes_are_the_shapes_that_each_stage_gives():
    body = create_body(torchvision.models.resnet18, pretrained=False)
    sizes = model_sizes(body, 64)
    assert list(sizes.values())[-1] == output_shape(body, size=64) == (512, 2, 2)
    assert (64, 16, 16) in sizes.values() and not body[0]._forward_hooks
