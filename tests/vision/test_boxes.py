import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from warmstart.data import DataBlock, EndSplitter, ItemError, ItemGetter, RandomSplitter, get_image_files
from warmstart.data.portable import describe, restore
from warmstart.learner import Learner, load_learner
from warmstart.vision import (
    BBoxBlock,
    BBoxLabelBlock,
    ImageBlock,
    Resize,
    aug_transforms,
    get_annotations,
    get_voc_annotations,
)
from warmstart.vision.boxes import BlankLabels, DropVanished
from warmstart.vision.positions import as_boxes

matplotlib.use("Agg")

DATA = Path(__file__).parents[3] / "shared/data"
HEIGHT, WIDTH = 48, 64
COLOURS = {"red": 0, "green": 1, "blue": 2}


def scene(i: int, n: int | None = None) -> tuple[Image.Image, list[list[float]], list[str]]:
    """Up to three rectangles, one in each third of the picture, their boxes and colours."""
    random = np.random.default_rng(i)
    picture, boxes, names = random.integers(0, 30, (HEIGHT, WIDTH, 3)), [], []
    for third in range(random.integers(0, 4) if n is None else n):
        x1, y1 = 21 * third + random.integers(1, 8), random.integers(2, 20)
        x2, y2 = x1 + random.integers(6, 12), y1 + random.integers(8, 24)
        names.append(list(COLOURS)[random.integers(3)])
        picture[y1:y2, x1:x2, COLOURS[names[-1]]] = 250
        boxes.append([float(number) for number in (x1, y1, x2, y2)])
    return Image.fromarray(picture.astype(np.uint8)), boxes, names


def scenes(n: int = 16, items=None, label=BBoxLabelBlock, **options):
    tfms = {k: options.pop(k) for k in ("item_tfms", "batch_tfms") if k in options}
    block = DataBlock((ImageBlock, BBoxBlock, label), n_inp=1, splitter=EndSplitter(0.25), **tfms)
    items = [scene(i) for i in range(n)] if items is None else items
    return block.databunch(items, **{"bs": 4, "num_workers": 0, "device": "cpu", "seed": 0, **options})


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


# ---- the blocks


@pytest.mark.parametrize("value", [[[1, 2, 3.5, 4]], np.array([[1, 2, 3.5, 4]]), torch.tensor([[1, 2, 3.5, 4]])])
def test_boxes_are_floats_whatever_they_come_as(value):
    boxes = BBoxBlock().encode(value)
    assert isinstance(boxes, tv_tensors.BoundingBoxes) and boxes.dtype == torch.float32
    assert boxes.tolist() == [[1, 2, 3.5, 4]]


def test_no_boxes_and_one_box_are_boxes():
    assert BBoxBlock().encode([]).shape == (0, 4) and BBoxBlock().encode(np.zeros((0, 4))).shape == (0, 4)
    assert BBoxBlock().encode((1, 2, 3, 4)).shape == (1, 4)
    assert BBoxLabelBlock(["a"]).encode([]).shape == (0,)


def test_a_list_of_getters_says_how_many_targets_there_are():
    block = DataBlock(
        (ImageBlock, BBoxBlock, BBoxLabelBlock),
        get_x=ItemGetter(0), get_y=[ItemGetter(1), ItemGetter(2)], splitter=EndSplitter(0.25),
    )  # fmt: skip
    assert block.n_inp == 1
    data = block.databunch([scene(i) for i in range(8)], bs=2, num_workers=0, device="cpu")
    assert len(data.one_batch()) == 3


def test_labels_are_learned_and_na_is_the_first():
    data = scenes()
    assert data.vocab == ["#na#", "blue", "green", "red"] and data.targets[1].n_out == 4
    assert scenes(label=BBoxLabelBlock(["red", "green", "blue"])).vocab == ["#na#", "red", "green", "blue"]
    assert scenes(label=BBoxLabelBlock(add_na=False)).vocab == ["blue", "green", "red"]


