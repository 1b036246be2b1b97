"""Points and boxes land where the pixels that they are about land."""

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from warmstart.data.randomness import Randomness
from warmstart.vision import (
    CropPad,
    FlipItem,
    Normalize,
    RandomErasing,
    RandomResizedCrop,
    RatioResize,
    Resize,
    aug_transforms,
    imagenet_stats,
)
from warmstart.vision.augment import Geometry
from warmstart.vision.boxes import BlankLabels
from warmstart.vision.positions import as_boxes, as_points, clipped, is_empty, mapped, to_pixels, to_relative
from warmstart.vision.targets import SetCanvas, ToRelative

POINT = (53.0, 37.0)
HEIGHT, WIDTH = 100, 128

ITEM_TFMS = [
    Resize(64),
    Resize((64, 80), "pad", "zeros"),
    Resize((60, 90), "squish"),
    RandomResizedCrop(72, min_scale=0.7),
    CropPad((90, 140)),
    RatioResize(80),
    FlipItem(p=1),
]
BATCH_TFMS = [
    Geometry(max_rotate=25, max_warp=0.3, max_zoom=1.2),
    Geometry(size=(80, 70), flip_vert=True, pad_mode="zeros"),
    Geometry(size=140, min_scale=0.6, p_affine=0),
    Geometry(do_flip=False, max_rotate=45, p_affine=1, pad_mode="zeros"),
]


def of_items(*items: int) -> Randomness:
    return Randomness(seed=2, epoch=0, items=items)


