"""Overlap of masks: the numbers are scikit-learn's and torchmetrics' on all pixels at once, however batches are cut."""

import math
from functools import partial

import numpy as np
import pytest
import sklearn.metrics as skm
import torch
import torchmetrics.functional.segmentation as tm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from warmstart.data import DataBunch
from warmstart.learner import CrossEntropyLoss, Learner
from warmstart.learner.metrics import as_metric, metric_name
from warmstart.learner.metrics_overlap import Dice, DiceMulti, JaccardCoeff, JaccardCoeffMulti, foreground_acc

torch.set_num_threads(1)
N = 12
random_batchings = st.sets(st.integers(1, N - 1), max_size=5).map(lambda cuts: np.diff([0, *sorted(cuts), N]).tolist())


def masks(c, seed=0):
    """Logits (N, c, 3, 4) and classes (N, 3, 4), most of them background, which is all there is in some images."""
    rng = torch.Generator().manual_seed(seed)
    targ = torch.randint(c, (N, 3, 4), generator=rng) * (torch.rand(N, 3, 4, generator=rng) > 0.5)
    targ[N // 2 :: 2] = 0
    return torch.randn(N, c, 3, 4, generator=rng), targ


def measured(metric, pred, targ, sizes=(N - 5, 5)):
    metric = as_metric(metric)
    metric.reset()
    for batch in zip(pred.split(list(sizes)), targ.split(list(sizes)), strict=True):
        metric.update(*batch)
    return float(metric.compute())


def flat(score, pred, targ, **kwargs):
    return score(targ.flatten(), pred.flatten(), **kwargs)


@settings(max_examples=20, deadline=None)
@given(sizes=random_batchings, seed=st.integers(0, 999), thresh=st.sampled_from([0.5, 0.2, 0.9]))
def test_of_two_classes_they_are_scikit_learns_f1_and_jaccard_scores(sizes, seed, thresh):
    pred, targ = masks(2, seed)
    said = pred.softmax(1)[:, 1] > thresh
    assert measured(Dice(thresh=thresh), pred, targ, sizes) == pytest.approx(flat(skm.f1_score, said, targ))
    expected = flat(skm.jaccard_score, said, targ)
    assert measured(JaccardCoeff(thresh=thresh), pred, targ, sizes) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(sizes=random_batchings, seed=st.integers(0, 999))
def test_of_more_classes_they_are_the_means_of_scikit_learns_scores(sizes, seed):
    pred, targ = masks(4, seed)
    expected = flat(skm.f1_score, pred.argmax(1), targ, average="macro")
    assert measured(DiceMulti(), pred, targ, sizes) == pytest.approx(expected)
    expected = flat(skm.jaccard_score, pred.argmax(1), targ, average="macro")
    assert measured(JaccardCoeffMulti(), pred, targ, sizes) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(sizes=random_batchings, seed=st.integers(0, 999))
def test_they_are_torchmetrics_scores_of_all_images_as_one(sizes, seed):
    pred, targ = masks(3, seed)
    one_image = pred.argmax(1).view(1, -1), targ.view(1, -1)
    dice = tm.dice_score(*one_image, num_classes=3, average="macro", input_format="index")
    iou = tm.mean_iou(*one_image, num_classes=3, input_format="index")
    assert measured(DiceMulti(), pred, targ, sizes) == pytest.approx(float(dice.mean()))
    assert measured(JaccardCoeffMulti(), pred, targ, sizes) == pytest.approx(float(iou.mean()))


@settings(max_examples=20, deadline=None)
@given(sizes=random_batchings, seed=st.integers(0, 999), background=st.integers(0, 3))
def test_foreground_accuracy_is_that_of_all_pixels_but_the_background(sizes, seed, background):
    pred, targ = masks(4, seed)
    front = targ != background
    expected = skm.accuracy_score(targ[front], pred.argmax(1)[front])
    metric = partial(foreground_acc, bkg_idx=background)
    assert measured(metric, pred, targ, sizes) == pytest.approx(expected)
    assert float(metric(pred, targ)) == pytest.approx(expected)
    assert metric_name(metric) == "foreground_acc"


def test_foreground_accuracy_counts_pixels_even_if_images_differ_in_size():
    metric = as_metric(foreground_acc)
    whole = []
    for n, size in ((3, 4), (1, 9)):
        pred, targ = torch.randn(n, 3, size, size), torch.randint(3, (n, size, size))
        metric.update(pred, targ)
        whole.append(((pred.argmax(1) == targ)[targ != 0]).float())
    assert float(metric.compute()) == pytest.approx(float(torch.cat(whole).mean()))


def test_foreground_accuracy_leaves_out_what_is_ignored():
    pred, targ = masks(4)
    kept = torch.rand(targ.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    metric = partial(foreground_acc, ignore_index=255)
    expected = skm.accuracy_score(targ[kept & (targ != 0)], pred.argmax(1)[kept & (targ != 0)])
    assert measured(metric, pred, targ.where(kept, 255)) == pytest.approx(expected)
    assert float(metric(pred, targ.where(kept, 255))) == pytest.approx(expected)


def test_without_foreground_there_is_no_accuracy_of_it():
    pred, targ = masks(3)
    assert math.isnan(measured(foreground_acc, pred, torch.zeros_like(targ)))


def test_a_single_output_is_the_logit_of_class_1():
    pred, targ = masks(2)
    logit = pred[:, 1:] - pred[:, :1]
    for metric in (Dice(thresh=0.7), JaccardCoeff(thresh=0.7)):
        expected = measured(metric, pred, targ)
        assert measured(metric, logit, targ) == measured(metric, logit, targ[:, None]) == pytest.approx(expected)
        assert measured(metric, logit[:, 0], targ.bool()) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [DiceMulti, JaccardCoeffMulti, Dice, JaccardCoeff])
def test_ignored_pixels_do_not_count(metric):
    pred, targ = masks(2)
    kept = torch.rand(targ.shape) > 0.3
    with_holes = targ.where(kept, 255)
    expected = measured(metric(), pred.movedim(1, -1)[kept], targ[kept], [int(kept.sum())])
    assert measured(metric(ignore_index=255), pred, with_holes) == pytest.approx(expected)
    assert measured(metric(ignore_index=255), pred, with_holes.byte()) == pytest.approx(expected)


def test_only_classes_that_occur_have_a_score():
    pred, targ = masks(2)
    wide = nn.functional.pad(pred, (0, 0, 0, 0, 0, 3), value=-9.0)  # three more classes, never true nor predicted
    for metric in (DiceMulti(), JaccardCoeffMulti()):
        assert measured(metric, wide, targ) == pytest.approx(measured(metric, pred, targ))


@pytest.mark.filterwarnings("ignore")
def test_where_nothing_is_to_be_found_and_nothing_was_the_score_is_0_as_in_scikit_learn():
    pred, targ = torch.tensor([[[2.0], [-1.0]]]).expand(N, 2, 5), torch.zeros(N, 5, dtype=torch.long)
    assert measured(Dice(), pred, targ) == flat(skm.f1_score, pred.argmax(1), targ) == 0
    assert measured(JaccardCoeff(), pred, targ) == flat(skm.jaccard_score, pred.argmax(1), targ) == 0
    assert measured(DiceMulti(), pred, targ) == 1


def test_classes_may_be_on_another_axis():
    pred, targ = masks(3)
    for metric in (DiceMulti, JaccardCoeffMulti):
        assert measured(metric(axis=-1), pred.movedim(1, -1), targ) == measured(metric(), pred, targ)
    last = partial(foreground_acc, axis=-1)
    assert measured(last, pred.movedim(1, -1), targ) == pytest.approx(measured(foreground_acc, pred, targ))


def test_targets_that_are_no_class_are_counted():
    pred, targ = masks(2)
    targ[0, 0, :2] = 255
    with pytest.raises(ValueError, match="2 targets are neither 0 nor 1: give ignore_index="):
        measured(Dice(), pred, targ)
    with pytest.raises(ValueError, match=r"2 targets are not in 0…1, the classes of a model with 2 outputs"):
        measured(DiceMulti(), pred, targ)


def test_binary_metrics_of_more_outputs_name_the_other():
    with pytest.raises(ValueError, match="Two outputs on axis 1, or one, are needed; DiceMulti takes more"):
        Dice().update(*masks(3))


@pytest.mark.parametrize("metric", [foreground_acc, Dice(), JaccardCoeff(), DiceMulti(), JaccardCoeffMulti()])
def test_updates_read_nothing_back_from_the_device(metric):
    pred = torch.empty(2, 2, 4, 4, device="meta", requires_grad=True)  # no values: reading one is an error
    targ, metric = torch.empty(2, 4, 4, dtype=torch.long, device="meta"), as_metric(metric)
    metric.update(pred, targ)
    metric.update(pred, targ)
    assert not metric.state.requires_grad


def test_a_learner_shows_them_by_name():
    pred, targ = masks(2)
    data = DataBunch([(pred, targ)], list(zip(pred.split(5), targ.split(5), strict=True)), device="cpu")
    metrics = [foreground_acc, Dice(), JaccardCoeff(), DiceMulti(), JaccardCoeffMulti()]
    names = ["foreground_acc", "dice", "jaccard_coeff", "dice_multi", "jaccard_coeff_multi"]
    results = Learner(data, nn.Identity(), CrossEntropyLoss(axis=1), metrics=metrics).validate()
    assert [results[name] for name in names] == pytest.approx([measured(metric, pred, targ) for metric in metrics])
