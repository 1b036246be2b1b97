import pytest
import torch
import torchvision
from torch import nn
from warmstart.vision import create_body, efficientnet_lite0
from warmstart.vision.skips import Skip, find_skips

FOUND = {  # where each resolution ends, of an image of 64 pixels
    "resnet34": [("2", 64, 32), ("4", 64, 16), ("5", 128, 8), ("6", 256, 4)],
    "vgg11": [("1", 64, 64), ("4", 128, 32), ("9", 256, 16), ("14", 512, 8), ("19", 512, 4)],
    "mobilenet_v2": [("1", 16, 32), ("3", 24, 16), ("6", 32, 8), ("13", 96, 4)],
    "regnet_y_400mf": [("0", 32, 32), ("1.block1", 48, 16), ("1.block2", 104, 8), ("1.block3", 208, 4)],
    "convnext_tiny": [("1", 96, 16), ("3", 192, 8), ("5", 384, 4)],
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_the_last_map_of_each_resolution_is_found_also_inside_of_stages(name):
    body = create_body(getattr(torchvision.models, name), pretrained=False)
    assert [(skip.path, skip.n_channels, skip.size) for skip in find_skips(body).skips] == FOUND[name]


def test_the_same_network_of_timms_has_its_maps_at_the_same_places():
    pytest.importorskip("timm")
    theirs = find_skips(create_body("efficientnet_lite0", pretrained=False))
    ours = find_skips(create_body(efficientnet_lite0, pretrained=False))
    assert [skip.path for skip in theirs.skips] == [f"blocks.{n}" for n in (0, 1, 2, 4)]
    sizes = [[(skip.n_channels, skip.size) for skip in (*found.skips, found.output)] for found in (ours, theirs)]
    assert sizes[0] == sizes[1] == [(16, 32), (24, 16), (40, 8), (112, 4), (1280, 2)]


def test_maps_with_their_channels_last_are_known_as_such():
    found = find_skips(create_body(torchvision.models.swin_t, pretrained=False))
    assert found.skips == [Skip("0.1", 96, 16, True), Skip("0.3", 192, 8, True), Skip("0.5", 384, 4, True)]
    assert found.output == Skip("", 768, 2)


def test_convolutions_without_padding_make_no_resolution_of_their_own():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3))
    assert find_skips(body).skips == [Skip("1", 5, 60)]


class Shared(nn.Module):
    """Its `relu` runs for two resolutions, its `weigh` pools the whole map, and its `unused` does not run."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(n, n + 1, 3, 2, 1) for n in (3, 4, 5))
        self.relu, self.weigh, self.unused = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        for conv in self.convs:
            x = self.relu(conv(x))
        return x * self.weigh(x)


def test_layers_that_run_often_or_pool_or_do_not_run_are_no_place_to_take_a_map_from():
    found = find_skips(Shared())
    assert found.skips == [Skip("convs.0", 4, 32), Skip("convs.1", 5, 16)]
    assert found.output == Skip("", 6, 8) and found.image_size == 64


def test_a_body_that_keeps_the_size_has_nothing_to_skip():
    assert find_skips(nn.Conv2d(2, 7, 3, padding=1), n_in=2) == (64, [], Skip("", 7, 64))


def test_a_body_without_maps_is_an_error():
    with pytest.raises(ValueError, match=r"body that returns maps \(bs, c, h, w\), and VisionTransformer does not"):
        find_skips(create_body(torchvision.models.vit_b_32, pretrained=False))


def test_looking_changes_nothing():
    body = create_body(torchvision.models.resnet18, pretrained=False).train()
    before = {name: value.clone() for name, value in body.state_dict().items()}
    find_skips(body, size=96)
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    assert body.training and not any(module._forward_hooks for module in body.modules())
