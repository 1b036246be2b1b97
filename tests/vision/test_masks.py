import io
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from warmstart.data import DataBlock, EndSplitter, ItemError, get_image_files
from warmstart.data.portable import describe, restore
from warmstart.learner import CrossEntropyLoss, DiceMulti, Learner, load_learner
from warmstart.vision import ImageBlock, MaskBlock, RandomErasing, Resize, aug_transforms, open_mask

matplotlib.use("Agg")

CAMVID = Path(__file__).parents[3] / "shared/data/camvid"
CODES = ["ground", "disk", "edge"]


def classes(height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (height, width), np.uint8)


def scene(i: int, size: int = 32) -> tuple[Image.Image, np.ndarray]:
    """A bright disk on dark ground, and the mask that says where it is, with a rim that counts for nothing."""
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(x - 8 - i % 16, y - 12 - i % 8)
    noise = np.random.default_rng(i).integers(0, 60, (size, size, 3))
    mask = np.where(distance < 7, 1, np.where(distance < 8, 2, 0)).astype(np.uint8)
    return Image.fromarray((noise + 150 * (distance < 7.5)[..., None]).astype(np.uint8)), mask


def scenes(n: int = 24, block: MaskBlock | None = None, **options):
    """A bunch of scenes, of which the last quarter validates."""
    tfms = {"item_tfms": Resize(32), **{k: options.pop(k) for k in ("item_tfms", "batch_tfms") if k in options}}
    block = DataBlock((ImageBlock, block or MaskBlock(CODES, void="edge")), splitter=EndSplitter(0.25), **tfms)
    items = options.pop("items", [scene(i) for i in range(n)])
    return block.databunch(items, **{"bs": 6, "num_workers": 0, "device": "cpu", "seed": 0, **options})


class Net(nn.Sequential):
    """A class for each pixel out of its surroundings."""

    def __init__(self, n_out: int = 3):
        super().__init__(nn.Conv2d(3, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, n_out, 1))


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


# ---- reading


def test_grey_and_palette_pictures_give_their_numbers(tmp_path):
    expected = torch.from_numpy(classes())
    grey, palette = Image.fromarray(classes()), Image.fromarray(classes()).convert("P")
    palette.putdata(classes().flatten())
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for image in (grey, palette):
        image.save(tmp_path / "mask.png")
        for source in (image, tmp_path / "mask.png", str(tmp_path / "mask.png"), (tmp_path / "mask.png").read_bytes()):
            mask = open_mask(source)
            assert isinstance(mask, tv_tensors.Mask) and mask.dtype == torch.uint8 and mask.equal(expected)


@pytest.mark.parametrize(
    "source, dtype",
    [
        (classes(), torch.uint8),
        (classes().astype(np.int32), torch.int64),
        (classes().astype(np.uint16), torch.int64),
        (torch.from_numpy(classes())[None], torch.uint8),
        (torch.from_numpy(classes()).short(), torch.int64),
        (tv_tensors.Mask(torch.from_numpy(classes()).long()), torch.int64),
        (Image.fromarray(classes().astype(np.int32)), torch.int64),
    ],
)
def test_arrays_tensors_and_wide_numbers_are_masks(source, dtype):
    mask = open_mask(source)
    assert mask.dtype == dtype and mask.long().equal(torch.from_numpy(classes()).long())


def test_yes_and_no_are_one_and_zero():
    yes = classes() > 0
    for source in (yes, torch.from_numpy(yes), Image.fromarray(yes)):
        assert open_mask(source).equal(torch.from_numpy(yes).to(torch.uint8))


def test_what_is_no_mask_is_refused_with_what_is(tmp_path):
    with pytest.raises(ValueError, match=r"one number for each pixel, and this is a picture of mode RGB: let get_y"):
        open_mask(Image.new("RGB", (4, 4)))
    for wrong in (np.ones((3, 4)), torch.ones(3, 4), torch.ones(3, 4, 3, dtype=torch.uint8), np.ones(4, np.uint8)):
        with pytest.raises(ValueError, match=r"a mask has integers \(h, w\), one for each pixel; got"):
            open_mask(wrong)
    with pytest.raises(TypeError, match="a mask is a path, bytes, PIL image, array or tensor, not list"):
        open_mask([[0, 1]])
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(file, "PNG")
    (tmp_path / "cut.png").write_bytes(file.getvalue()[:2000])
    with pytest.raises(ValueError, match=r"this mask cannot be read .*: replace the file"):
        open_mask(tmp_path / "cut.png")
    with pytest.raises(ValueError, match=r"this mask cannot be read .*: replace the file"):
        open_mask(b"no picture")
    with pytest.raises(FileNotFoundError):
        open_mask(tmp_path / "none.png")


