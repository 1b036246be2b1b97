import json
import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from warmstart.data.portable import describe, restore
from warmstart.data.randomness import Randomness
from warmstart.vision.resizing import window
from warmstart.vision.transforms import Normalize, RandomResizedCrop, Resize, ToFloat, imagenet_stats

sides = st.integers(1, 400)


def photo(height: int, width: int) -> tv_tensors.Image:
    """A smooth picture with some texture, uint8 `(3, height, width)`."""
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6), (height, width), mode="bicubic")[0]
    return tv_tensors.Image(((smooth + 0.1 * torch.rand(3, height, width)).clamp(0, 1) * 255).to(torch.uint8))


def columns(height: int, width: int) -> tv_tensors.Image:
    """A picture whose pixels say in which column they were."""
    return tv_tensors.Image(torch.arange(width, dtype=torch.uint8).expand(1, height, width))


def of_item(item: int) -> Randomness:
    return Randomness(seed=1, epoch=0, items=[item])


def pil(image: Tensor) -> PILImage.Image:
    return F.to_pil_image(image)


def assert_close(result: Tensor, expected, within: float):
    """Of the same size, and no pixel further away than `within`."""
    expected = torch.from_numpy(np.array(expected)).movedim(-1, 0) if isinstance(expected, PILImage.Image) else expected
    assert result.shape == expected.shape
    assert (result.float() - expected.float()).abs().max() <= within


# --- Resize


def test_crop_shows_the_middle_in_validation_as_pil_does():
    image = photo(200, 320)
    (result,) = Resize(100)((image,), None)
    assert isinstance(result, tv_tensors.Image) and result.dtype == torch.uint8
    small = pil(image).resize((160, 100), PILImage.Resampling.BILINEAR)
    assert_close(result, small.crop((30, 0, 130, 100)), within=1)


def test_size_is_height_and_width():
    assert Resize((60, 90))((photo(200, 320),), None)[0].shape == (3, 60, 90)


def test_crop_moves_along_the_longer_side_only_in_training():
    rows = [Resize(10)((columns(10, 100),), of_item(i))[0] for i in range(300)]
    starts = {int(row[0, 0, 0]) for row in rows}
    assert all(row.equal(torch.arange(s, s + 10).expand(1, 10, 10)) for row in rows if (s := int(row[0, 0, 0])) >= 0)
    assert min(starts) == 0 and max(starts) == 90
    assert Resize(10)((columns(10, 100),), None)[0][0, 0, 0] == 45


def test_squish_changes_the_proportions_as_pil_does():
    image = photo(200, 320)
    (result,) = Resize((50, 70), "squish")((image,), None)
    assert_close(result, pil(image).resize((70, 50), PILImage.Resampling.BILINEAR), within=1)


@pytest.mark.parametrize(
    ("pad_mode", "numpy_mode"), [("reflection", "reflect"), ("border", "edge"), ("zeros", "constant")]
)
def test_pad_fills_up_both_sides_in_validation_as_numpy_does(pad_mode, numpy_mode):
    image = photo(200, 320)
    inner = F.resize(image, [50, 80], antialias=True)
    (result,) = Resize(80, "pad", pad_mode)((image,), None)
    assert_close(result, torch.from_numpy(np.pad(inner, ((0, 0), (15, 15), (0, 0)), numpy_mode)), within=0)


def test_reflection_repeats_where_the_padding_exceeds_the_image():
    image = photo(6, 60)
    (result,) = Resize(60, "pad")((image,), None)
    assert_close(result, torch.from_numpy(np.pad(image, ((0, 0), (27, 27), (0, 0)), "reflect")), within=0)


def test_reflection_of_a_single_line_repeats_it():
    assert Resize(9, "pad")((columns(1, 9),), None)[0].equal(columns(9, 9))


