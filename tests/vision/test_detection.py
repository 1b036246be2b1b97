"""Detectors in a Learner: they see boxes as torchvision wants them, learn, tell what they find, and come back."""

import copy
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import nn
from torchvision.models.detection import (
    FCOS,
    FasterRCNN,
    RetinaNet,
    maskrcnn_resnet50_fpn,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign, box_iou
from warmstart.data import DataBlock, EndSplitter
from warmstart.data.portable import describe, restore
from warmstart.learner import load_learner, set_seed
from warmstart.vision import (
    BBoxBlock,
    BBoxLabelBlock,
    CategoryBlock,
    ImageBlock,
    MeanAveragePrecision,
    Normalize,
    Resize,
    aug_transforms,
    detection_learner,
    get_image_files,
    get_voc_annotations,
    imagenet_stats,
)
from warmstart.vision.detection_model import DetectionModel, split_detector
from warmstart.vision.detector import Detections, Detector

matplotlib.use("Agg")

BCCD = Path(__file__).parents[3] / "shared/data/bccd"
HEIGHT, WIDTH = 48, 64
COLOURS = {"blue": 2, "red": 0}


def scene(i: int) -> tuple[Image.Image, list[list[float]], list[str]]:
    """Up to two rectangles, red or blue, one in each half of a noisy picture; every fifth picture has none."""
    random = np.random.default_rng(i)
    picture, boxes, names = random.integers(0, 40, (HEIGHT, WIDTH, 3)), [], []
    for half in range(0 if i % 5 == 4 else random.integers(1, 3)):
        x1, y1 = 32 * half + random.integers(2, 12), random.integers(2, 22)
        x2, y2 = x1 + random.integers(12, 18), y1 + random.integers(12, 22)
        names.append([*COLOURS][random.integers(2)])
        picture[y1:y2, x1:x2, COLOURS[names[-1]]] = 250
        boxes.append([float(number) for number in (x1, y1, x2, y2)])
    return Image.fromarray(picture.astype(np.uint8)), boxes, names


def scenes(n: int = 30, blocks=(ImageBlock, BBoxBlock, BBoxLabelBlock), bs: int = 4, **options):
    block = DataBlock(blocks, n_inp=1, splitter=EndSplitter(0.2), **options)
    return block.databunch([scene(i) for i in range(n)], bs=bs, num_workers=0, device="cpu", seed=0)


def backbone() -> nn.Sequential:
    """Maps of 32 channels at an eighth of the image's size."""
    widths = [3, 16, 32, 32]
    layers = [
        nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))
        for n_in, n_out in pairwise(widths)
    ]
    body = nn.Sequential(*layers, nn.Dropout2d(0.1))
    body.out_channels = 32
    return body


def tiny_fcos(num_classes):
    anchors = AnchorGenerator(((16,),), ((1.0,),))
    return FCOS(backbone(), num_classes, min_size=HEIGHT, max_size=WIDTH, anchor_generator=anchors)


def tiny_retinanet(num_classes):
    anchors = AnchorGenerator(((12, 16),), ((1.0,),))
    return RetinaNet(backbone(), num_classes, min_size=HEIGHT, max_size=WIDTH, anchor_generator=anchors)


def tiny_faster_rcnn(num_classes):
    anchors, pool = AnchorGenerator(((12, 16),), ((1.0,),)), MultiScaleRoIAlign(["0"], 5, 2)
    return FasterRCNN(backbone(), num_classes, min_size=HEIGHT, max_size=WIDTH, rpn_anchor_generator=anchors,
                      box_roi_pool=pool, rpn_batch_size_per_image=16, box_batch_size_per_image=16)  # fmt: skip


def tiny_ssd(num_classes):
    body, boxes = backbone(), DefaultBoxGenerator([[2]], scales=[0.3, 0.5])
    body.out_channels = [32]
    return SSD(body, boxes, (HEIGHT, WIDTH), num_classes)


ARCHS = [tiny_fcos, tiny_retinanet, tiny_faster_rcnn, tiny_ssd]
BATCH = scenes(8, bs=6).one_batch()


# ---- one step


class Logged(Detector):
    """A detector outside of a learner, which keeps what it logs."""

    def log_dict(self, values):
        self.logged = values


@pytest.fixture(params=ARCHS)
def model(request):
    torch.manual_seed(0)
    net = request.param(3)
    getattr(net, "roi_heads", net).score_thresh = 0.0  # so that a network that knows nothing finds things
    return Logged(net)


