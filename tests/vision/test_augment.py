import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F
from warmstart.data.portable import describe, restore
from warmstart.data.randomness import Randomness
from warmstart.data.transforms import apply_transforms
from warmstart.vision.augment import Geometry, Lighting, aug_transforms
from warmstart.vision.homography import dihedral, perspective, rotation, sampling_grid, warp, zoom
from warmstart.vision.lighting import light
from warmstart.vision.positions import as_points

BILINEAR = InterpolationMode.BILINEAR


def photos(n: int = 1, height: int = 40, width: int = 40, seed: int = 0) -> tv_tensors.Image:
    """Smooth pictures, float `(n, 3, height, width)` in [0, 1]."""
    blurred = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return tv_tensors.Image(torch.nn.functional.interpolate(blurred, (height, width), mode="bicubic").clamp(0, 1))


def of_items(*items: int, epoch: int = 0) -> Randomness:
    return Randomness(seed=1, epoch=epoch, items=items)


def seen(images: Tensor, matrix: np.ndarray, size: tuple[int, int] | None = None) -> Tensor:
    return warp(images.as_subclass(Tensor), torch.from_numpy(matrix), size or images.shape[-2:])


def number(*values: float) -> np.ndarray:
    return np.array(values)


def inner(images: Tensor, margin: int = 8) -> Tensor:
    return images.as_subclass(Tensor)[..., margin:-margin, margin:-margin]


# --- the matrices


def test_way_1_is_a_horizontal_flip():
    images = photos()
    torch.testing.assert_close(seen(images, dihedral(np.array([1]), 1)), F.horizontal_flip(images).as_subclass(Tensor))


@pytest.mark.parametrize("way", range(8))
def test_the_eight_ways_are_fastais(way):
    expected = images = photos().as_subclass(Tensor)
    expected = expected.flip(-1) if way in (1, 3, 4, 7) else expected
    expected = expected.flip(-2) if way in (2, 4, 5, 7) else expected
    expected = expected.transpose(-1, -2) if way in (3, 5, 6, 7) else expected
    torch.testing.assert_close(seen(images, dihedral(np.array([way]), 1)), expected)


@pytest.mark.parametrize("degrees", [10, -25])
@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 64), (64, 40)])
def test_rotation_is_torchvisions_whatever_the_proportions(degrees, height, width):
    images = photos(1, height, width)
    result = seen(images, rotation(number(degrees), width / height))
    torch.testing.assert_close(inner(result, 10), inner(F.rotate(images, degrees, BILINEAR), 10), rtol=0, atol=1e-4)


def test_zoom_keeps_its_place_and_enlarges_around_it():
    images = photos()
    quarter = F.resize(images.as_subclass(Tensor)[..., :20, :20], [40, 40], BILINEAR)
    torch.testing.assert_close(inner(seen(images, zoom(number(2), number(-1), number(-1)))), inner(quarter))
    middle = F.affine(images, angle=0, translate=[0, 0], scale=1.3, shear=[0.0], interpolation=BILINEAR)
    result = seen(images, zoom(number(1.3), number(0), number(0)))
    torch.testing.assert_close(inner(result), inner(middle), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("x", "y"), [(0.2, 0), (0, -0.2), (0.1, 0.15)])
def test_perspective_is_torchvisions_with_the_same_coefficients(x, y):
    images = photos(1, 40, 60)
    to_pixels = np.array([[30, 0, 30], [0, 20, 20], [0, 0, 1]])
    in_pixels = to_pixels @ perspective(number(x), number(y))[0] @ np.linalg.inv(to_pixels)
    coefficients = (in_pixels / in_pixels[2, 2]).flatten()[:8].tolist()
    expected = F.perspective(images, None, None, BILINEAR, coefficients=coefficients)
    torch.testing.assert_close(
        inner(seen(images, perspective(number(x), number(y)))), inner(expected), rtol=0, atol=1e-4
    )


def test_perspective_widens_one_edge_and_narrows_the_other_as_fastais_warp():
    corners_of_result = number(-1.2, -1, 1.2, -1, -0.8, 1, 0.8, 1).reshape(4, 2)
    corners = np.concatenate([corners_of_result, np.ones((4, 1))], 1) @ perspective(number(0), number(0.2))[0].T
    np.testing.assert_allclose(corners[:, :2] / corners[:, 2:], number(-1, -1, 1, -1, -1, 1, 1, 1).reshape(4, 2))


