"""Layer groups by block, and rates that fall from one to the next."""

import pytest
from torch import nn
from torchvision.models import resnet18
from warmstart.learner import layer_decay, split_by_block


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 2)


def test_a_transformer_is_split_into_embedding_layers_and_head():
    model = Transformer()
    groups = split_by_block(model)
    assert [len(group) for group in groups] == [1, 12, 12, 12, 4]
    assert groups[0][0] is model.embed.weight and groups[-1][-1] is model.head.bias
    assert [p for group in groups for p in group] == list(model.parameters())


def test_a_residual_network_is_split_into_stem_blocks_and_head():
    model = resnet18()
    groups = split_by_block(model)
    assert len(groups) == 1 + 8 + 1
    assert groups[0][0] is model.conv1.weight and groups[1] == list(model.layer1[0].parameters())
    assert groups[-1] == list(model.fc.parameters())


def test_rates_fall_by_the_same_share_from_group_to_group():
    rates = layer_decay(1e-3, 0.5, 4)
    assert rates == pytest.approx([1.25e-4, 2.5e-4, 5e-4, 1e-3])


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="above 0, at most 1"):
        layer_decay(1e-3, 1.5, 3)
    with pytest.raises(ValueError, match="no blocks to split by"):
        split_by_block(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