# ---- the block


def test_a_model_needs_an_output_for_each_code():
    assert MaskBlock(np.array(CODES)).codes == CODES and MaskBlock(CODES).n_out == 3 and MaskBlock().n_out is None
    data = scenes()
    assert data.c == 3 and data.classes == CODES


def test_void_is_ignored_by_the_loss():
    assert MaskBlock(CODES).loss == CrossEntropyLoss(axis=1)
    assert MaskBlock(CODES, void="edge").loss == CrossEntropyLoss(axis=1, ignore_index=2)
    assert MaskBlock(CODES, void=255).ignore_index == 255
    learn = Learner(scenes(), Net())
    pred, mask = torch.randn(1, 3, 4, 4), torch.tensor([[[0, 1, 2, 2]] * 4])
    expected = nn.functional.cross_entropy(pred[..., :2], mask[..., :2])
    torch.testing.assert_close(learn.loss_func(pred, mask), expected)
    with pytest.raises(ValueError, match=r"void='rim' is none of the codes \['ground', 'disk', 'edge'\]"):
        MaskBlock(CODES, void="rim")


def test_void_counts_for_nothing_in_metrics():
    block = MaskBlock(CODES, void="edge")
    metric = DiceMulti(ignore_index=block.ignore_index)
    mask = torch.tensor([[[0, 1, 2, 2]]])
    pred = nn.functional.one_hot(torch.tensor([[[0, 1, 0, 1]]]), 3).movedim(-1, 1).float()
    metric.update(pred, mask)
    assert metric.compute() == 1


def test_class_weights_count_pixels():
    data = scenes()
    counts = np.bincount(np.concatenate([scene(i)[1].ravel() for i in range(18)]))
    assert np.allclose(data.class_weights(), counts.sum() / (3 * counts))


def test_numbers_beyond_the_codes_are_named_with_their_place_and_the_item():
    bad = classes()
    bad[3, 5], bad[3, 6] = 255, 7
    with pytest.raises(ValueError, match=r"2 of 1200 pixels beyond its 3 codes \(0 to 2\), first: 255 at x = 5, y = 3"):
        MaskBlock(CODES).encode(bad)
    with pytest.raises(ValueError, match=r"1 of 1200 .* first: 7 at x = 6, y = 3.*void=7 if these pixels"):
        MaskBlock(CODES, void=255).encode(bad)
    with pytest.raises(ValueError, match="first: -1 at x = 0, y = 0"):
        MaskBlock(CODES).encode(np.array([[-1, 0]]))
    assert MaskBlock(CODES, void=-1).encode(np.array([[-1, 0]])).tolist() == [[-1, 0]]
    assert MaskBlock().encode(bad).max() == 255
    items = [scene(0), scene(1), (scene(2)[0], np.full((32, 32), 9, np.uint8)), scene(3)]
    with pytest.raises(ItemError, match=r"MaskBlock\.encode failed on item 2 of 3 .*beyond its 3 codes"):
        scenes(items=items, bs=3).one_batch()


def test_a_mask_of_another_size_than_its_image_is_an_error_that_names_the_item():
    items = [scene(0), scene(1), (scene(2)[0], scene(2)[1][:30]), scene(3)]
    with pytest.raises(
        ItemError,
        match=r"transform PlaceOnImage failed on item 2 of 3 .*the mask is 30 × 32 pixels and its image 32 × 32",
    ):
        scenes(items=items, bs=3).one_batch()


def test_a_mask_needs_an_image():
    block = DataBlock((MaskBlock(CODES), MaskBlock(CODES)), splitter=EndSplitter(0.5))
    with pytest.raises(ItemError, match=r"no image .*let an ImageBlock come before"):
        block.datasets([(classes(), classes())] * 2).train[0]


def test_batches_are_int64_and_move_with_their_images():
    data = scenes(batch_tfms=[*aug_transforms(size=24, max_rotate=30, max_lighting=0), RandomErasing(p=0)])
    assert data.train_ds[0][1].dtype == torch.uint8
    images, masks = data.one_batch()
    assert type(masks) is Tensor and masks.dtype == torch.int64 and masks.shape == (6, 24, 24)
    bright = images.mean(1) > 0.4
    assert (bright == (masks == 1))[masks != 2].float().mean() > 0.97


@pytest.mark.parametrize("tfm", [Resize(24), Resize(24, "pad", "zeros"), Resize((24, 30), "squish")])
def test_validation_resizes_masks_with_their_images(tfm):
    (images, masks), *_ = scenes(item_tfms=tfm).valid_dl
    assert (((images.mean(1) > 0.4) == (masks == 1))[masks != 2]).float().mean() > 0.97