def test_products_of_matrices_are_changes_made_one_after_the_other():
    images, first, second = (
        photos(height=80, width=80),
        rotation(number(20), 1),
        zoom(number(1.2), number(0.5), number(0)),
    )
    result = seen(images, first @ second)
    torch.testing.assert_close(inner(result), inner(seen(seen(images, first), second)), rtol=0, atol=0.02)


@given(st.floats(0.5, 2), st.floats(-180, 180))
def test_rotation_preserves_distances_in_pixels(aspect, degrees):
    stretch = np.diag(number(aspect, 1, 1))
    in_pixels = (stretch @ rotation(number(degrees), aspect)[0] @ np.linalg.inv(stretch))[:2, :2]
    np.testing.assert_allclose(in_pixels @ in_pixels.T, np.eye(2), atol=1e-12)


# --- a batch


def test_the_same_item_looks_the_same_in_any_batch_and_differs_by_epoch():
    images, tfms = photos(3), aug_transforms(size=32, flip_vert=True, min_scale=0.5)
    (together,) = apply_transforms(tfms, (images,), of_items(7, 3, 9))
    (alone,) = apply_transforms(tfms, (tv_tensors.Image(images[1:2]),), of_items(3))
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-6)
    geometry = tfms[0]
    assert geometry.homography(of_items(7, 3, 9), 1.0)[1].equal(geometry.homography(of_items(3), 1.0)[0])
    assert not geometry.homography(of_items(3), 1.0).equal(geometry.homography(of_items(3, epoch=1), 1.0))


def test_the_same_seed_gives_the_same_batch():
    once, again = (apply_transforms(aug_transforms(), (photos(4),), of_items(1, 2, 3, 4))[0] for _ in range(2))
    assert once.equal(again)


def test_batch_gives_all_images_the_change_of_the_first():
    geometry, lighting = aug_transforms(batch=True)
    matrices = geometry.homography(of_items(5, 6, 7), 1.0)
    assert matrices.equal(geometry.homography(of_items(5), 1.0).expand(3, 3, 3))
    assert all(change.unique().numel() == 1 for change in lighting.changes(of_items(5, 6, 7)))


def test_everything_is_one_interpolation(monkeypatch):
    images, calls, sample_once = photos(2), [], torch.nn.functional.grid_sample
    monkeypatch.setattr(torch.nn.functional, "grid_sample", lambda *a, **k: calls.append(a) or sample_once(*a, **k))
    monkeypatch.setattr(torch.nn.functional, "interpolate", lambda *a, **k: pytest.fail("a second interpolation"))
    apply_transforms(aug_transforms(size=32, flip_vert=True, min_scale=0.5), (images,), of_items(1, 2))
    assert sum(len(call[0]) for call in calls) == len(images)


def test_masks_move_with_their_images():
    images = photos(4)
    codes = (images[:, 0] * 10).long()
    coded = tv_tensors.Image(codes[:, None].float() / 10)
    geometry = Geometry(size=48, flip_vert=True, max_rotate=30, mode="nearest")
    image, flat, deep, label = geometry(
        (coded, tv_tensors.Mask(codes), tv_tensors.Mask(codes[:, None].to(torch.uint8)), 5), of_items(1, 2, 3, 4)
    )
    assert (flat.dtype, flat.shape) == (torch.int64, (4, 48, 48)) and isinstance(flat, tv_tensors.Mask)
    assert (deep.dtype, deep.shape) == (torch.uint8, (4, 1, 48, 48))
    assert flat.equal((image[:, 0] * 10).round().long()) and deep[:, 0].equal(flat.to(torch.uint8))
    assert set(flat.unique().tolist()) <= set(codes.unique().tolist())
    assert label == 5


def test_masks_of_smooth_images_take_the_nearest_pixel():
    disk = ((torch.arange(40) - 20) ** 2 + ((torch.arange(40) - 18) ** 2)[:, None] < 100).long()[None]
    image, mask = aug_transforms(max_lighting=0, size=32)[0](
        (tv_tensors.Image(disk[:, None].float()), tv_tensors.Mask(disk)), of_items(2)
    )
    assert ((image[:, 0] > 0.5) == mask).float().mean() > 0.99


