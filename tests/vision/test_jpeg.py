import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from warmstart.vision import jpeg, open_image, verify_images

pytest.importorskip("simplejpeg")

PHOTO = Image.fromarray(load_sample_images().images[0])  # a temple, 640 × 427 pixels


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.fixture
def by_pillow(monkeypatch):
    """`open_image` as it is without simplejpeg."""

    def opened(*args, **options):
        with monkeypatch.context() as without:
            without.setattr(jpeg, "decode_jpeg", None)
            return open_image(*args, **options)

    return opened


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("min_side", [None, 200, 60, 20])
def test_pixels_are_those_of_pillow_at_any_scale(subsampling, progressive, min_side, by_pillow):
    content = encoded(PHOTO, subsampling=subsampling, progressive=progressive)
    ours, pillows = open_image(content, min_side=min_side), by_pillow(content, min_side=min_side)
    assert ours.shape == pillows.shape and ours.stride() == pillows.stride()
    # the two packages may bring different versions of the decoder
    assert (ours.int() - pillows.int()).abs().max() <= 2


@pytest.mark.parametrize("stored", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_any_kind_of_file_becomes_any_mode(stored, mode, by_pillow):
    content = encoded(PHOTO.convert(stored))
    assert torch.equal(open_image(content, mode), by_pillow(content, mode))


def test_photos_are_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned to the right
    assert open_image(encoded(PHOTO, exif=exif)).shape == (3, 640, 427)


def test_simplejpeg_is_what_decodes(monkeypatch):
    asked = []

    def decode_jpeg(content, kind, min_height, min_width):
        asked.append((kind, min_height, min_width))
        return np.zeros((min_height, min_width, 3), np.uint8)

    monkeypatch.setattr(jpeg, "decode_jpeg", decode_jpeg)
    assert open_image(encoded(PHOTO), min_side=100).sum() == 0
    assert asked == [("RGB", 214, 320)]


def test_a_file_that_breaks_off_is_an_error_that_pillow_words(tmp_path):
    content = encoded(PHOTO)[:9000]
    with pytest.raises(ValueError, match="9,000 bytes; image file is truncated"):
        open_image(content)
    (tmp_path / "half.jpg").write_bytes(content)
    assert verify_images([tmp_path / "half.jpg"]) == [tmp_path / "half.jpg"]
