import pytest
import torchvision
from torch import nn
from warmstart.vision.body import create_body
from warmstart.vision.head import create_head
from warmstart.vision.parameter_groups import split_body, split_model


def first_of_second_half(body: nn.Module) -> str:
    parameter = split_body(body)[1][0]
    return next(name for name, p in body.named_parameters() if p is parameter)


@pytest.mark.parametrize("name, child", [("resnet18", 6), ("resnet34", 6), ("resnet101", 6), ("vgg16_bn", 24)])
def test_a_body_is_halved_where_fastai_halves_it(name, child):
    body = create_body(getattr(torchvision.models, name), pretrained=False)
    assert first_of_second_half(body).startswith(f"{child}.")  # child 6 of a ResNet is its layer3


def test_a_transformer_is_halved_between_its_blocks():
    body = create_body(torchvision.models.vit_b_32, pretrained=False)
    assert first_of_second_half(body).startswith("encoder.layers.encoder_layer_6.")
    assert any(body.class_token is p for p in split_body(body)[0])


def test_a_norm_stays_with_its_layer():
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    assert first_of_second_half(body) == "2.weight"


def test_a_model_has_early_layers_late_layers_and_head():
    model = nn.Sequential(create_body(torchvision.models.resnet18, pretrained=False), create_head(512, 2))
    early, late, head = split_model(model)
    assert [id(p) for p in head] == [id(p) for p in model[1].parameters()]
    assert sorted(map(id, early + late + head)) == sorted(map(id, model.parameters()))


def test_a_shared_parameter_is_in_one_group():
    body = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    head = nn.Linear(4, 4)
    head.weight = body[0].weight = body[1].weight
    groups = split_model(nn.Sequential(body, head))
    assert len([p for group in groups for p in group]) == len(list(nn.Sequential(body, head).parameters())) == 4


def test_a_body_of_one_layer_is_one_group():
    assert [len(group) for group in split_model(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 2)))] == [2, 2]


def test_a_model_that_is_not_body_and_head_is_an_error():
    with pytest.raises(ValueError, match="pass splitter="):
        split_model(nn.Linear(4, 2))