def test_other_values_pass_untouched():
    sample = torch.rand(2, 3), {"name": "ant"}
    assert Geometry()(sample, of_items(0, 1)) is sample
    label = torch.tensor([1, 2])
    assert Geometry()((photos(2), label), of_items(0, 1))[1] is label


def test_only_changes_that_are_asked_for_happen():
    assert aug_transforms(mult=0, do_flip=False) == []
    assert aug_transforms(p_affine=0, p_lighting=0, do_flip=False) == []
    sample = (photos(),)
    for still in (Geometry(do_flip=False, p_affine=0), Lighting(0), Lighting(p_lighting=0)):
        assert still(sample, of_items(1)) is sample
    (flips,) = aug_transforms(mult=0)
    results = [flips(sample, of_items(i))[0] for i in range(20)]
    expected = sample[0], F.horizontal_flip(sample[0])
    assert {[torch.allclose(r, e, atol=1e-5) for e in expected].index(True) for r in results} == {0, 1}


def test_mirrors_alone_need_no_interpolation_and_give_the_same(monkeypatch):
    sample = tv_tensors.Image(torch.rand(16, 3, 24, 32)), tv_tensors.Mask(torch.randint(0, 3, (16, 24, 32)))
    (flip,), rand = aug_transforms(p_affine=0, max_lighting=0), Randomness(0, 0, range(16))
    mirrored = flip.homography(rand, 32 / 24)[:, 0, 0] < 0
    monkeypatch.setattr("warmstart.vision.augment.warp", lambda *_: pytest.fail("interpolated"))
    *pixels, points = flip((*sample, as_points(torch.full((16, 1, 2), 3.0), (24, 32))), rand)
    for value, result in zip(sample, pixels, strict=True):
        assert type(result) is type(value) and 0 < mirrored.sum() < 16
        assert torch.equal(result[mirrored], value[mirrored].flip(-1))
        assert torch.equal(result[~mirrored], value[~mirrored])
    assert points[:, 0, 0].tolist() == [29 if way else 3 for way in mirrored] and points.canvas_size == (24, 32)


def test_mult_scales_every_strength():
    geometry, lighting = aug_transforms(mult=2, min_zoom=0.9)
    assert (geometry.max_rotate, geometry.max_warp, lighting.max_lighting) == (20, 0.4, 0.4)
    assert (geometry.min_zoom, geometry.max_zoom) == (pytest.approx(0.8), pytest.approx(1.2))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8), st.floats(0.1, 1))
@settings(max_examples=50)
def test_random_windows_stay_inside_the_image(items, min_scale):
    geometry = Geometry(do_flip=False, p_affine=0, min_scale=min_scale)
    matrices = geometry.homography(of_items(*items), 1.5)
    assert sampling_grid(matrices, (9, 9)).abs().max() <= 1
    areas = matrices[:, 0, 0] * matrices[:, 1, 1]
    assert ((areas >= min_scale - 1e-5) & (areas <= 1 + 1e-5)).all()


def test_half_of_the_images_are_flipped_and_three_quarters_turned():
    items = range(4000)
    flips = Geometry(p_affine=0).homography(of_items(*items), 1.0)[:, 0, 0] < 0
    turns = Geometry(do_flip=False, max_zoom=1, max_warp=0).homography(of_items(*items), 1.0)
    angles = torch.atan2(turns[:, 1, 0], turns[:, 0, 0]) * 180 / math.pi
    assert flips.float().mean() == pytest.approx(0.5, abs=0.03)
    assert (angles != 0).float().mean() == pytest.approx(0.75, abs=0.03)
    assert 9.9 < angles.max() <= 10.001 and -10.001 <= angles.min() < -9.9


def test_upright_images_have_all_eight_ways():
    matrices = Geometry(flip_vert=True, p_affine=0).homography(of_items(*range(500)), 1.0)
    assert len({tuple(m.flatten().tolist()) for m in matrices.round()}) == 8