def centres() -> tuple[Tensor, Tensor]:
    """x and y of the middles of all pixels."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    return x, y


def dot() -> Tensor:
    """A soft dot at POINT, `(1, h, w)` in [0, 1]."""
    x, y = centres()
    return (-((x - POINT[0]) ** 2 + (y - POINT[1]) ** 2) / 18).exp()[None]


def place_of_dot(image: Tensor) -> Tensor:
    """x and y of the middle of what is bright."""
    weight = image.as_subclass(Tensor).double()
    weight = (weight - weight.max() / 4).clamp(min=0)[0]
    y, x = torch.arange(weight.shape[0]) + 0.5, torch.arange(weight.shape[1]) + 0.5
    return torch.stack([(weight.sum(0) * x).sum(), (weight.sum(1) * y).sum()]) / weight.sum()


def place_of_box(image: Tensor) -> Tensor:
    """The box around what is bright, to about half a pixel."""
    bright = image.as_subclass(Tensor)[0] > 0.5
    rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


def to_bytes(image: Tensor) -> tv_tensors.Image:
    return tv_tensors.Image((image * 255).round().to(torch.uint8))


# ---- the items


@pytest.mark.parametrize("tfm", ITEM_TFMS, ids=repr)
@pytest.mark.parametrize("item", [None, 1, 2, 3])
def test_points_and_masks_move_with_their_image(tfm, item):
    mask = tv_tensors.Mask((dot()[0] > 0.5).to(torch.uint8))
    points = as_points(torch.tensor([POINT]), (HEIGHT, WIDTH))
    image, mask, points = tfm((to_bytes(dot()), mask, points), None if item is None else of_items(item))
    assert points.canvas_size == tuple(image.shape[-2:]) == tuple(mask.shape)
    found = place_of_dot(image)
    assert (points.as_subclass(Tensor)[0] - found).abs().max() < 0.3
    assert (place_of_dot(mask[None].float()) - found).abs().max() < 0.5


@pytest.mark.parametrize("tfm", ITEM_TFMS, ids=repr)
@pytest.mark.parametrize("item", [None, 1, 2, 3])
def test_boxes_move_with_their_image(tfm, item):
    box = torch.tensor([[40.0, 25.0, 80.0, 60.0]])
    x, y = centres()
    inside = ((x > 40) & (x < 80) & (y > 25) & (y < 60)).float()[None]
    image, boxes = tfm((to_bytes(inside), as_boxes(box, (HEIGHT, WIDTH))), None if item is None else of_items(item))
    assert boxes.canvas_size == tuple(image.shape[-2:])
    assert (boxes.as_subclass(Tensor)[0] - place_of_box(image.float() / 255)).abs().max() <= 0.75


# ---- the batch


@pytest.mark.parametrize("tfm", BATCH_TFMS, ids=repr)
def test_points_land_where_their_pixels_land_in_a_batch(tfm):
    items = of_items(*range(12))
    images = tv_tensors.Image(dot().expand(12, 1, HEIGHT, WIDTH))
    points = as_points(torch.tensor([POINT]).expand(12, 1, 2), (HEIGHT, WIDTH))
    images, points = tfm((images, points), items)
    assert points.canvas_size == tuple(images.shape[-2:]) and isinstance(points, tv_tensors.KeyPoints)
    height, width = images.shape[-2:]
    n_seen = 0
    for image, (point,) in zip(images, points.as_subclass(Tensor), strict=True):
        if 12 < point[0] < width - 12 and 12 < point[1] < height - 12:  # the whole dot is seen
            assert (place_of_dot(image) - point).abs().max() < 0.5
            n_seen += 1
    assert n_seen >= 6


@pytest.mark.parametrize("tfm", BATCH_TFMS, ids=repr)
def test_boxes_become_those_around_their_corners(tfm):
    box = torch.tensor([[40.0, 25.0, 80.0, 60.0]])
    x, y = centres()
    inside = ((x > 40) & (x < 80) & (y > 25) & (y < 60)).float().expand(12, 1, HEIGHT, WIDTH)
    images, boxes = tfm(
        (tv_tensors.Image(inside), as_boxes(box.expand(12, 1, 4), (HEIGHT, WIDTH))), of_items(*range(12))
    )
    assert isinstance(boxes, tv_tensors.BoundingBoxes) and boxes.canvas_size == tuple(images.shape[-2:])
    for image, (found,) in zip(images, boxes.as_subclass(Tensor), strict=True):
        if image.as_subclass(Tensor)[0, [0, -1]].max() < 0.5 and image.as_subclass(Tensor)[0, :, [0, -1]].max() < 0.5:
            assert (found - place_of_box(image)).abs().max() <= 1  # a corner's tip is darker than half


def test_validation_of_a_batch_only_scales():
    points, boxes = torch.tensor([[POINT]]), torch.tensor([[[40.0, 25.0, 80.0, 60.0]]])
    sample = tv_tensors.Image(dot()[None]), as_points(points, (HEIGHT, WIDTH)), as_boxes(boxes, (HEIGHT, WIDTH))
    image, moved, box = Geometry(size=(50, 256))(sample, None)
    assert moved.tolist() == [[[106, 18.5]]] and box.tolist() == [[[80, 12.5, 160, 30]]]
    assert moved.canvas_size == box.canvas_size == (50, 256)
    assert (place_of_dot(image[0]) - moved.as_subclass(Tensor)[0, 0]).abs().max() < 0.3


def test_points_stay_outside_and_boxes_end_at_the_edge():
    geometry = Geometry(do_flip=False, p_affine=1, max_rotate=0, max_warp=0, min_zoom=4, max_zoom=4)
    points = as_points(torch.tensor([[[0.0, 0], [100, 100]]]).expand(20, 2, 2), (100, 100))
    boxes = as_boxes(torch.tensor([[[0.0, 0, 50, 50]]]).expand(20, 1, 4), (100, 100))
    images = tv_tensors.Image(torch.zeros(20, 1, 100, 100))
    _, points, boxes = geometry((images, points, boxes), of_items(*range(20)))
    far = points.as_subclass(Tensor)
    torch.testing.assert_close(far[:, 1] - far[:, 0], torch.full((20, 2), 400.0))
    assert (far < -50).any() and boxes.min() >= 0 and boxes.max() <= 100
    expected = torch.cat([far[:, 0], far[:, 0] + 200], -1).clamp(0, 100)
    torch.testing.assert_close(boxes.as_subclass(Tensor)[:, 0], expected, rtol=0, atol=1e-3)


def test_light_and_erasing_leave_targets_alone():
    targets = as_points(torch.ones(2, 1, 2), (8, 8)), as_boxes(torch.ones(2, 1, 4), (8, 8))
    targets += (tv_tensors.Mask(torch.ones(2, 8, 8).long()), torch.tensor([1, 2]))
    sample = (tv_tensors.Image(torch.rand(2, 3, 8, 8)), *targets)
    tfms = aug_transforms(max_saturation=0.5, max_hue=0.2)[1:]
    for tfm in (*tfms, RandomErasing(p=1), Normalize.from_stats(*imagenet_stats)):
        assert all(new is old for new, old in zip(tfm(sample, of_items(1, 2))[1:], targets, strict=True))


def test_images_without_boxes_or_points_pass():
    sample = (
        tv_tensors.Image(torch.rand(2, 3, 8, 8)),
        as_boxes(torch.zeros(2, 0, 4), (8, 8)),
        as_points(torch.zeros(2, 0, 2), (8, 8)),
    )
    for rand in (None, of_items(1, 2)):
        _, boxes, points = Geometry(size=6)(sample, rand)
        assert boxes.shape == (2, 0, 4) and points.shape == (2, 0, 2)


def test_nothing_reads_points_and_boxes_from_the_device():
    images = tv_tensors.Image(torch.rand(2, 3, 64, 64, device="meta"))
    points = as_points(torch.rand(2, 5, 2, device="meta"), (64, 64))
    boxes = as_boxes(torch.rand(2, 5, 4, device="meta"), (64, 64))
    _, points, boxes = aug_transforms(size=32)[0]((images, points, boxes), of_items(1, 2))
    assert points.shape == (2, 5, 2) and boxes.shape == (2, 5, 4) and boxes.device.type == "meta"


# ---- the arithmetic


def test_the_edges_of_an_image_are_minus_one_and_one():
    places = torch.tensor([[0.0, 0], [20, 10], [10, 5], [30, -5]])
    assert to_relative(places, (10, 20)).tolist() == [[-1, -1], [1, 1], [0, 0], [2, -2]]
    assert to_pixels(to_relative(places, (10, 20)), (10, 20)).equal(places)
    assert to_relative(torch.tensor([[0.0, 0, 10, 10]]), (10, 20)).tolist() == [[-1, -1, 0, 1]]


def test_boxes_in_other_formats_are_read():
    box = tv_tensors.BoundingBoxes([[10.0, 20, 30, 40]], format="XYWH", canvas_size=(100, 100))
    moved = mapped(box, lambda places: places, (100, 100))
    assert moved.tolist() == [[10, 20, 40, 60]] and moved.format == tv_tensors.BoundingBoxFormat.XYXY


def test_clipping_is_torchvisions():
    boxes = torch.rand(50, 4) * 200 - 50
    expected = F.clamp_bounding_boxes(tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(90, 70)))
    assert clipped(boxes, (90, 70)).equal(expected.as_subclass(Tensor))
    assert is_empty(torch.tensor([[1.0, 1, 2, 2], [1, 1, 1, 2], [3, 1, 2, 2]])).tolist() == [False, True, True]


def test_transforms_of_torchvision_know_the_size_of_a_batch():
    points = as_points(torch.tensor([[[1.0, 2.0]]]), (0, 0))
    _, points = SetCanvas()((tv_tensors.Image(torch.zeros(1, 3, 10, 20)), points), None)
    assert points.canvas_size == (10, 20)


def test_what_a_model_sees_is_made_without_reading_from_the_device():
    images = tv_tensors.Image(torch.rand(2, 3, 64, 64, device="meta"))
    points, boxes = (as_points(torch.rand(2, 5, 2, device="meta"), (0, 0)),), torch.rand(2, 5, 4, device="meta")
    sample = (images, *points, as_boxes(boxes, (0, 0)), torch.ones(2, 5, dtype=torch.int64, device="meta"))
    for tfm in (SetCanvas(), ToRelative(), BlankLabels(0)):
        sample = tfm(sample, None)
    assert [value.shape[1:] for value in sample[1:]] == [(5, 2), (5, 4), (5,)]