@pytest.mark.parametrize("add_na", [True, False])
def test_a_batch_is_filled_up_to_the_most_boxes(add_na):
    items = [scene(i, n) for i, n in enumerate([2, 0, 3, 1, 1])]
    data = scenes(items=items, label=BBoxLabelBlock(add_na=add_na), shuffle=False)
    images, boxes, labels = data.one_batch()
    assert type(boxes) is Tensor and boxes.shape == (4, 3, 4) and labels.shape == (4, 3)
    counts = torch.tensor([2, 0, 3, 1])
    is_box = torch.arange(3) < counts[:, None]
    assert (boxes[~is_box] == 0).all() and (labels[~is_box] == (0 if add_na else -100)).all()
    assert (labels[is_box] >= add_na).all()
    scale = torch.tensor([WIDTH, HEIGHT] * 2) / 2
    torch.testing.assert_close(boxes[2], torch.tensor(items[2][1]) / scale - 1)
    for (_, found, names), item in zip(data.decode((images, boxes, labels)), items, strict=False):
        torch.testing.assert_close(found, torch.tensor(item[1]).reshape(-1, 4))
        assert names == item[2]


def test_a_batch_without_any_box_has_none():
    data = scenes(items=[scene(i, n) for i, n in enumerate([0] * 6)], label=BBoxLabelBlock(["red"]))
    _, boxes, labels = data.one_batch()
    assert boxes.shape == (4, 0, 4) and labels.shape == (4, 0) and labels.dtype == torch.int64
    assert [len(boxes) for _, boxes, _ in data.decode(data.one_batch())] == [0] * 4


def test_boxes_and_labels_move_with_what_they_are_about():
    data = scenes(
        64, bs=48, item_tfms=Resize((44, 60), "pad"), batch_tfms=aug_transforms(size=(50, 50), max_lighting=0)
    )
    n_seen = 0
    for image, boxes, names in data.decode(data.one_batch()):
        assert len(boxes) == len(names)
        for (x1, y1, x2, y2), name in zip(boxes.tolist(), names, strict=True):
            if x2 - x1 > 4 and y2 - y1 > 4:
                middle = image[:, int((y1 + y2) / 2), int((x1 + x2) / 2)]
                assert middle.argmax() == COLOURS[name] and middle.max() > 0.7
                n_seen += 1
    assert n_seen > 40


# ---- boxes that vanish


def test_boxes_that_a_crop_leaves_out_go_with_their_labels():
    picture = Image.new("RGB", (100, 40))
    items = [(picture, [[0, 0, 10, 10], [40, 5, 60, 15], [90, 0, 99, 9]], ["red", "green", "blue"])] * 4
    data = scenes(items=items, item_tfms=Resize(40), bs=3)
    for dl in (data.valid_dl, data.train_dl):
        for _, boxes, names in data.decode(next(iter(dl))):
            assert len(boxes) == len(names) < 3
    (_, boxes, names), *_ = data.decode(next(iter(data.valid_dl)))
    assert names == ["green"] and boxes.tolist() == [[10, 5, 30, 15]]


def test_boxes_that_vanish_from_a_batch_become_zeros_and_na():
    zoom = aug_transforms(do_flip=False, max_rotate=0, max_warp=0, min_zoom=3, max_zoom=3, max_lighting=0, p_affine=1)
    picture = Image.new("RGB", (60, 60))
    items = [(picture, [[0, 0, 8, 8], [26, 26, 34, 34], [52, 52, 60, 60]], ["red", "green", "blue"])] * 24
    data = scenes(items=items, batch_tfms=zoom, bs=18)
    images, boxes, labels = data.one_batch()
    gone = (boxes == 0).all(-1)
    assert gone.any() and not gone.all() and ((labels == 0) == gone).all()
    for _, found, names in data.decode((images, boxes, labels)):
        assert len(found) == len(names) and ((found[:, 2:] - found[:, :2]) >= 0.999).all()