def test_strong_shrinking_does_not_alias():
    stripes = tv_tensors.Image((torch.arange(256) % 2).float().expand(1, 3, 256, 256))
    (result,) = Geometry(size=64)((stripes,), of_items(3))
    assert (inner(result) - 0.5).abs().max() < 0.05


def test_each_change_may_have_a_probability_of_its_own():
    items = of_items(*range(4000))
    tfms = aug_transforms(p_flip=0.2, p_rotate=0, p_zoom=0.9, p_warp=0, max_zoom=1.5, p_brightness=0.1, p_contrast=0)
    matrices = tfms[0].homography(items, 1.0)
    assert (matrices[:, 0, 0] < 0).float().mean() == pytest.approx(0.2, abs=0.03)
    assert (matrices[:, 1, 1] < 1).float().mean() == pytest.approx(0.9, abs=0.03)
    assert (matrices[:, 1, 0] == 0).all() and (matrices[:, 2, :2] == 0).all()
    contrast, brightness = tfms[1].changes(items)
    assert (contrast == 1).all() and (brightness != 0).float().mean() == pytest.approx(0.1, abs=0.03)


def test_a_change_of_probability_0_is_left_out():
    assert aug_transforms(p_flip=0, p_rotate=0, p_zoom=0, p_warp=0, p_brightness=0, p_contrast=0) == []
    assert len(aug_transforms(p_affine=0, p_flip=0, p_lighting=0, p_warp=0.1, p_contrast=0.1)) == 2
    assert aug_transforms(do_flip=False, p_affine=0, max_lighting=0, max_hue=0.1, p_hue=0) == []


# --- validation


def test_validation_only_resizes():
    images, mask = photos(2, 64, 64), tv_tensors.Mask(torch.randint(0, 9, (2, 64, 64)))
    result, small_mask = apply_transforms(aug_transforms(size=(24, 32)), (images, mask), None)
    torch.testing.assert_close(result, F.resize(images, [24, 32], antialias=True))
    expected = F.resize(mask.as_subclass(Tensor), [24, 32], InterpolationMode.NEAREST_EXACT)
    assert isinstance(small_mask, tv_tensors.Mask) and small_mask.equal(expected)


def test_validation_without_a_size_changes_nothing():
    images = photos(2)
    assert apply_transforms(aug_transforms(), (images,), None)[0] is images


# --- light


def test_contrast_is_torchvisions_for_grey_images():
    images = photos(2)[:, :1] * 0.5 + 0.25
    expected = F.adjust_contrast(images, 1.2)
    torch.testing.assert_close(light(images, torch.full((2,), 1.2), torch.zeros(2)), expected)


def test_brightness_is_added_and_clipped_and_the_images_given_stay():
    images = photos(2)
    result = light(images, torch.ones(2), torch.tensor([0.3, -0.3]))
    torch.testing.assert_close(
        result, (photos(2) + torch.tensor([0.3, -0.3])[:, None, None, None]).clamp(0, 1).as_subclass(Tensor)
    )
    assert images.equal(photos(2)) and result.min() == 0 and result.max() == 1


def test_lighting_is_as_strong_as_fastais_at_mid_grey():
    contrast, brightness = Lighting(0.2, p_lighting=1).changes(of_items(*range(2000)))
    assert 0.8 <= contrast.min() < 0.81 and 1.24 < contrast.max() <= 1.25
    assert -0.1 <= brightness.min() < -0.099 and 0.099 < brightness.max() <= 0.1
    grey = torch.full((2000, 1, 2, 2), 0.5)
    fastai = torch.sigmoid(torch.logit(grey[:, 0, 0, 0]) + torch.logit(0.5 + brightness))
    torch.testing.assert_close(light(grey, torch.ones(2000), brightness)[:, 0, 0, 0], fastai)


def test_each_change_of_light_has_its_own_probability():
    contrast, brightness = Lighting(p_lighting=0.75).changes(of_items(*range(4000)))
    assert (contrast != 1).float().mean() == pytest.approx(0.75, abs=0.03)
    assert ((contrast != 1) & (brightness != 0)).float().mean() == pytest.approx(0.75**2, abs=0.03)


# --- devices, types and mistakes


