"""Random partners and the buffer of made images."""

import pytest
import torch
from PIL import Image
from warmstart.data import DataBlock, IndexSplitter
from warmstart.vision.gan import ImageBlock, ImageBuffer, RandomImage, Resize, get_image_files


@pytest.fixture
def folder(tmp_path):
    """Ten images in `a`, and ten in `b` whose brightness is their number."""
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for number in range(10):
            Image.new("L", (4, 4), number).save(tmp_path / kind / f"{number}.png")
    return tmp_path


def partners(folder, seed=0, num_workers=0):
    block = DataBlock((ImageBlock("L"), ImageBlock("L")), get_items=get_image_files,
                      get_y=RandomImage(folder / "b"), splitter=IndexSplitter([0, 1]), item_tfms=Resize(4))  # fmt: skip
    return block.databunch(folder / "a", bs=8, num_workers=num_workers, device="cpu", seed=seed, shuffle=False)


def numbers(dl):
    return [(y[:, 0, 0, 0] * 255).round().int().tolist() for _, y in dl]


def test_partners_change_with_the_epoch_in_training_and_stay_in_validation(folder):
    data = partners(folder)
    training, validation = [], []
    for epoch in range(3):
        data.train_dl.set_epoch(epoch)
        training.append(numbers(data.train_dl))
        validation.append(numbers(data.valid_dl))
    assert training[0] != training[1] != training[2]
    assert validation[0] == validation[1] == validation[2]


def test_partners_follow_from_the_seed_for_any_number_of_workers(folder):
    assert numbers(partners(folder).train_dl) == numbers(partners(folder, num_workers=2).train_dl)
    assert numbers(partners(folder).train_dl) != numbers(partners(folder, seed=1).train_dl)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no image in {tmp_path}"):
        RandomImage(tmp_path)("any item")


def test_a_buffer_that_is_not_full_shows_what_it_gets():
    images = torch.rand(5, 3, 2, 2)
    assert torch.equal(ImageBuffer(5)(images), images)


def test_half_of_the_images_are_replaced_by_earlier_ones_and_none_is_lost_or_doubled():
    torch.manual_seed(0)
    keep, shown = ImageBuffer(20), []
    given = torch.arange(2020.0)
    for part in given.split(4):
        shown += keep(part).tolist()
    late = shown[20:]
    assert 0.45 < sum(a != b for a, b in zip(late, given.tolist()[20:], strict=True)) / len(late) < 0.55
    assert sorted(shown + [float(image) for image in keep.images]) == sorted([*given.tolist(), *given.tolist()[:20]])


def test_a_buffer_of_none_and_gradients_stay_out():
    images = torch.rand(4, 1, requires_grad=True)
    for buffer in (ImageBuffer(0), ImageBuffer(2)):
        assert torch.equal(buffer(images * 1), images) or buffer.size
        assert not buffer(images * 1).requires_grad


def test_a_buffer_goes_on_from_its_state():
    one = ImageBuffer(3)
    one(torch.arange(3.0)[:, None])
    other = ImageBuffer(3)
    other.load_state_dict(one.state_dict())
    torch.manual_seed(1)
    first = one(torch.ones(5, 1))
    torch.manual_seed(1)
    assert torch.equal(first, other(torch.ones(5, 1)))


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match=r"ImageBuffer\(-1\)"):
        ImageBuffer(-1)