def reference_targets(batch):
    """Boxes in pixels and their labels, without what fills up the batch."""
    sizes = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    return [
        {"boxes": (boxes[labels > 0] + 1) / 2 * sizes, "labels": labels[labels > 0]}
        for boxes, labels in zip(batch[1], batch[2], strict=True)
    ]


def test_the_training_loss_is_the_sum_of_torchvisions(model):
    assert any(not len(target["boxes"]) for target in reference_targets(BATCH))  # a picture without any box is there
    other = copy.deepcopy(model.net)
    torch.manual_seed(1)
    loss = model.training_step(BATCH, 0)
    torch.manual_seed(1)
    expected = sum(other([*BATCH[0]], reference_targets(BATCH)).values())
    torch.testing.assert_close(loss, expected)


def test_validation_gives_losses_of_layers_that_evaluate_and_all_detections(model):
    model.eval()
    other = copy.deepcopy(model.net).train()
    for module in other.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout2d, GeneralizedRCNNTransform)):  # which draws a size
            module.eval()
    with torch.no_grad():
        result = model.validation_step(BATCH, 0)
        torch.manual_seed(0)
        expected = other([*BATCH[0]], reference_targets(BATCH))
        found = other.eval()([*BATCH[0]])
    torch.testing.assert_close(result["loss"], sum(expected.values()))
    assert model.logged.keys() == {f"valid_{name.removeprefix('loss_')}" for name in expected}
    for row, one in zip(zip(*result["preds"], strict=True), found, strict=True):
        kept = (one["labels"] > 0) & (one["boxes"][:, :2] < one["boxes"][:, 2:]).all(1)  # boxes may be outside
        boxes, labels, scores = (value[row[1] > 0] for value in row)
        assert len(boxes) > 0
        pixels = (boxes + 1) / 2 * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
        torch.testing.assert_close(pixels, one["boxes"][kept], rtol=1e-4, atol=1e-3)
        assert torch.equal(labels, one["labels"][kept]) and torch.equal(scores, one["scores"][kept])


def test_validation_changes_nothing_and_repeats_itself(model):
    model.eval()
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with torch.no_grad():
        first, second = model.validation_step(BATCH, 0), model.validation_step(BATCH, 0)
    assert torch.equal(first["loss"], second["loss"]) and torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert "forward" not in vars(model.net.backbone)


def test_only_what_is_above_the_threshold_is_told(model):
    model.eval()
    with torch.no_grad():
        everything = model.validation_step(BATCH, 0)["preds"]
        model.threshold = float(everything.scores[everything.labels > 0].median())
        told = model(BATCH[0])
    assert isinstance(told, Detections) and 0 < (told.labels > 0).sum() < (everything.labels > 0).sum()
    assert bool((told.scores[told.labels > 0] > model.threshold).all())
    assert told.boxes.shape == (*told.labels.shape, 4) and told.scores.shape == told.labels.shape


def test_a_network_that_is_no_detector_or_wants_masks_is_refused():
    with pytest.raises(TypeError, match="FCOS, GeneralizedRCNN, RetinaNet, SSD"):
        Detector(nn.Linear(2, 2))
    with torch.device("meta"), pytest.raises(ValueError, match="masks"):
        Detector(maskrcnn_resnet50_fpn(weights=None, weights_backbone=None))


# ---- with a learner


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    set_seed(0)
    learn = detection_learner(scenes(60), tiny_fcos, pretrained=False, lr=5e-3, path=tmp_path_factory.mktemp("learner"))
    with learn.no_bar(), learn.no_logging():
        before = learn.validate()
        learn.fit_one_cycle(12)
    return learn, before, learn.validate()


def test_it_learns_to_find_things(trained):
    learn, before, after = trained
    assert after["valid_loss"] < 0.6 * before["valid_loss"]
    assert {"valid_classification", "valid_bbox_regression", "valid_bbox_ctrness"} <= after.keys()
    parts = [value for name, value in after.items() if name != "valid_loss"]
    assert after["valid_loss"] == pytest.approx(sum(parts), rel=1e-5)
    hits = total = 0
    learn.model.threshold = 0.3
    for item in learn.data.valid_ds.items:
        boxes, names, scores = learn.predict(item).decoded
        assert boxes.shape == (len(names), 4) and scores.shape == (len(names),)
        for box, name in zip(item[1], item[2], strict=True):
            overlap = box_iou(torch.tensor([box]), boxes)[0]
            hits += any(o > 0.5 and found == name for o, found in zip(overlap.tolist(), names, strict=True))
            total += 1
    assert hits > 0.7 * total


