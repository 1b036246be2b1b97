import pytest
import torch
from torch import nn
from warmstart.vision.head import AdaptiveConcatPool2d, create_head


def layers_of(head: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in head]


def linear_sizes(head: nn.Sequential) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in head if isinstance(layer, nn.Linear)]


def dropouts(head: nn.Sequential) -> list[float]:
    return [layer.p for layer in head if isinstance(layer, nn.Dropout)]


def test_the_default_head_is_that_of_fastai():
    head = create_head(512, 10)
    block = ["BatchNorm1d", "Dropout", "Linear"]
    assert layers_of(head) == ["AdaptiveConcatPool2d", "Flatten", *block, "ReLU", *block]
    assert linear_sizes(head) == [(1024, 512), (512, 10)]
    assert dropouts(head) == [0.25, 0.5]


def test_it_takes_a_map_of_any_size():
    head = create_head(8, 3)
    assert head(torch.randn(4, 8, 7, 5)).shape == (4, 3)
    assert head(torch.randn(4, 8, 1, 1)).shape == (4, 3)


def test_concat_pool_gives_the_maximum_then_the_average():
    features = torch.randn(2, 3, 4, 4)
    expected = torch.cat([features.amax((2, 3)), features.mean((2, 3))], dim=1)
    torch.testing.assert_close(AdaptiveConcatPool2d()(features).flatten(1), expected)


def test_without_concat_pool_the_map_is_averaged():
    head = create_head(8, 3, concat_pool=False)
    assert layers_of(head)[:2] == ["AdaptiveAvgPool2d", "Flatten"]
    assert linear_sizes(head)[0] == (8, 512)


def test_features_without_a_map_need_no_pooling():
    head = create_head(8, 3, pool=False)
    assert linear_sizes(head)[0] == (8, 512)
    assert head(torch.randn(4, 8)).shape == (4, 3)


def test_hidden_sizes_make_as_many_layers():
    assert linear_sizes(create_head(8, 3, lin_ftrs=[20, 10])) == [(16, 20), (20, 10), (10, 3)]
    assert linear_sizes(create_head(8, 3, lin_ftrs=[])) == [(16, 3)]


def test_dropout_is_halved_before_hidden_layers_or_given_for_each():
    assert dropouts(create_head(8, 3, lin_ftrs=[20, 10], ps=0.4)) == [0.2, 0.2, 0.4]
    assert dropouts(create_head(8, 3, lin_ftrs=[20], ps=[0.1, 0.7])) == [0.1, 0.7]


def test_weights_start_as_he_et_al_propose():
    first = next(layer for layer in create_head(512, 10) if isinstance(layer, nn.Linear))
    assert first.weight.std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.02)
    assert not first.bias.any()


@pytest.mark.parametrize("ps", [[0.5], [0.1, 0.2, 0.3], 1.5, -0.1])
def test_wrong_dropout_is_an_error_that_says_how_many_are_needed(ps):
    with pytest.raises(ValueError, match="a list of 2 for 1 hidden layers and the last"):
        create_head(8, 3, ps=ps)


@pytest.mark.parametrize("sizes", [dict(nf=0, n_out=3), dict(nf=8, n_out=0), dict(nf=8, n_out=3, lin_ftrs=[0])])
def test_sizes_below_one_are_an_error(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        create_head(**sizes)


def test_outputs_are_within_y_range_and_begin_in_its_middle():
    torch.manual_seed(0)
    head = create_head(8, 3, y_range=(-1, 3)).eval()
    outputs = head(1000 * torch.randn(64, 8, 4, 4))  # so that some are far out on either side
    assert -1 <= outputs.min() < -0.9 and 2.9 < outputs.max() <= 3
    assert (head(torch.zeros(1, 8, 4, 4)) == 1).all()


@pytest.mark.parametrize("y_range", [(1, 0), (1, 1), (1,), (float("nan"), 1)])
def test_a_range_goes_from_the_lowest_to_the_highest_output(y_range):
    with pytest.raises(ValueError, match="y_range is the lowest and the highest output"):
        create_head(8, 3, y_range=y_range)
