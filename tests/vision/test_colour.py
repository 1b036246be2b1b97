import json

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from warmstart.data.portable import describe, restore
from warmstart.data.randomness import Randomness
from warmstart.vision.augment import aug_transforms
from warmstart.vision.colour import LUMA, Colour, colour_matrix, recolour


def of_items(*items: int) -> Randomness:
    return Randomness(seed=1, epoch=0, items=items)


def photos(n: int = 2) -> Tensor:
    return torch.rand(n, 3, 8, 9, generator=torch.Generator().manual_seed(0))


def changed(images: Tensor, saturation: float = 1, hue: float = 0) -> Tensor:
    n = len(images)
    return recolour(images, colour_matrix(torch.full((n,), saturation).double(), torch.full((n,), hue).double()))


def luma(images: Tensor) -> Tensor:
    return (images * torch.tensor(LUMA)[:, None, None]).sum(1)


@pytest.mark.parametrize("factor", [0, 0.5, 1, 1.4])
def test_saturation_is_torchvisions(factor):
    torch.testing.assert_close(changed(photos(), factor), F.adjust_saturation(photos(), factor), rtol=0, atol=2e-3)


def test_a_turn_of_hue_keeps_luma_and_grey():
    pale = photos() * 0.2 + 0.4  # far from the limits, which would clip colours
    for turn in (0.1, -0.3, 0.5):
        assert (changed(pale, hue=turn) - pale).abs().max() > 0.05
        torch.testing.assert_close(luma(changed(pale, hue=turn)), luma(pale), rtol=0, atol=2e-3)
    grey = pale[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(changed(grey, hue=0.3), grey, rtol=0, atol=2e-3)


def test_turns_of_hue_add_up_to_a_whole_circle():
    pale = photos() * 0.2 + 0.4
    torch.testing.assert_close(changed(changed(pale, hue=0.2), hue=-0.2), pale, rtol=0, atol=1e-5)
    torch.testing.assert_close(changed(pale, hue=1), pale, rtol=0, atol=1e-5)


def test_hue_turns_in_the_direction_of_torchvisions():
    pale = torch.tensor([0.55, 0.45, 0.45])[None, :, None, None].expand(1, 3, 2, 2)
    theirs, ours = F.adjust_hue(pale, 1 / 3), changed(pale, hue=1 / 3)
    assert theirs[0, :, 0, 0].argmax() == ours[0, :, 0, 0].argmax() == 1  # red becomes green


def test_results_are_clipped():
    result = changed(photos(), 3, 0.4)
    assert result.min() == 0 and result.max() == 1


def test_images_draw_their_own_changes_within_the_limits():
    saturation, hue = Colour(0.2, 0.1).changes(of_items(*range(4000)))
    assert 0.8 <= saturation.min() < 0.81 and 1.24 < saturation.max() <= 1.25
    assert -0.1 <= hue.min() < -0.099 and 0.099 < hue.max() <= 0.1
    assert (saturation != 1).float().mean() == pytest.approx(0.75, abs=0.03)
    assert ((saturation != 1) & (hue != 0)).float().mean() == pytest.approx(0.75**2, abs=0.03)
    alone = Colour(0.2, 0.1).changes(of_items(7))
    assert [change[7] for change in (saturation, hue)] == [change[0] for change in alone]


def test_only_images_of_colours_change_and_only_in_training():
    tfm = Colour(0.5, 0.5, 1, 1)
    image, grey, mask = tv_tensors.Image(photos()), tv_tensors.Image(photos()[:, :1]), tv_tensors.Mask(photos()[:, 0])
    result = tfm((image, grey, mask, 3), of_items(1, 2))
    assert isinstance(result[0], tv_tensors.Image) and not result[0].equal(image)
    assert result[1].equal(grey) and result[2] is mask and result[3] == 3
    assert tfm((image,), None)[0] is image


def test_colour_is_an_option_of_aug_transforms():
    assert not any(isinstance(tfm, Colour) for tfm in aug_transforms())
    *_, colour = aug_transforms(mult=2, max_saturation=0.2, max_hue=0.05, p_lighting=0.5, p_hue=0.1)
    assert colour == Colour(0.4, 0.1, 0.5, 0.1) and restore(json.loads(json.dumps(describe(colour)))) == colour


def test_integer_images_are_refused():
    with pytest.raises(TypeError, match=r"Colour needs float images in \[0, 1\]"):
        Colour(p_hue=1)((tv_tensors.Image(torch.ones(1, 3, 8, 8, dtype=torch.uint8)),), of_items(0))