def test_many_items_are_predicted_as_one_and_as_get_preds_does(trained):
    learn, *_ = trained
    learn.model.threshold = 0.3
    items = [*learn.data.valid_ds.items, scene(4), scene(9)]  # of which the last make a batch without any find
    (boxes, labels, scores), _ = learn.get_preds(dl=learn.data.test_dl(items))
    assert boxes.shape == (len(items), 100, 4) and labels.shape == scores.shape == (len(items), 100)
    for number, (one, item) in enumerate(zip(learn.batch_predict(items), items, strict=True)):
        alone = learn.predict(item)
        torch.testing.assert_close(one.decoded.boxes, alone.decoded.boxes, rtol=1e-4, atol=1e-3)
        assert one.decoded.labels == alone.decoded.labels == [learn.data.vocab[n] for n in one.index.tolist()]
        kept = labels[number] > 0
        torch.testing.assert_close(scores[number][kept], one.probs)
        pixels = (boxes[number][kept] + 1) / 2 * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
        torch.testing.assert_close(pixels, one.decoded.boxes, rtol=1e-4, atol=1e-3)


def test_nothing_found_is_an_empty_prediction(trained):
    learn, *_ = trained
    learn.model.threshold = 1.0
    (boxes, names, scores), labels, probs = learn.predict(scene(0))
    assert boxes.shape == (0, 4) and names == [] and len(scores) == len(labels) == len(probs) == 0


def test_results_show_targets_beside_what_was_found(trained):
    learn, *_ = trained
    learn.model.threshold = 0.3
    learn.show_results(4)
    target, found = plt.gcf().axes[:2]
    assert (target.get_title(), found.get_title()) == ("target", "prediction") and len(plt.gcf().axes) == 8
    item = learn.data.valid_ds.items[0]
    decoded = learn.predict(item).decoded
    assert [text.get_text() for text in target.texts] == item[2]
    written = [f"{name} {score:.2f}" for name, score in zip(decoded.labels, decoded.scores.tolist(), strict=True)]
    assert [text.get_text() for text in found.texts] == written and len(found.patches) == len(decoded.boxes)
    plt.close("all")


def test_an_exported_detector_finds_the_same(trained):
    learn, *_ = trained
    learn.model.threshold = 0.3
    item = learn.data.valid_ds.items[0]
    file, before = learn.export("detector.pt"), learn.predict(item)
    back = load_learner(file, custom={"tiny_fcos": tiny_fcos})
    back.model.threshold = 0.3
    after = back.predict(item)
    assert torch.equal(after.decoded.boxes, before.decoded.boxes) and after.decoded.labels == before.decoded.labels
    with pytest.raises(KeyError, match="tiny_fcos"):
        load_learner(file)


def test_what_augmentation_moved_is_trained_on_too():
    data = scenes(30, batch_tfms=aug_transforms(max_rotate=20, min_zoom=1.0, max_zoom=2.0))
    learn = detection_learner(data, tiny_faster_rcnn, pretrained=False)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-3)
    assert np.isfinite(learn.validate()["valid_loss"])


def test_fine_tuning_begins_with_the_new_layers():
    learn = detection_learner(scenes(), tiny_fcos, pretrained=False)
    assert len(learn.groups) == 3
    assert {id(p) for group in learn.groups for p in group} == {id(p) for p in learn.model.parameters()}
    backbone = {id(p) for p in learn.model.net.backbone.parameters()}
    assert {id(p) for group in learn.groups[:2] for p in group} == backbone
    learn.freeze()
    first, head = learn.model.net.backbone[0][0].weight, learn.model.net.head.classification_head.cls_logits.weight
    before = first.clone(), head.clone()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
        assert torch.equal(first, before[0]) and not torch.equal(head, before[1])
        learn.fine_tune(1)
    assert not torch.equal(first, before[0])


# ---- what a detector is described by


