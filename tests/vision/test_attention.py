import torch
from warmstart.vision.attention import SelfAttention


def test_a_network_begins_as_it_is_without():
    x = torch.randn(2, 16, 4, 6)
    assert SelfAttention(16)(x).equal(x)


def test_each_place_adds_what_it_sees_at_the_others():
    torch.manual_seed(0)
    layer, x = SelfAttention(16), torch.randn(2, 16, 3, 5)
    torch.nn.init.constant_(layer.gamma, 0.5)
    query, key, value = layer.query_key_value(x).flatten(2).split([2, 2, 16], dim=1)
    weights = (query.transpose(1, 2) @ key / 2**0.5).softmax(-1)  # (bs, places that look, places looked at)
    assert layer(x).allclose(x + 0.5 * (value @ weights.transpose(1, 2)).view(x.shape), atol=1e-5)


def test_places_have_no_order():
    torch.manual_seed(0)
    layer, x = SelfAttention(8), torch.randn(1, 8, 4, 4)
    torch.nn.init.ones_(layer.gamma)
    assert layer(x.flip(-1)).allclose(layer(x).flip(-1), atol=1e-5)
