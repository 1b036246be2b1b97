import json

import pytest
import torch
import torchvision
from torch import nn
from warmstart.data import DataBunch
from warmstart.data.portable import describe, restore
from warmstart.vision.models import efficientnet_lite0
from warmstart.vision.vision_model import VisionModel


def through_json(model: VisionModel, custom: dict | None = None) -> VisionModel:
    return restore(json.loads(json.dumps(describe(model))), custom)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def tiny_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def without_pool(network: nn.Module) -> nn.Module:
    return network[0]


DESCRIPTIONS = {
    "torchvision": VisionModel(torchvision.models.resnet18, n_out=3, n_in=4, lin_ftrs=[20, 10], ps=[0.1, 0.2, 0.3]),
    "transformer": VisionModel(torchvision.models.vit_b_32, n_out=3),
    "ours": VisionModel(efficientnet_lite0, n_out=2, concat_pool=False, cut=1, y_range=(0, 9)),
    "custom": VisionModel(tiny_network, n_out=2, cut=without_pool),
}
CUSTOM = {"tiny_network": tiny_network, "without_pool": without_pool}


@pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_in_json_builds_the_same_network(description):
    again = through_json(description, CUSTOM)
    assert again == description
    assert shapes(again.build()) == shapes(description.build())


def test_a_timm_model_is_described_by_its_name():
    pytest.importorskip("timm")
    description = VisionModel("test_vit", n_out=3)
    assert shapes(through_json(description).build()) == shapes(description.build())


def test_the_model_is_a_body_and_a_head_for_its_channels():
    model = VisionModel(torchvision.models.resnet18, n_out=3, n_in=1).build()
    assert len(model) == 2
    assert model(torch.randn(2, 1, 64, 64)).shape == (2, 3)


def test_building_uses_no_random_numbers_but_for_weights():
    description = VisionModel(torchvision.models.resnet18, n_out=3)
    torch.manual_seed(0)
    first = description.build().state_dict()
    torch.manual_seed(0)
    second = description.build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_users_own_functions_are_asked_for_by_name():
    with pytest.raises(KeyError, match="tiny_network"):
        through_json(DESCRIPTIONS["custom"])


def test_data_is_prepared_with_the_normalisation_that_the_weights_were_trained_with():
    spec = VisionModel(torchvision.models.resnet18, n_out=2, normalisation=((0.5,) * 3, (0.25,) * 3))
    plain = DataBunch([(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))])
    assert spec.prepare(plain) is plain  # loaders without blocks say nothing of images
