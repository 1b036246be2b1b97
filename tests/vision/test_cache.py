"""Photos from a cache are the photos, whatever happens to files and processes."""

import multiprocessing
import os
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from warmstart.data import (
    Block,
    Cache,
    CategoryBlock,
    DataBlock,
    EndSplitter,
    ItemError,
    RegressionBlock,
    Transform,
    clear_cache,
    get_image_files,
    list_caches,
    parent_label,
)
from warmstart.data import store as store_module
from warmstart.data.dataset import Draw
from warmstart.data.fingerprint import fingerprint
from warmstart.data.kept import Kept
from warmstart.vision import (
    BBoxBlock,
    BBoxLabelBlock,
    FlipItem,
    ImageBlock,
    MaskBlock,
    PointBlock,
    RandomResizedCrop,
    RatioResize,
    Resize,
)
from warmstart.vision.samples import rewrap

SHARED = Path(__file__).parents[2] / "../shared/data"
PHOTOS = SHARED / "imagenet-samples/images"
LONG_AGO = 10**18  # nanoseconds, of 2001


def settled(file: Path, when: int = LONG_AGO) -> Path:
    """A file as one that has not changed for a while."""
    os.utime(file, ns=(when, when))
    return file


def write_photo(file: Path, i: int, size: tuple[int, int] = (60, 80)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8)
    PILImage.fromarray(small).resize(size[::-1], PILImage.Resampling.BICUBIC).save(file, quality=90)
    return settled(file)