def test_torchvisions_are_described_by_name_and_yours_by_function():
    spec = DetectionModel(ssdlite320_mobilenet_v3_large, 4, threshold=0.4)
    assert spec.arch == "ssdlite320_mobilenet_v3_large" and restore(describe(spec)) == spec
    assert restore(describe(DetectionModel(tiny_fcos, 3)), {"tiny_fcos": tiny_fcos}).arch is tiny_fcos
    model = spec.build()
    assert isinstance(model.net, SSD) and model.threshold == 0.4
    groups = split_detector(model)
    assert {id(p) for group in groups[:2] for p in group} == {id(p) for p in model.net.backbone.features.parameters()}
    assert sum(map(len, groups)) == len([*model.parameters()])


def test_pretrained_weights_are_all_but_those_of_the_labels(tmp_path, monkeypatch):
    """Weights are read from where torchvision keeps what it has downloaded, here random ones."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    coco = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    torch.save(coco.state_dict(), tmp_path / "hub/checkpoints" / file)
    images = torch.rand(2, 3, 100, 120)
    theirs = ssdlite320_mobilenet_v3_large(weights="DEFAULT").eval()
    ours = DetectionModel("ssdlite320_mobilenet_v3_large", 91).build(pretrained=True).eval()
    with torch.no_grad():
        for one, other in zip(theirs([*images]), ours.net([*images]), strict=True):
            torch.testing.assert_close(one["boxes"], other["boxes"])
    few, state = DetectionModel("ssdlite320_mobilenet_v3_large", 4).build(pretrained=True), coco.state_dict()
    other = {name for name, value in few.net.state_dict().items() if value.shape != state[name].shape}
    assert other and all("classification_head" in name for name in other)
    same = [torch.equal(value, state[name]) for name, value in few.net.state_dict().items() if name not in other]
    assert all(same)


def test_weights_for_batchnorms_without_eps_are_brought_to_pytorchs(monkeypatch):
    from warmstart.vision import detection_model

    norm, pixels = nn.BatchNorm2d(2, eps=0.0).eval(), torch.rand(1, 2, 3, 3)
    norm.running_var.copy_(torch.tensor([1e-5, 1e-4]))
    weights = torch.nn.Module()
    weights.url, weights.get_state_dict = "http://nowhere/norm.pth", lambda **_: norm.state_dict()
    monkeypatch.setattr(detection_model.torchvision.models, "get_model_weights", lambda _: Weights(weights))
    mine = nn.BatchNorm2d(2).eval()
    mine.load_state_dict(detection_model._coco_weights("retinanet_resnet50_fpn"))
    torch.testing.assert_close(mine(pixels), norm(pixels))


class Weights:
    def __init__(self, default):
        self.DEFAULT = default


def test_torchvisions_see_images_in_the_size_of_the_data():
    model = DetectionModel("fasterrcnn_mobilenet_v3_large_fpn", 3).build().eval()
    images, _ = model.net.transform([torch.rand(3, 48, 64)])
    assert images.image_sizes == [(48, 64)] and images.tensors.shape[-2:] == (64, 64)  # a multiple of 32


@pytest.mark.parametrize(
    ("arch", "options", "error", "message"),
    [
        ("yolo", {}, ValueError, "no detector 'yolo'"),
        (tiny_fcos(3), {}, TypeError, "builds a detector"),
        (lambda n: tiny_fcos(n), {}, ValueError, "takes no `num_classes`"),
        (tiny_fcos, {"pretrained": True}, ValueError, "takes no `pretrained`"),
    ],
)
def test_wrong_architectures_are_explained(arch, options, error, message):
    with pytest.raises(error, match=message):
        detection_learner(scenes(8), arch, **{"pretrained": False, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (ImageBlock, CategoryBlock), "get_x": lambda i: i[0], "get_y": lambda i: "a"}, "blocks are"),
        ({"blocks": (ImageBlock("RGBA"), BBoxBlock, BBoxLabelBlock)}, "images of 3 channels"),
        ({"blocks": (ImageBlock, BBoxBlock, BBoxLabelBlock(add_na=False))}, "add_na"),
        ({"batch_tfms": Normalize.from_stats(*imagenet_stats)}, "leave Normalize out"),
    ],
)
def test_data_that_does_not_fit_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        detection_learner(scenes(8, **options), tiny_fcos, pretrained=False)


def test_other_data_has_to_have_as_many_labels():
    learn = detection_learner(scenes(8), tiny_fcos, pretrained=False)
    with pytest.raises(ValueError, match="3 labels apart, and the data has 2"):
        learn.data = scenes(8, blocks=(ImageBlock, BBoxBlock, BBoxLabelBlock(["red"])), get_y=[box_of, red])


def box_of(item):
    return item[1][:1]


def red(item):
    return ["red"] * len(item[1][:1])


@pytest.mark.skipif(not BCCD.exists(), reason="needs the photos of blood cells")
def test_blood_cells_are_looked_for():
    names, annotations = get_voc_annotations(BCCD / "annotations")
    of = dict(zip(names[:16], annotations, strict=False))
    block = DataBlock(
        (ImageBlock, BBoxBlock, BBoxLabelBlock), n_inp=1, splitter=EndSplitter(0.25),
        item_tfms=Resize((48, 64), "squish"),
        get_items=lambda path: sorted(f for f in get_image_files(path) if f.name in of),
        get_y=[lambda file: of[file.name].boxes, lambda file: of[file.name].labels],
    )  # fmt: skip
    data = block.databunch(BCCD / "images", bs=4, num_workers=0, device="cpu", seed=0)
    set_seed(0)
    learn = detection_learner(data, tiny_faster_rcnn, pretrained=False)
    before = learn.validate()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(12)
    assert learn.validate()["valid_loss"] < 0.8 * before["valid_loss"]
    assert data.vocab == ["#na#", "Platelets", "RBC", "WBC"]


# ---- mean average precision


@pytest.fixture
def needs_coco():
    pytest.importorskip("torchmetrics")
    pytest.importorskip("pycocotools")


def as_batch(boxes, labels, scores=None):
    columns = torch.tensor([boxes]), torch.tensor([labels])
    return columns if scores is None else (*columns, torch.tensor([scores]))


ONE, TWO, THREE, NONE = [-0.8, -0.8, -0.4, -0.2], [0.1, 0.0, 0.5, 0.6], [0.6, -0.9, 0.9, -0.5], [0.0] * 4


@pytest.mark.usefixtures("needs_coco")
def test_mean_average_precision_is_that_of_a_curve_by_hand():
    metric = MeanAveragePrecision(iou_thresholds=[0.5])
    metric.update({"preds": as_batch([ONE, THREE, TWO, NONE], [1, 1, 1, 0], [0.9, 0.8, 0.7, 0.0])},
                  *as_batch([ONE, TWO, NONE], [1, 1, 0]))  # fmt: skip
    # up to recall 0.5 precision is 1, from there on 2 of 3: COCO reads it at the recalls 0, 0.01, …, 1
    assert float(metric.compute()["map"]) == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-6)


@pytest.mark.usefixtures("needs_coco")
def test_mean_average_precision_counts_images_and_labels_over_batches_and_processes():
    def updated(*rows):
        metric = MeanAveragePrecision(["#na#", "cat", "dog", "cow"])
        for found, there in rows:
            metric.update(as_batch(*found), *as_batch(*there))
        return metric

    cat = ([ONE], [1], [0.9]), ([ONE], [1])
    missed_dog = ([NONE], [0], [0.0]), ([TWO], [2])
    nothing = ([NONE], [0], [0.0]), ([NONE], [0])
    whole = updated(cat, missed_dog, nothing).compute()
    assert {name: round(float(value), 4) for name, value in whole.items()} == {
        "map": 0.5, "map_50": 0.5, "map_75": 0.5, "map_cat": 1.0, "map_dog": 0.0,
    }  # fmt: skip
    one, other = updated(cat), updated(missed_dog, nothing)
    states = [one.state, other.state]
    one.sync_from(lambda state: states)
    assert one.compute() == whole


@pytest.mark.usefixtures("needs_coco")
def test_without_any_target_there_is_no_precision():
    metric = MeanAveragePrecision(["#na#", "cat"])
    metric.update(as_batch([ONE], [1], [0.9]), *as_batch([NONE], [0]))
    assert np.isnan(float(metric.compute()["map"]))


@pytest.mark.usefixtures("needs_coco")
def test_a_learner_tells_mean_average_precision(trained):
    learn, *_ = trained
    learn.metrics = MeanAveragePrecision()
    learn.model.threshold = 0.9  # which is for what a person is told
    result = learn.validate()
    learn.metrics = None
    assert result["map_50"] > 0.5 and 0 < result["map"] < result["map_50"]


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r"warmstart\[detection\]"):
        MeanAveragePrecision()