def test_padded_image_lies_anywhere_in_training():
    image = tv_tensors.Image(torch.full((1, 10, 40), 255, dtype=torch.uint8))
    tops = [int(Resize(40, "pad", "zeros")((image,), of_item(i))[0][0, :, 0].argmax()) for i in range(200)]
    assert min(tops) == 0 and max(tops) == 30


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("channels", [(), (1,)])
def test_masks_take_the_nearest_pixel_as_pil_does(dtype, channels):
    classes = torch.randint(0, 5, (*channels, 30, 30), generator=torch.Generator().manual_seed(0), dtype=dtype)
    (result,) = Resize(50, "squish")((tv_tensors.Mask(classes),), None)
    expected = PILImage.fromarray(classes.view(30, 30).to(torch.uint8).numpy()).resize(
        (50, 50), PILImage.Resampling.NEAREST
    )
    assert isinstance(result, tv_tensors.Mask) and result.dtype == dtype and result.shape == (*channels, 50, 50)
    assert np.array_equal(result.view(50, 50), np.array(expected))


@pytest.mark.parametrize("tfm", [Resize(64), Resize(64, "pad"), Resize(64, "squish"), RandomResizedCrop(64)])
@pytest.mark.parametrize("item", [None, 1, 2, 3])
def test_image_and_mask_move_together(tfm, item):
    y, x = torch.meshgrid(torch.arange(150), torch.arange(240), indexing="ij")
    disk = (x - 130) ** 2 + (y - 70) ** 2 < 50**2
    image, mask = tv_tensors.Image(disk.expand(3, -1, -1).to(torch.uint8) * 255), tv_tensors.Mask(disk.long())
    image, mask, label = tfm((image, mask, "a disk"), None if item is None else of_item(item))
    seen = image[0] > 127
    assert (seen == mask.bool()).float().mean() > 0.99 and 0 < seen.sum() < 64 * 64
    assert label == "a disk"


def test_boxes_move_with_their_image():
    boxes = tv_tensors.BoundingBoxes([[150, 50, 250, 150]], format="XYXY", canvas_size=(200, 400))
    _, boxes = Resize(100)((photo(200, 400), boxes), None)
    assert boxes.canvas_size == (100, 100) and boxes.tolist() == [[25, 25, 75, 75]]


def test_resize_of_padded_boxes_shifts_them():
    boxes = tv_tensors.BoundingBoxes([[0, 0, 400, 200]], format="XYXY", canvas_size=(200, 400))
    assert Resize(100, "pad")((boxes,), None)[0].tolist() == [[0, 25, 100, 75]]


@pytest.mark.parametrize("method", ["crop", "pad", "squish"])
@given(st.tuples(sides, sides), sides, sides)
def test_min_side_is_long_enough_never_to_enlarge(method, size, more_height, more_width):
    tfm = Resize(size, method)
    height, width = tfm.min_side + more_height - 1, tfm.min_side + more_width - 1
    scales = height / size[0], width / size[1]
    assert (max(scales) if method == "pad" else min(scales)) >= 1


def test_wrong_arguments_of_resize_are_named_with_what_is_right():
    with pytest.raises(ValueError, match=r"method is one of 'crop', 'pad', 'squish', not 'stretch'"):
        Resize(224, "stretch")
    with pytest.raises(ValueError, match=r"pad_mode is one of 'reflection', 'border', 'zeros', not 'reflect'"):
        Resize(224, "pad", "reflect")
    for size in (0, -1, 22.4, "224", None, (224,), (3, 224, 224), (224, 0)):
        with pytest.raises(ValueError, match="size is an int or"):
            Resize(size)


# --- RandomResizedCrop


@given(st.tuples(sides, sides), st.floats(0.05, 1), st.integers(0, 10**6))
@settings(max_examples=300)
def test_random_windows_lie_inside_and_have_the_area_and_proportions_asked_for(old, min_scale, item):
    tfm = RandomResizedCrop(64, min_scale)
    top, left, height, width = tfm.random_window(old, of_item(item))
    assert 0 <= top <= top + height <= old[0] and 0 <= left <= left + width <= old[1] and height > 0 and width > 0
    rounding = 1 / min(height, width)
    if 0.75 <= old[1] / old[0] <= 4 / 3:
        assert height * width >= min_scale * old[0] * old[1] * (1 - 2 * rounding)
    assert 0.75 * (1 - rounding) <= width / height * (1 + rounding) and width / height * (1 - rounding) <= 4 / 3