@pytest.fixture
def photos(tmp_path):
    """Twelve JPEGs of two classes, of several sizes."""
    return [write_photo(tmp_path / "photos" / "ab"[i % 2] / f"{i}.jpg", i, (60 + i, 90 - i)) for i in range(12)]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("WARMSTART_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(params=["memory", "disk"])
def cache(request):
    return request.param


SMALL = Resize(32)


def bunch(items, cache=None, tfms=SMALL, blocks=(ImageBlock, CategoryBlock), get_y=parent_label, **options):
    block = DataBlock(blocks, get_y=get_y, splitter=EndSplitter(0.25), item_tfms=tfms)
    options = {"bs": 3, "num_workers": 0, "device": "cpu", "seed": 3} | options
    return block.databunch(items, cache=cache, **options)


def epochs(data, n=3) -> list[torch.Tensor]:
    """All values of the first epochs of training and validation."""
    data.train_dl.set_epoch(0)
    batches = [batch for _ in range(n) for dl in (data.train_dl, data.valid_dl) for batch in dl]
    return [value for batch in batches for value in batch]


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert type(a) is type(b) and a.dtype == b.dtype and a.equal(b)


def counted(monkeypatch) -> list:
    """The files that Pillow opens from now on, in this process."""
    opened, real = [], PILImage.open
    monkeypatch.setattr(PILImage, "open", lambda file, *args: opened.append(file) or real(file, *args))
    return opened


# ---- the same samples


def upper_left(image):
    return image[:, :30, :30]


@pytest.mark.parametrize(
    "tfms",
    [
        None,
        Resize(32),
        Resize((20, 40)),
        Resize(200),
        Resize(32, "squish"),
        Resize(32, "pad"),
        RandomResizedCrop(24),
        RandomResizedCrop(8),
        [RatioResize(40), Resize(24), FlipItem()],
        [v2.Resize((40, 50)), v2.CenterCrop(32), v2.RandomHorizontalFlip()],
        [upper_left],
        [v2.RandomHorizontalFlip(), Resize(32)],
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),  # the same in each process of pytest-xdist
)
def test_samples_are_the_same_to_the_bit(photos, cache, tfms):
    bs = {"bs": 1} if tfms is None else {}
    assert_same(epochs(bunch(photos, cache, tfms, **bs)), epochs(bunch(photos, None, tfms, **bs)))


@pytest.mark.parametrize("cache", [None, "memory", "disk"])
def test_each_file_is_read_once(photos, cache, monkeypatch):
    data, opened = bunch(photos, cache), counted(monkeypatch)
    epochs(data, 3)
    assert len(opened) == (12 if cache else 36)
    if cache == "disk":
        epochs(bunch(photos, cache), 2)
        assert len(opened) == 12


def test_training_and_validation_share_what_is_kept(photos, cache, monkeypatch):
    data = bunch(photos, cache)
    opened = counted(monkeypatch)
    for one, other in zip(*(either.test_dl(photos, with_labels=True) for either in (data, bunch(photos))), strict=True):
        assert_same(one, other)
    opened.clear()
    epochs(data, 2)
    list(data.augmented_dl())
    list(data.test_dl(photos))
    assert opened == []


def test_a_photo_is_kept_as_small_as_the_crop_allows(photos):
    data = bunch(photos, "memory", Resize(32))
    epochs(data, 1)
    bytes_per_item = data.train_ds.cache.store.n_bytes / 12
    assert 32 * 32 * 3 < bytes_per_item < 32 * 48 * 3 + 512
    big = [write_photo(photos[0].parent / "big.jpg", 1, (1500, 2000))] * 4
    data = bunch(big, "memory", RandomResizedCrop(64))
    epochs(data, 1)
    assert data.train_ds.cache.store.n_bytes < (2 * 109) ** 2 * 3 * 1.4


@pytest.mark.parametrize("method", ["crop", "pad", "squish"])
@pytest.mark.parametrize("size", [(31, 57), (200, 300)])
@pytest.mark.parametrize("old", [(60, 80), (33, 57), (500, 31), (30, 701), (1, 9)])
def test_presizing_twice_is_presizing_once(method, size, old):
    image = torch.randint(0, 256, (3, *old), dtype=torch.uint8)
    sample = tv_tensors.Image(image), tv_tensors.Mask(image[0])
    for tfm in (Resize(size, method), RandomResizedCrop(size), RandomResizedCrop(5)):
        once = tfm.presize(sample)
        assert_same(tfm.presize(once), once)
        assert_same(tfm(once, None), tfm(sample, None))
        assert sum(value.numel() for value in once) <= max(sum(value.numel() for value in sample), 4 * 200 * 300)


# ---- masks, points, boxes


def mask_of(photo: Path) -> Path:
    return photo.with_suffix(".png")


def size_of(photo: Path) -> tuple[int, int]:
    with PILImage.open(photo) as image:
        return image.size[::-1]


def write_masks(photos):
    for i, photo in enumerate(photos):
        classes = np.random.default_rng(i).integers(0, 3, size_of(photo), np.uint8)
        PILImage.fromarray(classes).save(mask_of(photo))
        settled(mask_of(photo))


def test_masks_move_with_their_images_from_the_cache_and_are_read_once(photos, cache, monkeypatch):
    write_masks(photos)
    blocks = ImageBlock, MaskBlock(["a", "b", "c"])
    plain = epochs(bunch(photos, None, [Resize(32), FlipItem()], blocks, mask_of))
    data, opened = bunch(photos, cache, [Resize(32), FlipItem()], blocks, mask_of), counted(monkeypatch)
    assert_same(epochs(data), plain)
    assert len(opened) == 24
    PILImage.fromarray(np.zeros(size_of(photos[0]), np.uint8)).save(mask_of(photos[0]))
    assert not data.train_ds[0][1].any()


@dataclass
class Labels:
    """What `get_y` reads: it may change from run to run, and within one."""

    boxes: dict
    names: dict

    def boxes_of(self, photo):
        return self.boxes[photo]

    def names_of(self, photo):
        return self.names[photo]


def test_boxes_and_points_are_those_that_get_y_gives_now(photos, cache, monkeypatch):
    labels = Labels({p: [[1.0, 2, 30, 40], [5, 5, 20, 50]] for p in photos}, {p: ["a", "b"] for p in photos})
    blocks = ImageBlock, BBoxBlock, BBoxLabelBlock, PointBlock
    get_y = [labels.boxes_of, labels.names_of, lambda photo: labels.boxes[photo][0][:2]]
    data, plain = (bunch(photos, c, Resize(32), blocks, get_y) for c in (cache, None))
    opened = counted(monkeypatch)
    assert_same(epochs(data), epochs(plain))
    labels.boxes[photos[0]] = [[10.0, 12, 30, 40]]
    with pytest.raises(ItemError, match="there are 1 boxes and 2 labels"):
        data.train_ds[0]
    labels.names[photos[0]] = ["b"]
    opened.clear()
    assert_same(data.train_ds[0], plain.train_ds[0])
    assert len(opened) == 2
    labels.names[photos[0]] = ["b", "a"]
    with pytest.raises(ItemError, match="there are 1 boxes and 2 labels"):
        data.train_ds[0]


def test_labels_are_read_anew_and_are_no_part_of_the_key(photos, cache, monkeypatch):
    label = {photo: "ab"[i % 2] for i, photo in enumerate(photos)}
    data = bunch(photos, cache, get_y=label.__getitem__)
    epochs(data, 1)
    opened = counted(monkeypatch)
    label[photos[0]] = "b" if label[photos[0]] == "a" else "a"
    assert data.train_ds[0][1] == data.vocab.index(label[photos[0]])
    if cache == "disk":
        other = bunch(photos, cache, blocks=(ImageBlock, RegressionBlock), get_y=lambda photo: 0.5)
        assert other.train_ds[0][1] == 0.5
    assert opened == []


# ---- files that change


def test_a_changed_file_is_read_anew(photos, cache):
    data, plain = bunch(photos, cache), bunch(photos)
    epochs(data, 1)
    write_photo(photos[0], 77, (60, 90))
    settled(photos[0], LONG_AGO + 1)  # a nanosecond later, and as long as before or not
    assert_same(data.train_ds[0], plain.train_ds[0])
    replacement = write_photo(photos[1].parent / "new.jpg", 78)
    settled(replacement, LONG_AGO + 2)
    os.replace(replacement, photos[1])
    assert_same(data.train_ds[1], plain.train_ds[1])
    assert_same(epochs(data), epochs(plain))


def test_a_file_that_is_being_written_is_not_kept(photos, cache):
    """It could change once more at what its file system takes for the same time."""
    photos[0] = write_photo(photos[0].with_suffix(".ppm"), 1)  # which is not compressed: any content is as long
    data = bunch(photos, cache)
    os.utime(photos[0])
    when = photos[0].stat().st_mtime_ns
    data.train_ds[0]
    assert len(data.train_ds.cache.store) == 0
    settled(write_photo(photos[0], 2), when)
    assert_same(data.train_ds[0], bunch(photos).train_ds[0])


def test_a_file_that_changes_while_it_is_read_is_not_kept(photos, cache, monkeypatch):
    data, real = bunch(photos, cache), PILImage.open
    monkeypatch.setattr(PILImage, "open", lambda file: (settled(photos[0], LONG_AGO + 5), real(file))[1])
    data.train_ds[0]
    assert len(data.train_ds.cache.store) == 0


def test_a_file_that_is_gone_is_an_error_as_without_cache(photos, cache):
    data, plain = bunch(photos, cache), bunch(photos)
    epochs(data, 1)
    photos[2].unlink()
    photos[3].write_bytes(b"no photo")
    for i in (2, 3):
        with pytest.raises(ItemError) as caught:
            data.train_ds[i]
        with pytest.raises(ItemError) as expected:
            plain.train_ds[i]
        assert str(caught.value) == str(expected.value) and f"item {i} of 9" in str(caught.value)


def test_a_transform_that_fails_is_named_with_its_item(tmp_path, cache):
    photos = [write_photo(tmp_path / f"{i}.jpg", i) for i in range(8)]
    write_masks(photos)
    PILImage.fromarray(np.zeros((5, 5), np.uint8)).save(mask_of(photos[1]))
    data = bunch(photos, cache, Resize(8), (ImageBlock, MaskBlock(["a", "b", "c"])), mask_of)
    with pytest.raises(ItemError, match=r"item transform PlaceOnImage failed on item 1 of 6 .*the mask is 5 × 5"):
        data.train_ds[1]


# ---- pipelines that change


def test_a_transform_that_is_changed_in_place_is_noticed(photos, cache):
    data, plain = bunch(photos, cache, Resize(32)), bunch(photos, None, Resize(32))
    epochs(data, 1)
    for either in (data, plain):
        either.train_ds.item_tfms[0].size = 24
    assert_same(data.train_ds[0], plain.train_ds[0])
    assert data.train_ds[0][0].shape == (3, 24, 24)
    for either in (data, plain):
        either.train_ds.item_tfms = [Resize(20, "pad")]
        either.train_ds.blocks[0] = ImageBlock("L")
    assert_same(data.train_ds[0], plain.train_ds[0])


def test_pipelines_on_disk_are_kept_apart(photos):
    grey = ImageBlock("L"), CategoryBlock
    for options in ({}, {"tfms": Resize(32, "pad")}, {"blocks": grey}, {"tfms": None, "bs": 1}):
        assert_same(epochs(bunch(photos, "disk", **options)), epochs(bunch(photos, **options)))
    assert len(list_caches()) == 4


@dataclass
class Half(Transform):
    """The upper half."""

    is_fixed: ClassVar[bool] = True

    def __call__(self, sample, rand):
        return (rewrap(sample[0][:, : sample[0].shape[1] // 2], sample[0]), *sample[1:])


@dataclass
class HalfOrNot(Half):
    """A subclass that does something else."""

    def __call__(self, sample, rand):
        return sample if rand is None or rand.uniform(1) < 0.5 else super().__call__(sample, rand)


class JitteredResize(Resize):
    """The same, for what `presize` promises."""

    def __call__(self, sample, rand):
        darker = rand is not None and rand.uniform(1) < 0.5
        return super().__call__((rewrap(sample[0] // 2, sample[0]), *sample[1:]) if darker else sample, rand)


def test_transforms_of_ones_own_are_kept_in_memory_if_they_say_that_they_are_fixed():
    blocks = [ImageBlock()]
    for tfms, in_memory, on_disk in (
        ([Half(), Resize(8)], 1, 0),
        ([HalfOrNot(), Resize(8)], 0, 0),
        ([RatioResize(9), Half(), Resize(8)], 2, 1),
    ):
        assert Kept(blocks, tfms, lasting=False).n_whole == in_memory
        assert Kept(blocks, tfms, lasting=True).n_whole == on_disk
    assert Kept(blocks, [Resize(8)], lasting=True).presized and not Kept(blocks, [JitteredResize(8)], False).presized


@pytest.mark.parametrize("tfms", [[Half(), Resize(16)], [HalfOrNot(), Resize(16)], JitteredResize(16)], ids=str)
def test_samples_of_transforms_of_ones_own_are_the_same(photos, cache, tfms):
    assert_same(epochs(bunch(photos, cache, tfms)), epochs(bunch(photos, None, tfms)))


@dataclass
class MyImageBlock(ImageBlock):
    def encode(self, value):
        image = super().encode(value)
        return rewrap(image.flip(-1), image)


@dataclass
class FileSize(Block):
    """A value that is no picture, made of a file."""

    def encode(self, value):
        return torch.tensor(Path(value).stat().st_size)


def test_blocks_of_ones_own_are_kept_in_memory_and_refused_on_disk(photos):
    blocks = MyImageBlock, CategoryBlock
    data = bunch(photos, "memory", blocks=blocks)
    assert_same(epochs(data), epochs(bunch(photos, blocks=blocks)))
    assert len(data.train_ds.cache.store) == 12
    with pytest.raises(ValueError, match=r"keeps nothing of MyImageBlock, whose code is your own: .*cache='memory'"):
        bunch(photos, "disk", blocks=blocks)
    data = bunch(photos, "memory", None, (FileSize, CategoryBlock))
    assert_same(epochs(data), epochs(bunch(photos, None, None, (FileSize, CategoryBlock))))
    assert len(data.train_ds.cache.store) == 12


# ---- what cannot be


def test_another_word_is_answered_with_the_options(photos):
    with pytest.raises(ValueError, match="cache='disc': the options are None, 'memory' and 'disk'"):
        bunch(photos, "disc")
    with pytest.raises(TypeError, match=r"cache is None, 'memory', 'disk' or a Cache\(…\), not True"):
        bunch(photos, True)
    with pytest.raises(ValueError, match="'many' is no size"):
        Cache("memory", "many")
    with pytest.raises(ValueError, match="in memory has no folder"):
        Cache("memory", folder="/tmp")


def test_items_that_are_no_files_are_named(cache):
    arrays = [(np.zeros((9, 9, 3), np.uint8), "a")] * 4
    block = DataBlock((ImageBlock, CategoryBlock), splitter=EndSplitter(0.25))
    with pytest.raises(ValueError, match=f"cache='{cache}' keeps what blocks make of files, .* give ndarray"):
        block.databunch(arrays, bs=1, cache=cache, device="cpu")
    with pytest.raises(ValueError, match="give only labels"):
        DataBlock((CategoryBlock, CategoryBlock)).databunch([("a", "b")] * 9, bs=1, cache=cache, device="cpu")


def test_arrays_among_files_are_decoded_each_time(photos, cache):
    items = [photo if i % 2 else np.array(PILImage.open(photo)) for i, photo in enumerate(photos)]
    data = bunch(items, cache, get_y=lambda item: "a")
    assert_same(epochs(data), epochs(bunch(items, get_y=lambda item: "a")))
    assert len(data.train_ds.cache.store) == 6


# ---- limits and disks


def test_a_full_cache_says_so_once_and_training_goes_on(photos, cache):
    with pytest.warns(
        UserWarning, match=r"takes no more items: its 12 KB are used up\. 2 items \(.* KB\) are kept"
    ) as said:
        data = bunch(photos, Cache(cache, "12KB"))
        assert_same(epochs(data), epochs(bunch(photos)))
    assert len(said) == 1 and len(data.train_ds.cache.store) == 2


def test_workers_say_it_once_as_well(photos, monkeypatch, capfd):
    monkeypatch.setattr(warnings, "showwarning", lambda message, *args, **kwargs: os.write(2, f"{message}\n".encode()))
    data = bunch(photos, Cache("memory", "12KB"), num_workers=2)
    assert_same(epochs(data, 2), epochs(bunch(photos), 2))
    said = capfd.readouterr().err
    assert said.count("takes no more items") == 2  # by the first worker of either loader


def test_training_goes_on_on_a_full_disk(photos, small_disk, monkeypatch):
    monkeypatch.setattr(store_module, "_is_nearly_full", lambda file, n_bytes: False)
    folder, _ = small_disk
    with pytest.warns(UserWarning, match=r"takes no more items: No space left on device"):
        data = bunch(photos, Cache("disk", "1GB", folder), Resize(300))
        (folder / "other").write_bytes(bytes(900_000))
        assert_same(epochs(data), epochs(bunch(photos, None, Resize(300))))
    assert 0 < len(data.train_ds.cache.store) < 12


def test_a_folder_that_cannot_be_made_is_said_and_training_goes_on(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match=r"There is no cache on disk, .*[Nn]ot a directory"):
        data = bunch(photos, Cache("disk", folder=tmp_path / "file" / "cache"))
    assert_same(epochs(data), epochs(bunch(photos)))


def test_a_cache_that_may_only_be_read_is_read(photos, small_disk, monkeypatch):
    folder, make_read_only = small_disk
    epochs(bunch(photos, Cache("disk", "1GB", folder)), 1)
    make_read_only()
    opened = counted(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = bunch(photos, Cache("disk", "1GB", folder))
        list(data.valid_dl), list(data.train_dl)
    assert opened == []


# ---- files that are damaged


@pytest.mark.parametrize("name", ["index", "data"])
def test_damaged_caches_give_the_right_photos(photos, name):
    expected = epochs(bunch(photos), 1)
    data = bunch(photos, "disk")
    epochs(data, 1)
    file = data.train_ds.cache.store.folder / name
    good = file.read_bytes()
    for damage in (good[: len(good) // 2], b"", good[:100] + b"\0" * (len(good) - 100), bytes(255 - b for b in good)):
        file.write_bytes(damage)
        assert_same(epochs(bunch(photos, "disk"), 1), expected)
        assert_same(epochs(bunch(photos, "disk"), 1), expected)
    shutil.rmtree(file.parent)
    assert_same(epochs(data, 1), expected)


# ---- workers and processes


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_read_what_others_have_put(photos, cache, workers):
    data = bunch(photos, cache, num_workers=workers)
    assert_same(epochs(data), epochs(bunch(photos)))
    assert len(data.train_ds.cache.store) == 12


def test_spawned_workers_share_it_too(photos):
    data = bunch(photos, "memory")
    loader = DataLoader(data.train_ds, 3, num_workers=1, multiprocessing_context="spawn")
    batches = [*loader]
    assert len(data.train_ds.cache.store) == 9
    assert torch.cat([batch[0] for batch in batches]).equal(torch.stack([data.train_ds[i][0] for i in range(9)]))


def train(photos, results):
    results.put([value.numpy() for value in epochs(bunch(photos, "disk", num_workers=2))])


def test_two_trainings_with_workers_share_one_cache(photos):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=train, args=(photos, results)) for _ in range(2)]
    for process in processes:
        process.start()
    for _ in processes:
        assert_same([torch.from_numpy(value) for value in results.get(timeout=120)], epochs(bunch(photos)))
    for process in processes:
        process.join()
    assert list_caches()["items"].tolist() == [12]


def test_a_cache_is_no_part_of_what_makes_a_run_the_same(photos, cache):
    def drawn(photo):
        return "ab"[int(torch.rand(1) < 0.5)]

    made, next_numbers = [], []
    for which in (cache, None):
        torch.manual_seed(0)
        made.append(bunch(photos, which, blocks=(ImageBlock, CategoryBlock(["a", "b"])), get_y=drawn))
        next_numbers.append(torch.rand(3))
    assert_same(*([numbers] for numbers in next_numbers))
    assert_same(*map(epochs, made))
    assert fingerprint(bunch(photos, cache).train_ds) == fingerprint(bunch(photos).train_ds)


def test_predict_keeps_nothing(photos, cache):
    data = bunch(photos, cache)
    data.input_batch(photos[0])
    assert len(data.train_ds.cache.store) == 0


# ---- the folder


def test_caches_are_listed_and_cleared(photos, home):
    assert len(list_caches()) == len(clear_cache()) == 0
    epochs(bunch(photos, "disk", Resize(32)), 1)
    epochs(bunch(photos, "disk", Resize(16)), 1)
    (home / "items" / "mine").mkdir()
    (home / "items" / "mine" / "index").write_text("not a cache")
    table = list_caches()
    assert table["items"].tolist() == [12, 12] and set(table["files"]) == {str(photos[0].parents[1])}
    assert (table["size"] > 12 * 16 * 16 * 3).all() and "Resize(size=16, " in table["item_tfms"][0]
    old = table["path"][1]
    os.utime(old / "about.json", ns=(LONG_AGO, LONG_AGO))
    assert clear_cache(days=30)["path"].tolist() == [old] and len(list_caches()) == 1
    (table["path"][0] / "notes.txt").write_text("somebody's")
    clear_cache()
    assert len(list_caches()) == 0 and (table["path"][0] / "notes.txt").exists()
    assert (home / "items" / "mine" / "index").exists()


def test_a_training_goes_on_when_its_cache_is_cleared(photos):
    data = bunch(photos, "disk")
    epochs(data, 1)
    clear_cache()
    assert_same(epochs(data), epochs(bunch(photos)))


def test_the_least_recently_used_make_room(photos):
    for i, size in enumerate((30, 31, 32)):  # some 50 KB each: with the first two, more than half of the limit
        data = bunch(photos, Cache("disk", "150KB"), Resize(size))
        epochs(data, 1)
        settled(data.train_ds.cache.store.folder / "about.json", LONG_AGO + i * 10**9)
    table = list_caches()
    assert [done[:15] for done in table["item_tfms"]] == ["Resize(size=32,", "Resize(size=31,"]
    assert table["items"].tolist() == [12, 12] and table["size"].sum() <= 150_000


# ---- from the outside


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the folder of ImageNet samples")
def test_real_photos_are_the_same_to_the_bit(cache):
    photos = get_image_files(PHOTOS)[::12]
    for tfms in (Resize(128), RandomResizedCrop(96)):
        data, plain = (bunch(photos, which, tfms, get_y=lambda photo: "a") for which in (cache, None))
        assert_same(epochs(data, 2), epochs(plain, 2))
        assert_same(data.train_ds[Draw(0, 5)], plain.train_ds[Draw(0, 5)])