def test_a_description_makes_the_block_again():
    for block in (MaskBlock(CODES, void="edge"), MaskBlock(void=255), MaskBlock()):
        assert restore(json.loads(json.dumps(describe(block)))) == block


# ---- from pictures to predictions


def test_a_network_learns_to_segment_and_says_so(tmp_path):
    torch.manual_seed(0)
    data = scenes(48, batch_tfms=aug_transforms(max_rotate=20))
    learn = Learner(data, Net(), metrics=DiceMulti(ignore_index=2))
    with learn.no_bar(), learn.no_logging():
        before = learn.validate()
        learn.fit(6, 0.03)
        after = learn.validate()
    assert after["valid_loss"] < before["valid_loss"] / 2 and after["dice_multi"] > 0.9
    picture, mask = scene(50)
    pred = learn.predict((picture,))
    assert pred.decoded.shape == (32, 32) and pred.probs.shape == (3, 32, 32)
    assert (pred.decoded == torch.from_numpy(mask))[torch.from_numpy(mask) != 2].float().mean() > 0.95
    preds, targs = learn.get_preds()
    assert preds.shape == (12, 3, 32, 32) and targs.shape == (12, 32, 32)
    learn.show_results(2)
    learn.export(tmp_path / "segments.pt")
    loaded = load_learner(tmp_path / "segments.pt", custom={"Net": Net})
    assert loaded.predict((picture,)).decoded.equal(pred.decoded) and loaded.data.classes == CODES
    assert loaded.loss_func == CrossEntropyLoss(axis=1, ignore_index=2)
    plt.close("all")


@pytest.mark.skipif(not CAMVID.exists(), reason="needs the photos of CamVid")
def test_camvid_is_described_trained_on_and_shown():
    mask = MaskBlock(np.loadtxt(CAMVID / "codes.txt", dtype=str), void="Void")
    block = DataBlock(
        (ImageBlock, mask),
        get_items=lambda path: get_image_files(path)[:40],
        get_y=lambda f: CAMVID / "labels" / f"{f.stem}_P.png",
        splitter=EndSplitter(0.25),
        item_tfms=Resize(120),
        batch_tfms=aug_transforms(size=64),
    )
    data = block.databunch(CAMVID / "images", bs=6, num_workers=0, device="cpu", seed=0)
    data.show_batch(4)
    torch.manual_seed(0)
    learn = Learner(data, Net(data.c), metrics=DiceMulti(ignore_index=mask.ignore_index))
    with learn.no_bar(), learn.no_logging():
        learn.fit(4, 0.01)
    losses = learn.recorder.history["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0] - 0.3
    learn.show_results(2)
    plt.close("all")


# ---- drawing


def test_a_mask_is_drawn_over_its_image_with_a_legend_of_what_occurs(ax):
    block, mask = MaskBlock(CODES, void="edge"), torch.tensor([[1, 1, 2, 2]] * 3)
    ImageBlock().draw(torch.rand(3, 3, 4), ax)
    block.draw(mask, ax)
    image, overlay = ax.images
    assert overlay.get_extent() == image.get_extent()
    opacity = overlay.get_array()[..., 3]
    assert (opacity[:, :2] > 0.4).all() and (opacity[:, 2:] == 0).all()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["disk"]


def test_target_and_prediction_are_drawn_side_by_side_over_the_same_image(ax):
    block = MaskBlock(CODES)
    ImageBlock().draw(torch.rand(3, 3, 40), ax)
    block.draw_result(torch.zeros(3, 40).long(), torch.ones(3, 40).long(), ax)
    left, target, right, pred = ax.images
    assert left.get_extent() == target.get_extent() and right.get_extent() == pred.get_extent()
    assert right.get_extent()[0] > left.get_extent()[1] and np.array_equal(left.get_array(), right.get_array())
    assert ax.get_xlim() == (left.get_extent()[0], right.get_extent()[1])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ground", "disk"]


def test_a_mask_alone_is_drawn_and_told_in_words(ax):
    block, mask = MaskBlock(), torch.tensor([[0, 7]])
    block.draw(mask, ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "7"]
    assert block.text(mask) == "mask 1 × 2: 0, 7" and MaskBlock(CODES).text(mask[:, :1]) == "mask 1 × 1: ground"


def test_show_batch_draws_images_and_masks():
    scenes().show_batch(4)
    axes = plt.gcf().axes
    assert len(axes) == 4 and all(len(ax.images) == 2 and ax.get_legend() for ax in axes)
    plt.close("all")