def test_labels_are_those_right_after_their_boxes():
    boxes = as_boxes(torch.tensor([[0.0, 0, 0.5, 9], [1, 1, 5, 5]]), (9, 9))
    labels, other, floats = torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([0.1, 0.2])
    result = DropVanished()((boxes, labels, other), None)
    assert result[0].tolist() == [[1, 1, 5, 5]] and result[1].tolist() == [2] and result[2] is other
    assert DropVanished()((boxes, floats), None)[1] is floats
    batch = as_boxes(torch.tensor([[[0.0, 0, 0, 0], [0, 0, 1, 1]]]), (9, 9))
    assert BlankLabels(7)((batch, torch.tensor([[1, 2]])), None)[1].tolist() == [[7, 2]]
    assert BlankLabels(7)((batch, torch.tensor([1])), None)[1].tolist() == [1]


def test_transforms_of_torchvision_move_boxes_of_an_item():
    data = scenes(item_tfms=v2.RandomHorizontalFlip(p=1), shuffle=False, items=[scene(i, 2) for i in range(8)])
    _, boxes, _ = data.one_batch()
    plain = torch.tensor([scene(i, 2)[1] for i in range(4)])
    expected = torch.stack([WIDTH - plain[..., 2], plain[..., 1], WIDTH - plain[..., 0], plain[..., 3]], -1)
    torch.testing.assert_close(boxes, expected / (torch.tensor([WIDTH, HEIGHT] * 2) / 2) - 1)


# ---- mistakes


@pytest.mark.parametrize("box", [(30, 5, 20, 15), (20, 15, 30, 5), (20, 5, 20, 15), (20, 5, float("nan"), 9)])
def test_boxes_without_width_or_height_are_found_before_training(box):
    items = [scene(i, 1) for i in range(8)]
    items[3] = (items[3][0], [[1, 2, 3, 4], box], ["red", "red"])
    with pytest.raises(ItemError, match=r"BBoxBlock\.encode failed on item 3 of 6 .*box 1 \(.*no width or height"):
        scenes(items=items)


@pytest.mark.parametrize("box", [(70, 5, 80, 15), (-9, 5, -1, 15), (5, 48, 9, 60)])
def test_a_box_outside_of_its_image_is_an_error_that_names_the_item(box):
    items = [scene(i, 1) for i in range(8)]
    items[3] = (items[3][0], [[1, 2, 3, 4], box], ["red", "red"])
    with pytest.raises(ItemError, match=r"failed on item 3 of 6 .*box 1 \(.*outside of its image, which is 64 wide"):
        scenes(items=items, bs=6).one_batch()


def test_what_of_a_box_is_outside_is_cut_off():
    items = [(picture, [[-5, 3, 70, 50]], ["red"]) for picture, *_ in map(scene, range(5))]
    assert (scenes(items=items).one_batch()[1][:, 0] == torch.tensor([-1, 3 / 24 - 1, 1, 1])).all()


def test_a_label_is_needed_for_each_box():
    items = [scene(i, 2) for i in range(8)]
    items[3] = (*items[3][:2], ["red"])
    with pytest.raises(ItemError, match=r"failed on item 3 of 6 .*there are 2 boxes and 1 labels"):
        scenes(items=items, bs=6).one_batch()
    items[3] = (*items[3][:2], ["red", None])
    with pytest.raises(ItemError, match=r"failed on item 3 of 6 .*box 1 has no label"):
        scenes(items=items, bs=6)
    items[3] = (*items[3][:2], "red")
    with pytest.raises(TypeError, match=r"needs a list with a label for each box, got 'red'"):
        scenes(items=items, bs=6)


def test_an_unknown_label_is_found_before_training():
    with pytest.raises(ItemError, match=r"BBoxLabelBlock\.encode failed on item .*not in the vocabulary"):
        scenes(label=BBoxLabelBlock(["red"]))


