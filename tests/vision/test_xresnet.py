import pytest
import torch
from torch import nn
from warmstart.vision import (
    DynamicUnet,
    create_body,
    models,
    xresnet18,
    xresnet34,
    xresnet50,
    xresnet101,
    xresnet152,
)
from warmstart.vision.parameter_groups import split_body
from warmstart.vision.skips import find_skips

ALL = [xresnet18, xresnet34, xresnet50, xresnet101, xresnet152]


def n_weights(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("arch", "theirs"), [(xresnet18, "resnet18"), (xresnet50, "resnet50")])
def test_the_stages_have_the_weights_of_a_resnet_of_that_depth(arch, theirs):
    import torchvision

    with torch.device("meta"):
        ours, plain = arch(), getattr(torchvision.models, theirs)()
    for name in ("layer1", "layer2", "layer3", "layer4", "fc"):
        assert n_weights(ours.get_submodule(name)) == n_weights(plain.get_submodule(name)), name
    assert n_weights(ours.stem) == 27 * 32 + 288 * 32 + 288 * 64 + 2 * (32 + 32 + 64)


@pytest.mark.parametrize(("arch", "depth"), list(zip(ALL, (18, 34, 50, 101, 152), strict=True)))
def test_a_name_counts_the_layers_of_the_resnet_that_it_is_made_from(arch, depth):
    with torch.device("meta"):
        model = arch()
    convs = [
        m for block in list(model)[2:6] for part in block for m in part.convs.modules() if isinstance(m, nn.Conv2d)
    ]
    assert len(convs) + 2 == depth


def test_it_classifies_images_of_any_size_and_channels():
    assert xresnet18(n_classes=7, n_in=1)(torch.randn(2, 1, 65, 50)).shape == (2, 7)


def test_each_block_begins_as_its_shortcut():
    torch.manual_seed(0)
    block = xresnet18().layer2[0].eval()
    x = torch.randn(2, 64, 9, 9)
    assert block(x).equal(block.shortcut(x).relu()) and block(x).shape == (2, 128, 5, 5)
    assert isinstance(block.shortcut[0], nn.AvgPool2d)


def test_a_bottleneck_has_its_stride_in_the_middle():
    with torch.device("meta"):
        convs = [m for m in xresnet50().layer2[0].convs.modules() if isinstance(m, nn.Conv2d)]
    assert [(conv.kernel_size[0], conv.stride[0]) for conv in convs] == [(1, 1), (3, 2), (1, 1)]


def test_activation_and_self_attention_are_options():
    with torch.device("meta"):
        model = xresnet18(act=nn.Mish, sa=True)
    kinds = [type(m).__name__ for m in model.modules()]
    assert "ReLU" not in kinds and kinds.count("Mish") == 3 + 8 * 2
    attention = [name for name, m in model.named_modules() if type(m).__name__ == "SelfAttention"]
    assert attention == ["layer1.1.convs.2"]


def test_there_are_no_pretrained_weights():
    with pytest.raises(ValueError, match="no pretrained weights of xresnet34: pass pretrained=False"):
        xresnet34(pretrained=True)


def test_a_body_is_halved_after_its_second_stage_and_has_a_map_for_each_resolution():
    body = create_body(xresnet18, pretrained=False, n_in=1)
    first = split_body(body)[1][0]
    assert next(name for name, p in body.named_parameters() if p is first).startswith("4.")  # layer3
    assert [(s.path, s.n_channels, s.size) for s in find_skips(body, n_in=1).skips] == [
        ("0", 64, 32), ("2", 64, 16), ("3", 128, 8), ("4", 256, 4)
    ]  # fmt: skip
    assert DynamicUnet(body, 2, n_in=1)(torch.randn(2, 1, 33, 40)).shape == (2, 2, 33, 40)


def test_it_is_one_of_the_librarys_architectures():
    assert {arch.__name__ for arch in ALL} <= set(models.__all__)