def test_random_windows_reach_every_corner():
    boxes = [RandomResizedCrop(64).random_window((100, 100), of_item(i)) for i in range(2000)]
    assert {top for top, *_ in boxes} >= {0, 20} and {left for _, left, *_ in boxes} >= {0, 20}
    assert max(top + height for top, _, height, _ in boxes) == 100 == max(left + width for _, left, _, width in boxes)


def test_random_windows_are_distributed_as_torchvisions():
    image = photo(100, 140)
    theirs = v2.RandomResizedCrop(64, scale=(0.35, 1))
    draw = theirs.make_params if hasattr(theirs, "make_params") else theirs._get_params
    theirs = torch.tensor([list(draw([image]).values()) for _ in range(2000)]).float()
    ours = torch.tensor([RandomResizedCrop(64).random_window((100, 140), of_item(i)) for i in range(2000)]).float()
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0.05, atol=0.5)
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.06, atol=0.5)


def test_what_fits_nowhere_is_cropped_in_the_middle():
    assert RandomResizedCrop(64).random_window((10, 1000), of_item(0)) == window((10, 1000), (3, 4))
    assert window((10, 1000), (3, 4)) == (0, 494, 10, 13)


def test_how_the_pixels_lie_in_memory_changes_none_of_them():
    image = photo(100, 140)
    innermost = tv_tensors.Image(image.as_subclass(Tensor).permute(1, 2, 0).contiguous().permute(2, 0, 1))
    for i in range(20):
        (ours,), (theirs,) = (RandomResizedCrop(64)((x,), of_item(i)) for x in (innermost, image))
        assert torch.equal(ours, theirs) and type(ours) is tv_tensors.Image
    assert ours.stride(0) == 1  # channels innermost as they were, which is what makes it fast


def test_random_crop_is_torchvisions_resized_crop():
    image, tfm = photo(100, 140), RandomResizedCrop((50, 60))
    box = tfm.random_window((100, 140), of_item(5))
    assert_close(tfm((image,), of_item(5))[0], F.resized_crop(image, *box, [50, 60], antialias=True), within=0)


def test_validation_shows_the_middle_as_imagenet_models_are_tested():
    image, tfm = photo(300, 448), RandomResizedCrop(224)
    expected = F.center_crop(F.resize(image, 256, antialias=True), 224)
    assert (tfm((image,), None)[0].float() - expected.float()).abs().mean() < 2
    assert tfm((image,), None)[0].equal(tfm((image,), None)[0])


def test_min_side_of_random_crops_fills_the_smallest_window():
    assert RandomResizedCrop(224, min_scale=0.25).min_side == 448
    assert RandomResizedCrop((224, 100), min_scale=1).min_side == 256


def test_wrong_arguments_of_random_crops_are_refused():
    for min_scale in (0, 1.1, -1, math.nan):
        with pytest.raises(ValueError, match="min_scale is a share"):
            RandomResizedCrop(224, min_scale)
    with pytest.raises(ValueError, match="ratio is"):
        RandomResizedCrop(224, ratio=(4 / 3, 3 / 4))


# --- ToFloat and Normalize


def batch(*shape: int) -> tv_tensors.Image:
    return tv_tensors.Image(torch.rand(*shape, generator=torch.Generator().manual_seed(0)))


def test_to_float_is_torchvisions():
    images = torch.stack([photo(20, 30)] * 2).contiguous(memory_format=torch.channels_last)
    (result,) = ToFloat()((tv_tensors.Image(images),), None)
    assert isinstance(result, tv_tensors.Image) and result.is_contiguous()
    torch.testing.assert_close(
        result.as_subclass(Tensor), F.to_dtype(images, torch.float32, scale=True).as_subclass(Tensor)
    )


