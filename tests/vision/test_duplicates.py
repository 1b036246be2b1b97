from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warmstart.vision import find_duplicates

PHOTOS = Path(__file__).parents[3] / "shared/data/hymenoptera/val/ants"


def smooth(seed, size=96):
    """A picture of large shapes."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def saved(folder, **images):
    files = []
    for name, image in images.items():
        files.append(folder / f"{name}.{'jpg' if name.startswith('j') else 'png'}")
        image.save(files[-1])
    return files


def test_copies_are_found_at_another_size_compressed_and_brighter(tmp_path):
    picture = smooth(0)
    files = saved(
        tmp_path, a=picture, b=smooth(1), small=picture.resize((40, 40)), j=picture, d=smooth(2),
        grey=smooth(1).convert("L"), bright=picture.point(lambda v: v * 0.7 + 60),
    )  # fmt: skip
    pairs = find_duplicates(files)
    assert {(i, j) for i, j, _ in pairs} == {(0, 2), (0, 3), (0, 6), (2, 3), (2, 6), (3, 6)}
    assert all(0.99 <= similarity <= 1 for *_, similarity in pairs)
    assert find_duplicates(files, similarity=2) == [] == find_duplicates([])


def test_pictures_of_one_colour_are_like_no_other(tmp_path):
    black, white = Image.new("RGB", (32, 32)), Image.new("RGB", (32, 32), "white")
    assert find_duplicates(saved(tmp_path, a=black, b=black, c=white)) == []


def test_a_set_larger_than_what_is_compared_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("warmstart.vision.duplicates.AT_ONCE", 4)
    files = saved(tmp_path, **{f"p{i}": smooth(i % 9) for i in range(11)})
    assert [(i, j) for i, j, _ in find_duplicates(files)] == [(0, 9), (1, 10)]


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "no.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"no\.jpg cannot be read as an image.*verify_images"):
        find_duplicates([tmp_path / "no.jpg"])


@pytest.mark.skipif(not PHOTOS.exists(), reason="needs photos")
def test_photos_are_found_again_and_not_confused(tmp_path):
    photos = sorted(PHOTOS.iterdir())[:20]
    copies = saved(tmp_path, **{f"j{i}": Image.open(file).convert("RGB") for i, file in enumerate(photos[:5])})
    pairs = find_duplicates([*photos, *copies])
    assert [(i, j) for i, j, _ in pairs] == [(i, 20 + i) for i in range(5)]
