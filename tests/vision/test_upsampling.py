import pytest
import torch
from torch import nn
from torch.nn import functional as F
from warmstart.vision.upsampling import icnr_, pixel_shuffle_icnr, resized_to


@pytest.mark.parametrize("scale", [2, 3])
def test_at_the_start_pixels_are_repeated_so_that_there_is_no_checkerboard(scale):
    torch.manual_seed(0)
    layer, x = pixel_shuffle_icnr(6, 4, scale), torch.randn(2, 6, 5, 7)
    conv = nn.Conv2d(6, 4, 1)
    with torch.no_grad():
        conv.weight.copy_(layer[0].weight[:: scale**2])
        nn.init.zeros_(conv.bias)
    assert layer(x).allclose(F.interpolate(conv(x).relu(), scale_factor=scale, mode="nearest"), atol=1e-6)


def test_blur_makes_each_pixel_the_mean_of_the_square_that_it_ends():
    torch.manual_seed(0)
    blurred, x = pixel_shuffle_icnr(4, 3, blur=True), torch.randn(1, 4, 4, 5)
    nn.init.normal_(blurred[0].weight)
    plain = blurred[:3](x)
    assert blurred(x).shape == plain.shape == (1, 3, 8, 10)
    assert blurred(x)[..., 3, 4].allclose(plain[..., 2:4, 3:5].mean((-2, -1)), atol=1e-6)


def test_channels_that_make_no_squares_are_an_error():
    with pytest.raises(ValueError, match="6 channels do not make squares of 2 × 2"):
        icnr_(torch.empty(6, 3, 1, 1))


def test_a_map_is_resized_to_another_one_and_left_alone_where_it_fits():
    x = torch.rand(1, 2, 8, 8)
    assert resized_to(x, torch.empty(1, 5, 8, 8)) is x
    assert resized_to(x, torch.empty(1, 5, 7, 9)).shape == (1, 2, 7, 9)