def test_what_are_no_boxes_is_refused():
    for value in ([1, 2, 3], [[1, 2, 3, 4, 5]]):
        with pytest.raises(ValueError, match=r"boxes are \(n, 4\)"):
            BBoxBlock().encode(value)
    with pytest.raises(TypeError, match="needs a list of boxes"):
        BBoxBlock().encode("here")


def test_a_loss_of_ones_own_is_asked_for():
    with pytest.raises(ValueError, match="names no losses"):
        Learner(scenes(), Net(4))


def test_descriptions_make_the_blocks_again():
    for block in (BBoxBlock(), BBoxLabelBlock(["a", "b"]), BBoxLabelBlock(["a"], add_na=False), BBoxLabelBlock()):
        assert restore(json.loads(json.dumps(describe(block)))) == block


# ---- from pictures to predictions


class Net(nn.Module):
    """A box and the scores of its label for each third of a picture."""

    def __init__(self, n_labels: int):
        super().__init__()
        self.boxes, self.scores = nn.Linear(3 * 12 * 24, 12), nn.Linear(3 * 12 * 24, 3 * n_labels)

    def forward(self, images):
        x = F.adaptive_avg_pool2d(images, (12, 24)).flatten(1)
        return self.boxes(x).view(len(x), 3, 4), self.scores(x).view(len(x), 3, -1)


@dataclass
class ThirdsLoss:
    """Each third is to answer with the box whose middle lies in it, or with #na#."""

    reduction: str = "mean"

    def __call__(self, pred, boxes, labels):
        item, which = (labels > 0).nonzero(as_tuple=True)
        real, label = boxes[item, which], labels[item, which]
        third = ((real[:, 0] + real[:, 2] + 2) / 4 * 3).long().clamp(0, 2)
        wanted = torch.zeros(len(boxes), 3, dtype=torch.int64)
        wanted[item, third] = label
        return F.l1_loss(pred[0][item, third], real) + F.cross_entropy(pred[1].flatten(0, 1), wanted.flatten())


def test_a_network_learns_to_find_boxes_and_says_so(tmp_path):
    torch.manual_seed(0)
    data = scenes(256, bs=32, batch_tfms=aug_transforms(max_warp=0, max_rotate=3))
    learn = Learner(data, Net(4), loss_func=ThirdsLoss())
    with learn.no_bar(), learn.no_logging():
        before = learn.validate()["valid_loss"]
        learn.fit(8, 0.02)
        assert learn.validate()["valid_loss"] < before / 2
    pred = learn.predict((scene(500, 3)[0],))
    boxes, names = pred.decoded
    assert len(boxes) == len(names) > 0 and "#na#" not in names and boxes.max() > 2  # in pixels
    preds, targs = learn.get_preds()
    assert [len(part) for part in preds] == [64, 64] == [len(part) for part in targs]
    learn.show_results(4)
    learn.export(tmp_path / "boxes.pt")
    custom = {"Net": Net(4), "ThirdsLoss": ThirdsLoss}
    loaded = load_learner(tmp_path / "boxes.pt", custom=custom)
    again = loaded.predict((scene(500, 3)[0],)).decoded
    assert again[0].equal(boxes) and again[1] == names
    plt.close("all")


def of_files(names, annotations):
    by_name = dict(zip(names, annotations, strict=True))
    return [lambda file: by_name[file.name].boxes, lambda file: by_name[file.name].labels]


