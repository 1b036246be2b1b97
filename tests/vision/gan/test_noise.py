"""Noise is a value of an item: the same for the same seed, epoch and item, whoever reads it."""

import pytest
import torch
from PIL import Image
from warmstart.data import DataBlock, IndexSplitter
from warmstart.data.dataset import Draw
from warmstart.data.portable import describe, restore
from warmstart.vision.gan import ImageBlock, NoiseBlock, Resize


@pytest.fixture
def files(tmp_path):
    for i in range(10):
        Image.new("L", (8, 8), 20 * i).save(tmp_path / f"{i}.png")
    return sorted(tmp_path.glob("*.png"))


def bunch(items, **options):
    block = DataBlock((NoiseBlock(5), ImageBlock("L")), splitter=IndexSplitter([8, 9]), item_tfms=Resize(8))
    return block.databunch(items, **{"bs": 4, "num_workers": 0, "device": "cpu", "seed": 3, **options})


def epoch_of(data, epoch=0):
    data.train_dl.set_epoch(epoch)
    return torch.cat([noise for noise, _ in data.train_dl])


def test_an_image_needs_no_getters_beside_noise(files):
    noise, image = bunch(files).one_batch()
    assert noise.shape == (4, 5) and image.shape == (4, 1, 8, 8)
    assert bunch(files).train_ds[3][1].unique().item() == 60


def test_it_follows_from_seed_epoch_and_item(files):
    data = bunch(files)
    first, second = epoch_of(data, 0), epoch_of(data, 1)
    torch.testing.assert_close(epoch_of(data, 0), first, rtol=0, atol=0)
    assert not torch.isin(first, second).any()
    assert not torch.isin(first, epoch_of(bunch(files, seed=4))).any()
    assert len(first.unique()) == first.numel()
    ds = data.train_ds
    torch.testing.assert_close(ds[Draw(5, 2)][0], ds.__getitems__([Draw(1, 2), Draw(5, 2)])[1][1][0])


def test_workers_and_a_cache_change_nothing(files):
    torch.testing.assert_close(epoch_of(bunch(files, num_workers=2)), epoch_of(bunch(files)), rtol=0, atol=0)
    cached = bunch(files, cache="memory")
    for epoch in (0, 1, 0):
        torch.testing.assert_close(epoch_of(cached, epoch), epoch_of(bunch(files), epoch), rtol=0, atol=0)


def test_validation_has_the_same_noise_in_each_epoch(files):
    data = bunch(files)
    first = next(iter(data.valid_dl))[0]
    epoch_of(data, 1)
    torch.testing.assert_close(next(iter(data.valid_dl))[0], first, rtol=0, atol=0)


def test_it_is_standard_normal():
    noise = NoiseBlock(50).noise(400)
    assert noise.mean().abs() < 0.02 and abs(noise.std() - 1) < 0.02


def test_noise_of_a_seed_does_not_depend_on_how_much_is_asked_for():
    block = NoiseBlock(5)
    torch.testing.assert_close(block.noise(9, seed=2)[:4], block.noise(4, seed=2), rtol=0, atol=0)
    assert not torch.isin(block.noise(4, seed=1), block.noise(4, seed=2)).any()


def test_it_travels_in_a_description():
    assert restore(describe(NoiseBlock(7))) == NoiseBlock(7)


def test_no_numbers_are_no_noise():
    with pytest.raises(ValueError, match="at least 1"):
        NoiseBlock(0)


def test_two_images_still_need_getters(files):
    with pytest.raises(ValueError, match="no get_y"):
        DataBlock((ImageBlock, ImageBlock)).databunch(files)
