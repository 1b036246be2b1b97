import io
from pathlib import Path
from unittest.mock import patch

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors
from warmstart.data import CategoryBlock, DataBlock, EndSplitter
from warmstart.vision import (
    ImageBlock,
    RandomResizedCrop,
    Resize,
    open_image,
    show_image,
    show_images,
    verify_images,
)

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}


def photo(width=40, height=30, mode="RGB"):
    """Smooth colours, which survive JPEG."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def channels_first(image):
    pixels = np.array(image)
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1)


# ---- sources and modes


@pytest.mark.parametrize("mode", CHANNELS)
@pytest.mark.parametrize("stored", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "HSV"])
def test_any_mode_is_converted_as_pillow_does(stored, mode):
    image = photo(mode=stored)
    opened = open_image(image, mode)
    assert type(opened) is tv_tensors.Image and opened.dtype == torch.uint8
    assert opened.shape == (CHANNELS[mode], 30, 40)
    assert torch.equal(opened.as_subclass(Tensor), channels_first(image.convert(mode)))


@pytest.mark.parametrize("mode", CHANNELS)
def test_an_image_may_come_as_path_text_bytes_array_tensor_or_image(mode, tmp_path):
    image = photo(mode=mode)
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(image))
    tensor = channels_first(image)
    for source in (path, str(path), path.read_bytes(), image, np.array(image), tensor, tv_tensors.Image(tensor)):
        assert torch.equal(open_image(source, mode), tensor)


def test_grey_arrays_and_tensors_become_coloured():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for source in (grey, grey[..., None], torch.from_numpy(grey)[None]):
        opened = open_image(source)
        assert opened.shape == (3, 3, 4) and torch.equal(opened[2], torch.from_numpy(grey))
    assert open_image(grey > 5, "L").unique().tolist() == [0, 255]


def test_transparent_palettes_keep_their_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    file = encoded(image, transparency=0)
    assert open_image(file, "RGBA").permute(1, 2, 0).tolist() == [[[255, 0, 0, 0], [0, 255, 0, 255]]]
    assert open_image(file).permute(1, 2, 0).tolist() == [[[255, 0, 0], [0, 255, 0]]]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_sixteen_bits_are_scaled_to_eight(mode):
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    opened = open_image(encoded(Image.fromarray(values)), mode)
    assert opened[0].tolist() == [[0, 0, 1, 128, 255]]


def test_the_first_picture_of_an_animation_is_taken():
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(file, "L").unique().tolist() == [10]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_upright(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(photo(), format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    assert torch.equal(open_image(file), channels_first(expected.convert("RGB")))


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert open_image(encoded(photo(), exif=exif)).shape == (3, 30, 40)


@pytest.mark.parametrize("source, error, message", [
    (3, TypeError, "an image is a path, bytes, PIL image, array or tensor, not int"),
    (np.zeros((3, 4)), ValueError, r"uint8 \(h, w\) or \(h, w, 1 to 4\); got float64 \(3, 4\)"),
    (np.zeros((3, 4, 9), np.uint8), ValueError, r"got uint8 \(3, 4, 9\)"),
    (torch.zeros(3, 4, 4), ValueError, r"for mode RGB is uint8 \(3, h, w\); got torch.float32 \(3, 4, 4\)"),
    (torch.zeros(4, 4, dtype=torch.uint8), ValueError, r"got torch.uint8 \(4, 4\)"),
])  # fmt: skip
def test_what_is_no_image_is_named(source, error, message):
    with pytest.raises(error, match=message):
        open_image(source)


# ---- damaged files


def broken_files(folder):
    good = encoded(photo(), "JPEG")
    contents = {
        "empty.jpg": b"",
        "text.jpg": b"not an image",
        "cut.jpg": good[:-200],
        "cut.png": encoded(photo())[:-40],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_a_file_that_cannot_be_read_is_an_error_with_a_fix(tmp_path):
    for file in broken_files(tmp_path):
        size = file.stat().st_size
        with pytest.raises(
            ValueError, match=rf"not an image that can be read \({size} bytes; .*\)\. verify_images\(files\)"
        ):
            open_image(file)
    with pytest.raises(ValueError, match="3 bytes"):
        open_image(b"abc")


def test_a_file_that_is_not_there_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "none.jpg")
    with pytest.raises(IsADirectoryError):
        open_image(tmp_path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@patch.object(Image, "MAX_IMAGE_PIXELS", 10_000)  # a damaged header may promise any size
@settings(max_examples=150, deadline=None)
@given(format=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP"]), data=st.data())
def test_damaged_bytes_give_an_image_or_an_error_with_a_fix(format, data):
    file = bytearray(encoded(photo(8, 6), format))
    for position in data.draw(st.lists(st.integers(0, len(file) - 1), min_size=1, max_size=5)):
        file[position] = data.draw(st.integers(0, 255))
    try:
        opened = open_image(bytes(file[: data.draw(st.integers(0, len(file)))]))
    except ValueError as error:
        assert "verify_images" in str(error)
    else:
        assert opened.shape[0] == 3


def test_verify_images_finds_the_files_that_cannot_be_read(tmp_path):
    (tmp_path / "good.jpg").write_bytes(encoded(photo(), "JPEG"))
    broken = broken_files(tmp_path)
    files = [broken[0], tmp_path / "good.jpg", *broken[1:], tmp_path / "none.jpg"]
    assert verify_images(map(str, files)) == [*broken, tmp_path / "none.jpg"]
    assert verify_images([]) == []


# ---- big JPEGs


@pytest.mark.parametrize("min_side, scale", [(300, 1), (151, 1), (150, 2), (76, 2), (75, 4), (38, 4), (37, 8), (5, 8)])
def test_a_big_jpeg_is_decoded_at_a_reduced_scale(min_side, scale):
    file = encoded(photo(800, 600), "JPEG")
    with Image.open(io.BytesIO(file)) as expected:
        expected.draft(None, (800 // scale, 600 // scale))
        assert torch.equal(open_image(file, min_side=min_side), channels_first(expected))
    assert open_image(file, min_side=min_side).shape == (3, 600 // scale, 800 // scale)


def test_other_formats_are_decoded_whole():
    assert open_image(encoded(photo(800, 600)), min_side=5).shape == (3, 600, 800)


def test_a_reduced_picture_shows_the_same():
    file = encoded(photo(800, 600), "JPEG", quality=95)
    resize = Resize((30, 40), "squish")
    whole, reduced = (resize((open_image(file, min_side=m),), None)[0].float() for m in (None, 30))
    assert (whole - reduced).abs().max() <= 3


label = CategoryBlock(["a"])


def blocks_of(item_tfms, targets=(label,), **options):
    items = [(Path("1.jpg"), *["a"] * len(targets))] * 2
    block = DataBlock((ImageBlock(**options), *targets), splitter=EndSplitter(0.5), n_inp=1, item_tfms=item_tfms)
    return block.datasets(items).train.blocks


def test_the_scale_follows_from_the_first_transform():
    assert blocks_of(Resize(64))[0].min_side == 64
    assert blocks_of(Resize((40, 64)))[0].min_side == 64
    assert blocks_of(RandomResizedCrop(64, min_scale=0.25))[0].min_side == 128
    assert blocks_of([lambda image: image, Resize(64)])[0].min_side is None
    assert blocks_of(None)[0].min_side is None
    assert blocks_of(Resize(64), min_side=500)[0].min_side == 500


def test_the_scale_stays_where_other_values_have_positions_in_the_image():
    assert [block.min_side for block in blocks_of(Resize(64), (ImageBlock,))] == [None, None]


# ---- the block


def test_batches_of_images_are_floats_from_0_to_1(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for i, file in enumerate(files):
        Image.new("RGBA", (6, 5), (255, 51 * i, 0, 102)).save(file)
    for mode, expected in (("RGB", [1, 0.2, 0]), ("RGBA", [1, 0.2, 0, 0.4]), ("L", [0.299 + 0.2 * 0.587])):
        block = DataBlock((ImageBlock(mode), CategoryBlock), get_y=lambda f: "a", splitter=EndSplitter(0.5))
        data = block.databunch(files, bs=2, num_workers=0, device="cpu", shuffle=False)
        batch = data.one_batch()[0]
        assert type(batch) is Tensor and batch.dtype == torch.float32 and batch.shape == (2, CHANNELS[mode], 5, 6)
        assert torch.allclose(batch[1, :, 0, 0], torch.tensor(expected), atol=0.5 / 255 + 1e-6)


def test_a_mode_must_exist():
    with pytest.raises(ValueError, match=r"ImageBlock\(mode='BGR'\): the modes are \['L', 'RGB', 'RGBA'\]"):
        ImageBlock("BGR")
    assert [ImageBlock(mode).channels for mode in CHANNELS] == [1, 3, 4]


# ---- showing


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


@pytest.mark.parametrize(
    "source", [photo(), np.array(photo()), torch.rand(3, 30, 40), encoded(photo()), torch.rand(30, 40)]
)
def test_show_image_draws_anything_that_is_an_image(source, ax):
    assert show_image(source, ax, title="a photo") is ax
    (image,) = ax.images
    assert image.get_array().shape[:2] == (30, 40)
    assert ax.get_title() == "a photo" and not ax.axison
    assert ax.get_xlim() == (-0.5, 39.5) and ax.get_ylim() == (29.5, -0.5)


def test_grey_is_drawn_from_black_to_white(ax):
    show_image(torch.full((1, 3, 4), 100, dtype=torch.uint8), ax)
    show_image(torch.full((1, 3, 4), 0.3), ax)
    assert [(image.cmap.name, *image.get_clim()) for image in ax.images] == [("gray", 0, 255), ("gray", 0, 1)]


def test_show_image_makes_axes_where_none_are_given():
    assert len(show_image(photo()).images) == 1
    plt.close("all")


def test_show_images_draws_a_grid():
    show_images([photo()] * 5, nrows=2, titles=list("abcde"))
    axes = plt.gcf().axes
    assert len(axes) == 6 and [ax.get_title() for ax in axes] == [*"abcde", ""]
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 3)
    plt.close("all")


def test_a_predicted_image_is_drawn_beside_its_target(ax):
    block = ImageBlock()
    block.draw_result(torch.zeros(3, 4, 5), torch.ones(3, 4, 5), ax)
    assert [image.get_extent()[:2] for image in ax.images] == [[-0.5, 4.5], [4.5, 9.5]]
    assert block.text(torch.zeros(3, 4, 5)) == "image 4 × 5"