@pytest.mark.parametrize(
    "getters, images, vocab",
    [
        (lambda: get_voc_annotations(DATA / "bccd/annotations"), "bccd/images", ["Platelets", "RBC", "WBC"]),
        (
            lambda: get_annotations(DATA / "coco-tiny/train.json"),
            "coco-tiny/train",
            ["book", "chair", "couch", "remote", "tv", "vase"],
        ),
    ],
    ids=["bccd", "coco-tiny"],
)
def test_real_photos_are_described_trained_on_and_shown(getters, images, vocab):
    if not (DATA / images).exists():
        pytest.skip("needs the photos")
    block = DataBlock(
        (ImageBlock, BBoxBlock, BBoxLabelBlock),
        get_items=lambda path: get_image_files(path)[:40],
        get_y=of_files(*getters()),
        splitter=RandomSplitter(0.2, seed=0),
        item_tfms=Resize(96, "squish"),
        batch_tfms=aug_transforms(size=64),
    )
    data = block.databunch(DATA / images, bs=8, num_workers=0, device="cpu", seed=0)
    assert data.vocab == ["#na#", *vocab]
    data.show_batch(4)
    torch.manual_seed(0)
    learn = Learner(data, Net(len(data.vocab)), loss_func=ThirdsLoss())
    with learn.no_bar(), learn.no_logging():
        learn.fit(4, 0.001)
    losses = learn.recorder.history["train_loss"].tolist()
    assert losses[-1] < 0.9 * losses[0]
    learn.show_results(2)
    plt.close("all")


# ---- drawing


def rectangles(ax):
    return [[*box.get_xy(), box.get_width(), box.get_height()] for box in ax.patches]


def texts(ax):
    return [(text.get_text(), *text.get_position()) for text in ax.texts]


def test_boxes_are_drawn_around_their_pixels_with_their_labels(ax):
    ImageBlock().draw(torch.rand(3, 20, 40), ax)
    BBoxBlock().draw(torch.tensor([[0.0, 0, 1, 1], [10, 5, 20, 9]]), ax)  # the first pixel, and another box
    BBoxLabelBlock().draw(["ant", "bee"], ax)
    assert rectangles(ax) == [[-0.5, -0.5, 1, 1], [9.5, 4.5, 10, 4]]
    assert texts(ax) == [("ant", -0.5, -0.5), ("bee", 9.5, 4.5)]
    assert [text.get_verticalalignment() for text in ax.texts] == ["top", "bottom"]  # there is no room above the first
    assert ax.get_xlim() == (-0.5, 39.5)


def test_target_and_prediction_are_drawn_in_two_colours(ax):
    ImageBlock().draw(torch.rand(3, 20, 40), ax)
    BBoxBlock().draw_result(torch.tensor([[10.0, 5, 20, 9]]), torch.tensor([[20.0, 10, 30, 15]]), ax)
    BBoxLabelBlock().draw_result(["ant"], ["bee"], ax)
    assert rectangles(ax) == [[9.5, 4.5, 10, 4], [19.5, 9.5, 10, 5]]
    assert texts(ax) == [("ant", 9.5, 4.5), ("bee", 19.5, 9.5)]
    assert ax.patches[0].get_edgecolor() != ax.patches[1].get_edgecolor()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["target", "prediction"]


def test_boxes_and_labels_are_told_in_words():
    assert BBoxBlock().text(torch.tensor([[1.0, 2, 3, 4.5]])) == "(1, 2, 3, 4.5)"
    assert BBoxLabelBlock().text(["ant", "bee"]) == "ant;bee"


def test_boxes_predicted_to_be_none_are_left_out_with_their_labels():
    data = scenes(label=BBoxLabelBlock(["ant", "bee"], add_na=True), items=[(Image.new("RGB", (40, 20)), [], [])] * 8)
    boxes = torch.tensor([[[-1.0, -1, 1, 1], [0, 0, 0.5, 0.5]]])
    scores = torch.tensor([[[3, 1, 2], [0.1, 0.2, 0.9]]])
    ((_, boxes, names),) = data.decode((torch.zeros(1, 3, 20, 40), boxes, scores))
    assert boxes.tolist() == [[20, 10, 30, 15]] and names == ["bee"]


def test_labels_beyond_the_vocabulary_keep_their_number():
    block = BBoxLabelBlock(["ant", "bee"])
    assert block.decode(torch.tensor([1, 0, 2, 0])) == ["ant", "bee"]
    assert block.decode(torch.tensor([5])) == [5]
