import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F
from warmstart.data import DataBlock, EndSplitter, Transform
from warmstart.data.portable import describe, restore
from warmstart.data.randomness import Randomness
from warmstart.vision import CropPad, FlipItem, ImageBlock, MaskBlock, RatioResize
from warmstart.vision.samples import map_type, rewrap


def photo(height: int, width: int) -> tv_tensors.Image:
    generator = torch.Generator().manual_seed(0)
    return tv_tensors.Image(torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator))


def of_item(item: int) -> Randomness:
    return Randomness(seed=1, epoch=0, items=[item])


@pytest.mark.parametrize("size", [(20, 30), (60, 30), (20, 80), (70, 90)])
def test_crop_pad_shows_the_middle_as_torchvisions_center_crop(size):
    (result,) = CropPad(size)((photo(40, 50),), None)
    assert result.equal(F.center_crop(photo(40, 50), list(size)))


def test_crop_pad_fills_up_as_asked():
    (result,) = CropPad((44, 30), "reflection")((photo(40, 50),), of_item(1))
    expected = np.pad(photo(40, 50)[:, :, 10:40], ((0, 0), (2, 2), (0, 0)), "reflect")
    assert result.equal(torch.from_numpy(expected))


@pytest.mark.parametrize("height, width, expected", [(40, 80, (30, 60)), (80, 40, (60, 30)), (10, 10, (60, 60))])
def test_ratio_resize_keeps_the_proportions(height, width, expected):
    image, mask = RatioResize(60)((photo(height, width), tv_tensors.Mask(photo(height, width)[0])), None)
    assert image.equal(F.resize(photo(height, width), list(expected), antialias=True))
    assert tuple(mask.shape) == expected
    nearest = F.resize(photo(height, width)[:1], list(expected), InterpolationMode.NEAREST_EXACT)[0]
    assert mask.equal(nearest)


def test_a_side_is_one_pixel_at_least():
    assert RatioResize(10)((photo(1, 100),), None)[0].shape == (3, 1, 10)


def test_half_of_the_items_are_mirrored_in_training_only():
    image = photo(4, 6)
    mirrored = [FlipItem()((image,), of_item(i))[0].equal(F.horizontal_flip(image)) for i in range(400)]
    assert sum(mirrored) == pytest.approx(200, abs=40)
    assert FlipItem(1)((image,), None)[0] is image and FlipItem(0)((image,), of_item(0))[0] is image


def test_wrong_arguments_are_named_with_what_is_right():
    with pytest.raises(ValueError, match="pad_mode is one of"):
        CropPad(10, "reflect")
    with pytest.raises(ValueError, match="size is an int or"):
        CropPad(0)
    for size in (0, -5, 10.5, (3, 4)):
        with pytest.raises(ValueError, match="max_size is an int above 0"):
            RatioResize(size)
    with pytest.raises(ValueError, match="p is a probability"):
        FlipItem(1.5)


@pytest.mark.parametrize("tfm", [CropPad((4, 5), "border"), RatioResize(7), FlipItem(0.2)])
def test_transforms_travel_as_json(tfm):
    assert restore(json.loads(json.dumps(describe(tfm)))) == tfm


@dataclass
class Darken(Transform):
    """The example of the module."""

    most: float = 0.3

    def __call__(self, sample, rand):
        if rand is None:
            return sample
        factor = 1 - self.most * rand.uniform(1).item()
        return map_type(tv_tensors.Image, lambda image: rewrap((image * factor).to(image.dtype), image), sample)


def test_a_transform_of_ones_own_is_a_dataclass_with_a_call():
    white = Image.new("RGB", (4, 4), (255, 255, 255))
    block = DataBlock((ImageBlock, MaskBlock), splitter=EndSplitter(0.5), item_tfms=[Darken(0.5), CropPad(4)])
    items = [(white, np.full((4, 4), 9, np.uint8))] * 20
    train, valid = block.datasets(items, seed=0)
    brightness = [image.unique().tolist() for image, _ in train]
    assert all(len(values) == 1 and 127 <= values[0] <= 255 for values in brightness)
    assert len({values[0] for values in brightness}) > 5
    assert brightness == [image.unique().tolist() for image, _ in block.datasets(items, seed=0).train]
    assert all((image == 255).all() and (mask == 9).all() for image, mask in valid)
