import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision import tv_tensors
from warmstart.data.portable import describe, restore
from warmstart.data.randomness import Randomness
from warmstart.data.transforms import apply_transforms, as_transforms
from warmstart.vision import Normalize, RandomErasing, aug_transforms, imagenet_stats

always = RandomErasing(p=1.0)


def of_items(*items: int, epoch: int = 0, seed: int = 1) -> Randomness:
    return Randomness(seed=seed, epoch=epoch, items=items)


def photos(n: int = 1, height: int = 40, width: int = 40, channels: int = 3) -> tv_tensors.Image:
    return tv_tensors.Image(torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0)))


def erased(images, result):
    """Which pixels have changed, in all channels at once: `(bs, h, w)`."""
    changed = images.as_subclass(torch.Tensor) != result.as_subclass(torch.Tensor)
    assert changed.all(1).equal(changed.any(1))
    return changed.any(1)


def box(mask):
    """Top, left, bottom and right of what is true."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def sides(rectangles):
    """Heights and widths as floats."""
    return [(rectangles[..., i + 2] - rectangles[..., i]).double() for i in (0, 1)]


# ---- what is erased


def test_an_image_loses_the_one_rectangle_that_was_drawn():
    images, rand = photos(50, 30, 50), of_items(*range(50))
    (result,) = replace(always, value=-1.0)((images,), rand)
    assert isinstance(result, tv_tensors.Image) and result.dtype == torch.float32
    for mask, expected in zip(erased(images, result), always.rectangles(rand, 30, 50), strict=True):
        top, left, bottom, right = box(mask)
        assert expected.tolist() == [[top, left, bottom, right]]
        assert mask.sum() == (bottom - top) * (right - left)
    assert set(result[result != images].tolist()) == {-1.0}


@settings(deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 1), st.integers(0, 999)
)
def test_area_and_proportions_are_within_their_bounds(height, width, low, high, min_aspect, item):
    tfm = RandomErasing(1.0, *sorted([low, high]), min_aspect)
    rectangles = tfm.rectangles(of_items(item, item + 1), height, width)
    (heights, widths), area = sides(rectangles), height * width
    assert (rectangles >= 0).all() and (rectangles[..., 2] <= height).all() and (rectangles[..., 3] <= width).all()
    smallest = (heights - 0.5).clamp(min=0) * (widths - 0.5).clamp(min=0)  # that would be rounded to these sides
    assert (smallest <= tfm.max_area * area + 1e-6).all()
    assert ((heights + 0.5) * (widths + 0.5) >= tfm.min_area * area - 1e-6).all()
    fits = (heights < height) & (widths < width)  # otherwise it is as long as the image
    assert ((heights + 0.5)[fits] / (widths - 0.5).clamp(min=1e-9)[fits] >= min_aspect).all()
    assert ((heights - 0.5)[fits] / (widths + 0.5)[fits] <= 1 / min_aspect).all()


def test_area_and_proportions_are_evenly_drawn():
    tfm = RandomErasing(1.0, 0.1, 0.3)
    heights, widths = sides(tfm.rectangles(of_items(*range(2000)), 2000, 2000))
    shares, ratios = (heights * widths / 2000**2).flatten(), (heights / widths).log().flatten()
    assert stats.kstest(shares, stats.uniform(0.1, 0.2).cdf).pvalue > 0.01
    low = math.log(0.3)  # at these areas, all proportions fit in
    assert stats.kstest(ratios, stats.uniform(low, -2 * low).cdf).pvalue > 0.01


def test_rectangles_lie_anywhere():
    tops, lefts, bottoms, rights = always.rectangles(of_items(*range(2000)), 20, 30).flatten(0, 1).unbind(1)
    assert (tops.min(), lefts.min(), bottoms.max(), rights.max()) == (0, 0, 20, 30)
    middles = (tops + bottoms) / 2, (lefts + rights) / 2
    assert [middle.mean().item() for middle in middles] == pytest.approx([10, 15], rel=0.02)


@pytest.mark.parametrize(("height", "width"), [(10, 400), (400, 10)])
def test_in_long_images_rectangles_are_as_long_as_they_must_be(height, width):
    tfm = RandomErasing(1.0, 0.3, 0.3)
    heights, widths = sides(tfm.rectangles(of_items(*range(50)), height, width))
    assert ((heights == 10) if height == 10 else (widths == 10)).all()
    assert (heights * widths == 0.3 * 4000).all()


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_the_share_of_images_that_lose_something_is_p(p):
    heights, _ = sides(RandomErasing(p).rectangles(of_items(*range(4000)), 64, 64))
    assert (heights > 0).double().mean() == pytest.approx(p, abs=0.025)


def test_up_to_max_count_rectangles_share_the_area():
    tfm = RandomErasing(1.0, 0.2, 0.2, max_count=4)
    heights, widths = sides(tfm.rectangles(of_items(*range(2000)), 400, 400))
    counts = (heights > 0).sum(1)
    assert stats.chisquare(torch.bincount(counts, minlength=5)[1:]).pvalue > 0.01
    torch.testing.assert_close((heights * widths).sum(1), torch.full((2000,), 0.2 * 400**2).double(), rtol=0.02, atol=0)
    images, rand = photos(20, 60, 60), of_items(*range(20))
    masks = erased(images, replace(tfm, value=-1.0)((images,), rand)[0])
    for mask, rectangles in zip(masks, tfm.rectangles(rand, 60, 60), strict=True):
        expected = torch.zeros(60, 60, dtype=torch.bool)
        for top, left, bottom, right in rectangles.tolist():
            expected[top:bottom, left:right] = True
        assert mask.equal(expected)


# ---- what is put there


def test_noise_has_the_mean_and_the_deviation_of_each_channel_of_the_image():
    scale = torch.tensor([[1.0, 5.0], [10.0, 0.1]])[:, :, None, None]
    images = tv_tensors.Image(photos(2, 300, 300, 2).as_subclass(torch.Tensor) * scale + 3 * scale)
    (result,) = RandomErasing(1.0, 1.0, 1.0)((images,), of_items(0, 1))
    for statistic in (torch.mean, torch.std):
        expected = statistic(images.as_subclass(torch.Tensor), dim=(2, 3))
        torch.testing.assert_close(statistic(result.as_subclass(torch.Tensor), dim=(2, 3)), expected, rtol=0.02, atol=0)
    pixels = ((result[0, 0] - result[0, 0].mean()) / result[0, 0].std()).flatten()
    assert stats.kstest(pixels, stats.norm.cdf).statistic < 0.01


def test_noise_differs_between_channels_images_and_epochs():
    images = tv_tensors.Image(photos(1, 50, 50).expand(2, -1, -1, -1))
    results = [RandomErasing(1.0, 1.0, 1.0)((images,), of_items(3, 4, epoch=epoch))[0] for epoch in (0, 1)]
    pictures = torch.stack(results).flatten(0, 2).flatten(1)  # of two epochs, two images and three channels
    correlations = torch.corrcoef(pictures) - torch.eye(12)
    assert correlations.abs().max() < 0.1
    shifted = torch.corrcoef(torch.stack([pictures[0, 1:], pictures[0, :-1]]))
    assert shifted[0, 1].abs() < 0.1


@pytest.mark.parametrize("value", [0.0, -2.5, 7])
def test_a_value_takes_the_place_of_noise(value):
    (result,) = RandomErasing(1.0, 1.0, 1.0, value=value)((photos(2),), of_items(0, 1))
    assert (result == value).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [None, 0.0])
def test_images_keep_their_type_and_what_was_given_stays_as_it_is(dtype, value):
    images = tv_tensors.Image(photos(4).to(dtype))
    before = images.clone()
    (result,) = replace(always, value=value)((images,), of_items(*range(4)))
    assert result.dtype == dtype and result.isfinite().all() and images.equal(before)


# ---- whose numbers


@pytest.mark.parametrize(
    "tfm", [RandomErasing(0.7, max_count=3), RandomErasing(0.7, value=0.0)], ids=["noise", "value"]
)
def test_an_image_loses_the_same_in_any_batch_and_other_things_in_other_epochs(tfm):
    images, items = photos(6, 33, 47), [7, 3, 9, 12, 0, 5]
    (together,) = tfm((images,), of_items(*items))
    for size in (1, 2, 4):
        pairs = zip(images.split(size), torch.tensor(items).split(size), strict=True)
        parts = [tfm((tv_tensors.Image(part),), of_items(*own.tolist()))[0] for part, own in pairs]
        torch.testing.assert_close(torch.cat(parts), together.as_subclass(torch.Tensor))
    assert tfm((images,), of_items(*items))[0].equal(together)
    for other in (of_items(*items, epoch=1), of_items(*items, seed=2)):
        assert not tfm((images,), other)[0].equal(together)


def test_nothing_is_drawn_from_the_global_generator():
    before = torch.get_rng_state()
    always((photos(2),), of_items(0, 1))
    assert torch.get_rng_state().equal(before)


def test_validation_and_p_0_change_nothing():
    images = photos(2)
    assert always((images, 1), None)[0] is images
    assert RandomErasing(p=0)((images, 1), of_items(0, 1))[0] is images


def test_only_the_input_is_erased():
    images = photos(2)
    mask, points = tv_tensors.Mask(torch.ones(2, 40, 40)), torch.rand(2, 5, 2)
    sample = (images, images, mask, points, "label")
    result = always(sample, of_items(0, 1))
    assert not result[0].equal(images) and all(new is old for new, old in zip(result[1:], sample[1:], strict=True))
    assert always((mask, images), of_items(0, 1)) == (mask, images)


# ---- in a pipeline


def test_it_comes_last_wherever_it_is_listed():
    tfms = as_transforms([RandomErasing(), Normalize(*imagenet_stats), aug_transforms()])
    assert [type(tfm).__name__ for tfm in tfms] == ["Geometry", "Lighting", "Normalize", "RandomErasing"]
    images, rand = photos(8), of_items(*range(8))
    (result,) = apply_transforms(
        as_transforms([replace(always, value=0.0), Normalize(*imagenet_stats)]), (images,), rand
    )
    normalised = Normalize(*imagenet_stats)((images,), None)[0]
    kept = result == normalised
    assert (result[~kept] == 0).all() and 0.5 < kept.float().mean() < 0.99


@pytest.mark.parametrize("tfm", [RandomErasing(), RandomErasing(0.3, 0.1, 0.2, 0.5, 3, 1.5)])
def test_it_prints_itself_and_goes_through_json(tfm):
    assert restore(json.loads(json.dumps(describe(tfm)))) == tfm
    assert repr(tfm).startswith("RandomErasing(p=0.")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"p": 1.5}, "p is a probability, 0 to 1, not 1.5"),
        ({"min_area": -0.1}, "min_area is a share, 0 to max_area, not -0.1"),
        ({"min_area": 0.5, "max_area": 0.4}, "min_area is a share, 0 to max_area, not 0.5"),
        ({"max_area": 1.2}, "max_area is a share of the image's area, up to 1, not 1.2"),
        ({"min_aspect": 0}, "min_aspect is height / width, above 0 and up to 1, not 0"),
        ({"min_aspect": 2}, "min_aspect is height / width, above 0 and up to 1, not 2"),
        ({"max_count": 0}, "max_count is the largest number of rectangles, 1 or more, not 0"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_right(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RandomErasing(**kwargs)


def test_integer_images_are_an_error():
    images = tv_tensors.Image(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"RandomErasing needs float images .* let ToFloat\(\) come before it"):
        always((images,), of_items(0, 1))