def test_to_float_leaves_float_images_masks_and_labels():
    sample = batch(2, 3, 4, 4), tv_tensors.Mask(torch.ones(2, 4, 4, dtype=torch.uint8)), torch.tensor([1, 2])
    assert all(new is old for new, old in zip(ToFloat()(sample, None), sample, strict=True))


def test_to_float_refuses_integers_of_unknown_range():
    with pytest.raises(TypeError, match=r"not of torch\.int32"):
        ToFloat()((tv_tensors.Image(torch.ones(2, 3, 4, 4, dtype=torch.int32)),), None)


def test_normalize_is_torchvisions_and_decode_undoes_it():
    images, tfm = batch(2, 3, 8, 8), Normalize.from_stats(*imagenet_stats)
    (result,) = tfm((images,), None)
    assert isinstance(result, tv_tensors.Image)
    torch.testing.assert_close(result, F.normalize(images, *map(list, imagenet_stats)))
    torch.testing.assert_close(tfm.decode((result,))[0], batch(2, 3, 8, 8))


def test_normalize_does_not_change_the_images_it_was_given():
    images = batch(2, 3, 8, 8)
    Normalize.from_stats(*imagenet_stats)((images,), None)
    assert images.equal(batch(2, 3, 8, 8))


def test_only_the_first_value_is_normalised_unless_targets_are_too():
    images, labels = batch(2, 1, 4, 4), torch.tensor([1, 0])
    first, second, last = Normalize((0.5,), (0.25,))((images, images, labels), None)
    assert not first.equal(images) and second is images and last is labels
    first, second, last = Normalize((0.5,), (0.25,), targets=True)((images, images, labels), None)
    assert first.equal(second) and last is labels


def test_plain_tensors_pass_normalize():
    x = torch.rand(2, 5)
    assert Normalize.from_stats(*imagenet_stats)((x, batch(2, 3, 4, 4)), None)[0] is x


def test_normalize_keeps_half_precision():
    images = tv_tensors.Image(torch.rand(2, 3, 4, 4).half())
    assert Normalize.from_stats(*imagenet_stats)((images,), None)[0].dtype == torch.half


def test_normalize_says_which_channels_it_lacks():
    with pytest.raises(ValueError, match=r"of 3 channels, but the images have 1: their shape is \(2, 1, 4, 4\)"):
        Normalize.from_stats(*imagenet_stats)((batch(2, 1, 4, 4),), None)


def test_normalize_refuses_integer_images():
    with pytest.raises(TypeError, match=r"let ToFloat\(\) come before it"):
        Normalize.from_stats(*imagenet_stats)((photo(4, 4),), None)


def test_statistics_must_match_and_be_positive():
    for mean, std in (((0.5,), (0.1, 0.1)), ((0.5,), (0,)), ((), ())):
        with pytest.raises(ValueError, match="a std above 0"):
            Normalize(mean, std)


def test_gradients_pass_normalize_even_after_inference_mode():
    tfm = Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    with torch.inference_mode():
        tfm((batch(1, 3, 2, 2),), None)
    images = batch(1, 3, 2, 2).requires_grad_()
    tfm((images,), None)[0].sum().backward()
    torch.testing.assert_close(images.grad.as_subclass(Tensor)[0, :, 0, 0], 1 / torch.tensor([0.4, 0.5, 0.6]))


@pytest.mark.parametrize(
    "tfm",
    [
        Resize(224, "pad", "zeros"),
        Resize((10, 20)),
        RandomResizedCrop(224, 0.5, (1, 2)),
        ToFloat(),
        Normalize.from_stats(*imagenet_stats, targets=True),
    ],
)
def test_transforms_travel_as_json(tfm):
    assert restore(json.loads(json.dumps(describe(tfm)))) == tfm
