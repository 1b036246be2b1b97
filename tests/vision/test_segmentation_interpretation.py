"""Interpretation of segmentation: counts and scores are scikit-learn's over all pixels but void."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from sklearn import metrics
from torch import nn
from torch.nn import functional as F
from warmstart.data import CategoryBlock, DataBlock, EndSplitter, get_image_files
from warmstart.learner import DiceMulti, Interpretation, JaccardCoeffMulti, Learner
from warmstart.vision import ImageBlock, MaskBlock, Resize, SegmentationInterpretation

matplotlib.use("Agg")

CAMVID = Path(__file__).parents[3] / "shared/data/camvid"
CODES = ["ground", "disk", "edge"]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def scene(i, size=24):
    """A bright disk on dark noise, and the mask that says where it is, with a rim that is void."""
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(x - 6 - i % 12, y - 9 - i % 6)
    noise = np.random.default_rng(i).integers(0, 60, (size, size, 3))
    mask = np.where(distance < 6, 1, np.where(distance < 8, 2, 0)).astype(np.uint8)
    return Image.fromarray((noise + 150 * (distance < 6)[..., None]).astype(np.uint8)), mask


def learner(void="edge", model=None, n=20, codes=CODES):
    block = DataBlock((ImageBlock, MaskBlock(codes, void=void)), splitter=EndSplitter(0.5))
    data = block.databunch([scene(i) for i in range(n)], bs=4, num_workers=0, device="cpu", seed=0)
    torch.manual_seed(0)
    learn = Learner(data, model or nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 3, 1)))
    learn.progress.bar = learn.progress.table = False
    return learn


@pytest.fixture
def learn():
    return learner()


def answers_and_masks(learn, dl=None):
    with torch.no_grad():
        batches = [(learn.model(x), y) for x, y in dl or learn.data.valid_dl]
    return torch.cat([p for p, _ in batches]), torch.cat([y for _, y in batches])


def test_the_confusion_matrix_is_scikit_learns_without_void(learn):
    logits, masks = answers_and_masks(learn)
    interp = SegmentationInterpretation.from_learner(learn)
    known = masks != 2
    expected = metrics.confusion_matrix(masks[known], logits.argmax(1)[known], labels=range(3))
    assert np.array_equal(interp.confusion_matrix(), expected) and not expected[2].any()
    assert interp.accuracy() == pytest.approx(metrics.accuracy_score(masks[known], logits.argmax(1)[known]))
    pairs = interp.most_confused()
    assert {(a, b): n for a, b, n in pairs} == {
        (CODES[i], CODES[j]): expected[i, j] for i in range(3) for j in range(3) if i != j and expected[i, j]
    }


def test_scores_of_each_class_are_scikit_learns_and_their_means_the_metrics_of_training(learn):
    logits, masks = answers_and_masks(learn)
    known = masks != 2
    true, said = masks[known], logits.argmax(1)[known]
    table = SegmentationInterpretation.from_learner(learn).per_class()
    assert table.index.tolist() == ["ground", "disk"]
    for name, score in {
        "iou": metrics.jaccard_score,
        "dice": metrics.f1_score,
        "accuracy": metrics.recall_score,
        "precision": metrics.precision_score,
    }.items():
        expected = score(true, said, labels=[0, 1], average=None)
        assert table[name].tolist() == pytest.approx(expected.tolist()), name
    assert table["pixels"].tolist() == [(true == 0).sum(), (true == 1).sum()]


def test_a_mean_over_classes_is_that_of_the_metrics():
    learn = learner(void=None)
    learn.metrics = [DiceMulti(), JaccardCoeffMulti()]
    table, measured = SegmentationInterpretation.from_learner(learn).per_class(), learn.validate()
    assert table["dice"].mean() == pytest.approx(measured["dice_multi"])
    assert table["iou"].mean() == pytest.approx(measured["jaccard_coeff_multi"])


def test_a_class_that_is_neither_there_nor_predicted_has_no_score(learn):
    learn.model[2].bias.data[:] = torch.tensor([1000.0, 0, 0])  # all is ground
    table = SegmentationInterpretation.from_learner(learn).per_class()
    assert np.isnan(table.loc["disk", "precision"]) and table.loc["disk", "iou"] == table.loc["disk", "accuracy"] == 0
    empty = learner(codes=[*CODES, "more"], model=nn.Conv2d(3, 4, 1))
    empty.model.bias.data[:] = torch.tensor([1000.0, 0, 0, 0])
    assert np.isnan(SegmentationInterpretation.from_learner(empty).per_class().loc["more", "dice"])


def test_void_beyond_the_codes_is_left_out_too(learn):
    expected = SegmentationInterpretation.from_learner(learn).confusion_matrix()
    items = [(image, np.where(mask == 2, 255, mask)) for image, mask in map(scene, range(20))]
    block = DataBlock((ImageBlock, MaskBlock(CODES, void=255)), splitter=EndSplitter(0.5))
    other = Learner(block.databunch(items, bs=4, num_workers=0, device="cpu"), learn.model)
    interp = SegmentationInterpretation.from_learner(other)
    assert np.array_equal(interp.confusion_matrix(), expected)
    assert interp.per_class().index.tolist() == CODES
    interp.plot_top_losses(1)


def test_the_loss_of_an_image_is_the_mean_over_its_pixels_that_count(learn):
    interp = SegmentationInterpretation.from_learner(learn)
    logits, masks = answers_and_masks(learn)
    expected = [F.cross_entropy(p[None], m[None], ignore_index=2) for p, m in zip(logits, masks, strict=True)]
    torch.testing.assert_close(interp.losses, torch.stack(expected))
    losses, positions = interp.top_losses(3)
    assert losses.equal(interp.losses.sort(descending=True)[0][:3]) and interp.losses[positions].equal(losses)


def test_no_map_is_kept_and_no_input(learn):
    for kind in (Interpretation, SegmentationInterpretation):
        interp = kind.from_learner(learn)
        assert interp.outputs is interp.preds is interp.targs is interp.decoded is None
        tensors = [value for value in vars(interp).values() if isinstance(value, torch.Tensor)]
        assert sum(tensor.numel() for tensor in tensors) <= 10 + 9


def test_the_training_set_is_counted_whole(learn):
    counts = SegmentationInterpretation.from_learner(learn, "train").confusion_matrix()
    assert counts.sum() == sum((scene(i)[1] != 2).sum() for i in range(10))


def test_groups_of_images_are_measured_by_predicting_them_again(learn):
    learn.metrics = DiceMulti(ignore_index=2)
    interp = SegmentationInterpretation.from_learner(learn)
    table = interp.by_group(["a", "b"] * 5)
    items = [scene(i) for i in range(10, 20)]
    for name, begin in (("a", 0), ("b", 1)):
        measured = learn.validate(learn.data.test_dl(items[begin::2], with_labels=True))
        assert table.loc[name, "dice_multi"] == pytest.approx(measured["dice_multi"])
        assert table.loc[name, "loss"] == pytest.approx(interp.losses[begin::2].mean().item())
        assert table.loc[name, "n"] == 5


def test_what_is_wrong_is_drawn_in_red_beside_image_mask_and_prediction(learn):
    interp = SegmentationInterpretation.from_learner(learn)
    interp.plot_top_losses(2)
    axes = plt.gcf().axes
    losses, positions = interp.top_losses(2)
    logits, masks = answers_and_masks(learn)
    assert len(axes) == 8
    for row, (loss, i) in enumerate(zip(losses, positions, strict=True)):
        image, target, pred, error = axes[4 * row : 4 * row + 4]
        answer, void = logits[i].argmax(0), masks[i] == 2
        wrong = (answer != masks[i]) & ~void
        share = (wrong.sum() / (~void).sum()).item()
        assert image.get_title() == f"loss {loss:.2f}, {share:.0%} wrong"
        assert [ax.get_title() for ax in (target, pred)] == ["target", "prediction"]
        drawn = np.asarray(error.images[1].get_array())
        assert np.array_equal(drawn[..., 0] > 0.9, wrong) and np.array_equal(drawn[..., 3] > 0, wrong | void)
        assert {text.get_text() for text in target.get_legend().get_texts()} <= {"ground", "disk"}


def test_the_confusion_matrix_is_drawn_in_shares(learn):
    SegmentationInterpretation.from_learner(learn).plot_confusion_matrix()
    assert [label.get_text() for label in plt.gca().get_xticklabels()] == CODES


def test_other_targets_are_refused_before_the_work_begins():
    block = DataBlock((ImageBlock, CategoryBlock), splitter=EndSplitter(0.5))
    data = block.databunch([(scene(i)[0], "x") for i in range(8)], bs=4, num_workers=0, device="cpu")
    learn = Learner(data, nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 1)))
    with pytest.raises(TypeError, match=r"with one MaskBlock as target, not \['CategoryBlock'\]"):
        SegmentationInterpretation.from_learner(learn)


def test_a_loss_of_ones_own_needs_to_say_nothing_about_classes(learn):
    expected = SegmentationInterpretation.from_learner(learn)

    def my_loss(pred, targ):
        return F.cross_entropy(pred, targ, ignore_index=2)

    learn.loss_func = my_loss
    interp = SegmentationInterpretation.from_learner(learn)
    assert np.array_equal(interp.confusion_matrix(), expected.confusion_matrix())
    torch.testing.assert_close(interp.losses, expected.losses)
    my_loss.decodes = lambda pred: pred
    with pytest.raises(ValueError, match=r"answers \(4, 3, 24, 24\) are no masks .*CrossEntropyLoss\(axis=1\)"):
        SegmentationInterpretation.from_learner(learn)


@pytest.mark.skipif(not CAMVID.exists(), reason="needs the photos of CamVid")
def test_street_scenes_are_interpreted():
    mask = MaskBlock(np.loadtxt(CAMVID / "codes.txt", dtype=str), void="Void")
    block = DataBlock((ImageBlock, mask), get_items=lambda path: get_image_files(path)[:24],
                      get_y=lambda f: CAMVID / "labels" / f"{f.stem}_P.png", splitter=EndSplitter(0.5),
                      item_tfms=Resize((48, 64), "squish"))  # fmt: skip
    data = block.databunch(CAMVID / "images", bs=4, num_workers=0, device="cpu", seed=0)
    torch.manual_seed(0)
    learn = Learner(data, nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 12, 1)))
    learn.progress.bar = learn.progress.table = False
    before = SegmentationInterpretation.from_learner(learn).accuracy()
    learn.fit_one_cycle(10, 0.02)
    interp = SegmentationInterpretation.from_learner(learn)
    assert interp.accuracy() > before + 0.2
    assert "Void" not in interp.per_class().index and interp.per_class()["iou"].max() > 0.3
    interp.plot_top_losses(2)