def test_nothing_reads_from_the_device():
    images, mask = (
        tv_tensors.Image(torch.rand(2, 3, 64, 64, device="meta")),
        tv_tensors.Mask(torch.ones(2, 64, 64, device="meta")),
    )
    result, mask = apply_transforms(aug_transforms(size=32, min_scale=0.5), (images, mask), of_items(1, 2))
    assert result.device.type == "meta" and result.shape == (2, 3, 32, 32) and mask.shape == (2, 32, 32)


def test_types_and_precision_are_kept():
    images = tv_tensors.Image(photos(2).as_subclass(Tensor).bfloat16())
    (result,) = apply_transforms(aug_transforms(size=16), (images,), of_items(1, 2))
    assert isinstance(result, tv_tensors.Image) and result.dtype == torch.bfloat16


def test_integer_images_are_refused():
    for tfm in (Geometry(), Lighting()):
        with pytest.raises(TypeError, match=r"needs float images in \[0, 1\], not torch.int64"):
            tfm((tv_tensors.Image(torch.ones(1, 3, 8, 8, dtype=torch.int64)),), of_items(0))


@pytest.mark.parametrize("size", [None, 48, 30, 10])  # of images of 40 pixels: 10 is far enough below to shrink first
@pytest.mark.parametrize("training", [True, False])
def test_bytes_become_the_floats_that_floats_become(size, training):
    geometry, rand = Geometry(size=size, max_rotate=30), of_items(4, 5, 6) if training else None
    images = tv_tensors.Image((photos(3) * 255).round().to(torch.uint8))
    (result,), (expected,) = (geometry((value,), rand) for value in (images, tv_tensors.Image(images / 255)))
    if size is None and not training:
        assert result is images
    else:
        assert isinstance(result, tv_tensors.Image) and result.dtype == torch.float32
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_a_single_image_is_told_that_batches_are_changed():
    with pytest.raises(ValueError, match=r"not \(3, 40, 40\): put aug_transforms\(\) into batch_tfms"):
        Geometry()((tv_tensors.Image(photos()[0]),), of_items(1))


def test_a_size_may_be_numpys():
    assert Geometry(size=np.int64(24))((photos(),), of_items(1))[0].shape[-2:] == (24, 24)


def test_masks_of_bytes_stay_bytes():
    masks = tv_tensors.Mask(torch.randint(0, 5, (2, 40, 40), dtype=torch.uint8))
    (result,) = Geometry(size=30)((masks,), of_items(1, 2))
    assert result.dtype == torch.uint8 and set(result.unique().tolist()) <= {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "linear"}, "mode is one of 'bilinear', 'nearest', 'bicubic', not 'linear'"),
        ({"pad_mode": "reflect"}, "pad_mode is one of 'reflection', 'border', 'zeros', not 'reflect'"),
        ({"p_affine": 1.5}, "p_affine is a probability, 0 to 1, not 1.5"),
        ({"p_zoom": -1}, "p_zoom is a probability"),
        ({"p_hue": 2}, "p_hue is a probability"),
        ({"max_saturation": 1}, "max_saturation is 0 or more and below 1"),
        ({"max_hue": 0.6}, "max_hue is a share of the circle"),
        ({"p_lighting": -0.1}, "p_lighting is a probability"),
        ({"size": 0}, "size is an int or"),
        ({"max_zoom": 0.9}, "min_zoom is above 0 and up to max_zoom"),
        ({"max_warp": 0.5}, "max_warp is a share of a side"),
        ({"max_rotate": -10}, "max_rotate is in degrees"),
        ({"max_lighting": 1}, "max_lighting is 0 or more and below 1"),
        ({"min_scale": 0}, "min_scale is a share of the area"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_right(wrong, message):
    with pytest.raises(ValueError, match=message):
        aug_transforms(**wrong)


def test_augmentation_travels_as_json():
    own = {"p_flip": 0.3, "p_zoom": 0.1, "p_contrast": 0.2, "max_hue": 0.1, "max_saturation": 0.3, "p_hue": 0.4}
    tfms = aug_transforms(size=(20, 30), flip_vert=True, mode="bicubic", batch=True, min_scale=0.3, **own)
    assert len(tfms) == 3
    assert restore(json.loads(json.dumps(describe(tfms)))) == tfms
