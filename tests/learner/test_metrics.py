"""Metrics: the numbers are scikit-learn's on all samples at once, however these are cut into batches."""

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as skm
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from warmstart.data import DataBunch
from warmstart.learner import Learner
from warmstart.learner.metrics import (
    AverageMetric,
    accuracy,
    accuracy_multi,
    as_metric,
    error_rate,
    metric_name,
    top_k_accuracy,
)
from warmstart.learner.metrics_collected import (
    APScore,
    APScoreBinary,
    RocAuc,
    RocAucBinary,
    SpearmanCorrCoef,
    sklearn_metric,
)
from warmstart.learner.metrics_confusion import (
    BalancedAccuracy,
    CohenKappa,
    F1Score,
    FBeta,
    Jaccard,
    MatthewsCorrCoef,
    Precision,
    Recall,
)
from warmstart.learner.metrics_running import (
    ExplainedVariance,
    PearsonCorrCoef,
    Perplexity,
    R2Score,
    exp_rmspe,
    mae,
    mse,
    rmse,
)

torch.set_num_threads(1)
N = 40


def random_batchings():
    """Sizes of batches, uneven, that add up to N."""
    cuts = st.sets(st.integers(1, N - 1), max_size=8)
    return cuts.map(lambda cuts: np.diff([0, *sorted(cuts), N]).tolist())


def measured(metric, pred, targ, sizes=(N - 7, 7)):
    """The metric's value when `pred` and `targ` come in batches of these sizes."""
    metric = as_metric(metric)
    metric.reset()
    for batch in zip(pred.split(list(sizes)), targ.split(list(sizes)), strict=True):
        metric.update(*batch)
    return float(metric.compute())


def eighths(x):
    return (x * 8).round() / 8


def class_data(n_classes, seed=0):
    """Logits (N, c) in eighths, so that ties occur, and classes that they predict better than chance."""
    rng = torch.Generator().manual_seed(seed)
    targ = torch.randint(n_classes, (N,), generator=rng)
    return eighths(torch.randn(N, n_classes, generator=rng) + F.one_hot(targ, n_classes)), targ


def label_data(seed=0):
    """Logits and labels (N, 3), several of which may hold."""
    rng = torch.Generator().manual_seed(seed)
    targ = (torch.rand(N, 3, generator=rng) > 0.6).float()
    return eighths(torch.randn(N, 3, generator=rng) + targ), targ


def value_data(*shape, seed=0):
    """Values far from 0 with a few ties, and predictions correlated with them."""
    rng = torch.Generator().manual_seed(seed)
    targ = eighths(torch.randn(N, *shape, generator=rng)) + 100
    return eighths(targ + torch.randn(N, *shape, generator=rng)), targ


CLASS_METRICS = [
    (accuracy, skm.accuracy_score),
    (error_rate, lambda t, p: 1 - skm.accuracy_score(t, p)),
    (Precision(average="macro"), partial(skm.precision_score, average="macro")),
    (Recall(average="weighted"), partial(skm.recall_score, average="weighted")),
    (Precision(average="weighted"), partial(skm.precision_score, average="weighted")),
    (F1Score(average="micro"), partial(skm.f1_score, average="micro")),
    (F1Score(average="macro"), partial(skm.f1_score, average="macro")),
    (FBeta(0.5, average="weighted"), partial(skm.fbeta_score, beta=0.5, average="weighted")),
    (FBeta(2, average="macro"), partial(skm.fbeta_score, beta=2, average="macro")),
    (Jaccard(), partial(skm.jaccard_score, average="macro")),
    (Jaccard(average="weighted"), partial(skm.jaccard_score, average="weighted")),
    (BalancedAccuracy(), skm.balanced_accuracy_score),
    (CohenKappa(), skm.cohen_kappa_score),
    (CohenKappa(weights="linear"), partial(skm.cohen_kappa_score, weights="linear", labels=range(4))),
    (CohenKappa(weights="quadratic"), partial(skm.cohen_kappa_score, weights="quadratic", labels=range(4))),
    (MatthewsCorrCoef(), skm.matthews_corrcoef),
    (sklearn_metric(skm.hamming_loss), skm.hamming_loss),
]
VALUE_METRICS = [
    (mse, skm.mean_squared_error),
    (rmse, skm.root_mean_squared_error),
    (mae, skm.mean_absolute_error),
    (R2Score(), skm.r2_score),
    (ExplainedVariance(), skm.explained_variance_score),
    (PearsonCorrCoef(), lambda t, p: scipy.stats.pearsonr(t, p).statistic),
    (SpearmanCorrCoef(), lambda t, p: scipy.stats.spearmanr(t, p).statistic),
    (sklearn_metric(skm.median_absolute_error, axis=None), skm.median_absolute_error),
]
BINARY_METRICS = [
    (Precision(), skm.precision_score),
    (Recall(), skm.recall_score),
    (F1Score(), skm.f1_score),
    (F1Score(pos_label=0), partial(skm.f1_score, pos_label=0)),
    (FBeta(2), partial(skm.fbeta_score, beta=2)),
    (Jaccard(), skm.jaccard_score),
    (MatthewsCorrCoef(), skm.matthews_corrcoef),
]
LABEL_METRICS = [
    (Precision(multi=True), partial(skm.precision_score, average="macro")),
    (Recall(multi=True, average="micro"), partial(skm.recall_score, average="micro")),
    (F1Score(multi=True, average="weighted"), partial(skm.f1_score, average="weighted")),
    (FBeta(2, multi=True), partial(skm.fbeta_score, beta=2, average="macro")),
    (Jaccard(multi=True), partial(skm.jaccard_score, average="macro")),
    (Jaccard(multi=True, average="micro"), partial(skm.jaccard_score, average="micro")),
    (accuracy_multi, lambda t, p: (t == p).mean()),
]


def named(metric):
    return metric_name(metric) if not isinstance(metric, partial) else ""


@pytest.mark.parametrize(("metric", "reference"), CLASS_METRICS, ids=named)
@settings(max_examples=15, deadline=None)
@given(sizes=random_batchings(), seed=st.integers(0, 999))
def test_class_metrics_are_scikit_learns_however_batches_are_cut(metric, reference, sizes, seed):
    pred, targ = class_data(4, seed)
    assert measured(metric, pred, targ, sizes) == pytest.approx(reference(targ, pred.argmax(1)), abs=1e-6)


@pytest.mark.parametrize(("metric", "reference"), VALUE_METRICS, ids=named)
@settings(max_examples=15, deadline=None)
@given(sizes=random_batchings(), seed=st.integers(0, 999))
def test_value_metrics_are_scikit_learns_however_batches_are_cut(metric, reference, sizes, seed):
    pred, targ = value_data(seed=seed)
    assert measured(metric, pred[:, None], targ, sizes) == pytest.approx(reference(targ, pred), abs=1e-6)


@pytest.mark.parametrize(("metric", "reference"), BINARY_METRICS, ids=named)
@settings(max_examples=15, deadline=None)
@given(sizes=random_batchings(), seed=st.integers(0, 999))
def test_with_two_classes_the_score_is_that_of_one_of_them(metric, reference, sizes, seed):
    pred, targ = class_data(2, seed)
    assert measured(metric, pred, targ, sizes) == pytest.approx(reference(targ, pred.argmax(1)), abs=1e-6)


@pytest.mark.parametrize(("metric", "reference"), LABEL_METRICS, ids=named)
@settings(max_examples=15, deadline=None)
@given(sizes=random_batchings(), seed=st.integers(0, 999))
def test_metrics_of_several_labels_are_scikit_learns(metric, reference, sizes, seed):
    pred, targ = label_data(seed)
    expected = reference(targ.numpy(), (pred > 0).float().numpy())
    assert measured(metric, pred, targ, sizes) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(sizes=random_batchings(), seed=st.integers(0, 999))
def test_areas_under_curves_are_scikit_learns_however_batches_are_cut(sizes, seed):
    pred, targ = class_data(2, seed)
    score = (pred[:, 1] - pred[:, 0]).numpy()
    assert measured(RocAucBinary(), pred, targ, sizes) == pytest.approx(skm.roc_auc_score(targ, score))
    assert measured(APScoreBinary(), pred, targ, sizes) == pytest.approx(skm.average_precision_score(targ, score))
    assert measured(RocAuc(), pred, targ, sizes) == pytest.approx(skm.roc_auc_score(targ, score))
    pred, targ = class_data(3, seed)
    expected = skm.roc_auc_score(targ, pred.double().softmax(1), multi_class="ovr")
    assert measured(RocAuc(), pred, targ, sizes) == pytest.approx(expected)
    pred, targ = label_data(seed)
    assert measured(RocAuc(multi=True), pred, targ, sizes) == pytest.approx(skm.roc_auc_score(targ, pred))


@settings(max_examples=25, deadline=None)
@given(sizes=random_batchings(), seed=st.integers(0, 999))
def test_average_precision_of_several_classes_or_labels_is_scikit_learns(sizes, seed):
    pred, targ = class_data(3, seed)
    expected = skm.average_precision_score(targ, pred.double().softmax(1))
    assert measured(APScore(), pred, targ, sizes) == pytest.approx(expected)
    pred, targ = label_data(seed)
    expected = skm.average_precision_score(targ, pred)
    assert measured(APScore(multi=True), pred, targ, sizes) == pytest.approx(expected)


@pytest.mark.parametrize("thresh", [0.2, 0.5, 0.8])
def test_labels_are_predicted_above_a_threshold(thresh):
    pred, targ = label_data()
    said = pred.sigmoid() > thresh
    for metric, score in ((F1Score, skm.f1_score), (Recall, skm.recall_score), (Jaccard, skm.jaccard_score)):
        expected, above = pytest.approx(score(targ, said, average="macro")), partial(metric, multi=True, thresh=thresh)
        assert measured(above(), pred, targ) == measured(above(sigmoid=False), pred.sigmoid(), targ) == expected
    expected = skm.accuracy_score(targ.flatten(), said.flatten())
    assert measured(partial(accuracy_multi, thresh=thresh), pred, targ) == pytest.approx(expected)


@settings(max_examples=15, deadline=None)
@given(sizes=random_batchings(), seed=st.integers(0, 999))
def test_perplexity_is_exp_of_the_cross_entropy_over_all_words_not_ignored(sizes, seed):
    pred = torch.randn(N, 5, 7, generator=torch.Generator().manual_seed(seed))
    targ = torch.randint(-2, 7, (N, 5), generator=torch.Generator().manual_seed(seed))
    targ = targ.where(targ >= 0, -100)
    expected = math.exp(F.cross_entropy(pred.movedim(-1, 1), targ))
    assert measured(Perplexity(), pred, targ, sizes) == pytest.approx(expected)


@settings(max_examples=15, deadline=None)
@given(sizes=random_batchings())
def test_exp_rmspe_takes_the_root_last(sizes):
    pred, targ = value_data(seed=1)
    pred, targ = pred.double() / 50, targ.double() / 50
    expected = ((targ.exp() - pred.exp()) / targ.exp()).square().mean().sqrt()
    assert measured(exp_rmspe, pred, targ, sizes) == pytest.approx(float(expected))
    assert float(exp_rmspe(pred, targ)) == pytest.approx(float(expected))


def test_rmse_of_batches_is_not_the_mean_of_their_roots():
    metric = as_metric(rmse)
    metric.update(torch.tensor([3.0]), torch.tensor([0.0]))
    metric.update(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0]))
    assert float(metric.compute()) == pytest.approx(math.sqrt(9 / 3))


def test_functions_average_by_sample():
    metric = AverageMetric(accuracy)
    metric.update(torch.eye(3), torch.tensor([0, 1, 2]))
    metric.update(torch.eye(3)[:1], torch.tensor([1]))
    assert metric.compute() == 0.75
    metric.reset()
    metric.update(torch.eye(3), torch.tensor([0, 0, 0]))
    assert float(metric.compute()) == pytest.approx(1 / 3)


def test_with_several_targets_the_first_tells_the_number_of_samples():
    metric = AverageMetric(lambda pred, targ: pred.mean())
    for n, value in ((3, 1.0), (1, 5.0)):
        metric.update(torch.full((n,), value), (torch.zeros(n), torch.zeros(7)))
    assert metric.compute() == 2


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), torch.tensor(1), torch.ones(1)])
def test_a_function_may_return_any_kind_of_number(value):
    metric = AverageMetric(lambda pred, targ: value)
    metric.update(torch.zeros(2), torch.zeros(2))
    assert metric.compute() == 1


def test_top_k_accuracy_is_scikit_learns():
    pred, targ = torch.randn(N, 9), torch.randint(9, (N,))
    expected = skm.top_k_accuracy_score(targ, pred, k=3, labels=range(9))
    assert float(top_k_accuracy(pred, targ, k=3)) == pytest.approx(expected)
    pred, targ = pred.view(4, 10, 9).movedim(-1, 1), targ.view(4, 10)
    assert float(top_k_accuracy(pred, targ, 3, axis=1)) == pytest.approx(expected)


def test_accuracy_of_pixels_has_its_classes_on_axis_1():
    pred, targ = torch.randn(2, 5, 4, 6), torch.randint(5, (2, 1, 4, 6))
    expected = skm.accuracy_score(targ.flatten(), pred.argmax(1).flatten())
    assert float(accuracy(pred, targ, axis=1)) == pytest.approx(expected)
    assert measured(partial(accuracy, axis=1), pred, targ, [1, 1]) == pytest.approx(expected)
    expected = skm.f1_score(targ.flatten(), pred.argmax(1).flatten(), average="macro")
    assert measured(F1Score(axis=1), pred, targ, [1, 1]) == pytest.approx(expected)


def test_accuracy_multi_compares_probabilities_with_its_threshold():
    pred, targ = torch.tensor([[-2.0, 0.1, 2.0]]), torch.tensor([[0, 0, 1]])
    assert float(accuracy_multi(pred, targ)) == pytest.approx(2 / 3)
    assert accuracy_multi(pred, targ, thresh=0.6) == 1
    assert accuracy_multi(pred, targ.bool(), thresh=0.05, sigmoid=False) == pytest.approx(2 / 3)
    assert accuracy_multi(torch.tensor([[2.0], [-2.0]]), torch.tensor([1, 0])) == 1


def test_several_outputs_count_alike():
    pred, targ = (x.double() for x in value_data(3))
    assert measured(R2Score(), pred, targ) == pytest.approx(skm.r2_score(targ, pred))
    assert measured(ExplainedVariance(), pred, targ) == pytest.approx(skm.explained_variance_score(targ, pred))
    expected = np.mean([scipy.stats.spearmanr(targ[:, i], pred[:, i]).statistic for i in range(3)])
    assert measured(SpearmanCorrCoef(), pred, targ) == pytest.approx(expected)
    expected = torchmetrics.functional.pearson_corrcoef(pred, targ).mean()
    assert measured(PearsonCorrCoef(), pred, targ) == pytest.approx(float(expected))


@pytest.mark.parametrize("metric", [RocAucBinary, APScoreBinary])
@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_binary_curves_take_a_single_output(metric, shape):
    pred, targ = class_data(2)
    odds = pred[:, 1] - pred[:, 0]
    assert measured(metric(), odds.view(shape), targ) == pytest.approx(measured(metric(), pred, targ))


@pytest.mark.filterwarnings("ignore")
def test_classes_that_never_occur_are_left_out_as_scikit_learn_does():
    pred, targ = class_data(3)
    pred = F.pad(pred, (0, 2), value=-9.0)  # two more classes, never true nor predicted
    for metric, reference in CLASS_METRICS[2:10]:
        assert measured(metric, pred, targ) == pytest.approx(reference(targ, pred.argmax(1)))
    assert measured(BalancedAccuracy(), pred, targ) == pytest.approx(skm.balanced_accuracy_score(targ, pred.argmax(1)))
    one_hot, probabilities = F.one_hot(targ, 3), pred.double().softmax(1)[:, :3]
    assert measured(APScore(), pred, targ) == pytest.approx(skm.average_precision_score(one_hot, probabilities))
    labels = F.pad(one_hot, (0, 2))
    assert measured(APScore(multi=True), pred, labels) == pytest.approx(skm.average_precision_score(labels, pred))
    first_three = [skm.roc_auc_score(targ == c, pred.double().softmax(1)[:, c]) for c in range(3)]
    assert measured(RocAuc(), pred, targ) == pytest.approx(np.mean(first_three))


@pytest.mark.filterwarnings("ignore")
def test_what_is_undefined_has_scikit_learns_value():
    pred, targ = torch.tensor([[1.0, 0.0]] * 3), torch.zeros(3, dtype=torch.long)
    for metric in (Precision(), Recall(), F1Score(), MatthewsCorrCoef(), APScoreBinary()):
        assert measured(metric, pred, targ, [2, 1]) == 0
    for metric in (CohenKappa(), RocAucBinary(), RocAuc()):
        assert math.isnan(measured(metric, pred, targ, [2, 1]))
    values = torch.ones(3)
    assert measured(R2Score(), values, values, [2, 1]) == skm.r2_score(values, values) == 1
    assert measured(R2Score(), values + 1, values, [2, 1]) == skm.r2_score(values, values + 1) == 0
    assert math.isnan(measured(R2Score(), values[:1], values[:1], [1]))
    assert math.isnan(measured(PearsonCorrCoef(), values, torch.arange(3), [2, 1]))
    assert math.isnan(measured(SpearmanCorrCoef(), values, torch.arange(3), [2, 1]))


@pytest.mark.parametrize("metric", [RocAuc(), RocAucBinary(), APScoreBinary(), APScore()])
def test_a_model_that_predicts_nan_gets_no_area(metric):
    pred, targ = class_data(2)
    pred[3] = torch.nan
    assert math.isnan(measured(metric, pred, targ))


def test_running_means_keep_their_digits_far_from_zero():
    targ = torch.arange(N, dtype=torch.float64) + 1e9
    assert measured(R2Score(), targ + 1, targ, [10, 29, 1]) == pytest.approx(skm.r2_score(targ, targ + 1), abs=1e-9)


def test_before_the_first_batch_and_after_reset_the_value_is_nan():
    metric = F1Score()
    assert math.isnan(metric.compute())
    metric.update(*class_data(2))
    assert not math.isnan(metric.compute())
    metric.reset()
    assert math.isnan(metric.compute())


def test_states_of_two_processes_add_up():
    (pred, targ), (values, target) = class_data(2), value_data()
    for make, p, t in ((F1Score, pred, targ), (RocAucBinary, pred, targ), (R2Score, values, target)):
        whole, first, second = make(), make(), make()
        whole.update(p, t)
        first.update(p[:30], t[:30])
        second.update(p[30:], t[30:])
        first.state = first.state + second.state
        assert float(first.compute()) == pytest.approx(float(whole.compute()))


@pytest.mark.parametrize(
    "metric",
    [accuracy, top_k_accuracy, Perplexity(), F1Score(), CohenKappa(), RocAuc(), sklearn_metric(skm.f1_score)],
    ids=named,
)
def test_updates_with_classes_read_nothing_back_from_the_device(metric):
    pred = torch.empty(4, 6, device="meta", requires_grad=True)  # tensors without values: reading one is an error
    assert_reads_nothing(metric, pred, torch.empty(4, dtype=torch.long, device="meta"))


@pytest.mark.parametrize(
    "metric",
    [accuracy_multi, rmse, F1Score(multi=True), RocAuc(multi=True), R2Score(), PearsonCorrCoef(), SpearmanCorrCoef()],
    ids=named,
)
def test_updates_with_values_read_nothing_back_from_the_device(metric):
    pred = torch.empty(4, 6, device="meta", requires_grad=True)
    assert_reads_nothing(metric, pred, torch.empty(4, 6, device="meta"))


def assert_reads_nothing(metric, pred, targ):
    metric = as_metric(metric)
    metric.update(pred, targ)
    metric.update(pred, targ)
    assert not isinstance(metric.state, torch.Tensor) or not metric.state.requires_grad


def test_half_precision_predictions_are_welcome():
    pred, targ = class_data(2)
    for metric in (accuracy, F1Score(), RocAuc(), RocAucBinary(), sklearn_metric(skm.f1_score)):
        assert measured(metric, pred.bfloat16(), targ) == pytest.approx(measured(metric, pred.bfloat16().float(), targ))
    assert measured(mse, torch.full((N,), 300.0).half(), torch.zeros(N)) == 90_000


def test_torchmetrics_objects_are_metrics_as_they_are():
    metric = torchmetrics.classification.MulticlassAccuracy(4, average="micro")
    assert as_metric(metric) is metric
    pred, targ = class_data(4)
    assert measured(metric, pred, targ) == pytest.approx(measured(accuracy, pred, targ))


def test_torchmetrics_of_segmentation_and_regression_work_in_a_learner():
    pixels, classes = torch.randn(N, 3, 4, 5), torch.randint(3, (N, 4, 5))
    metrics = [torchmetrics.classification.MulticlassJaccardIndex(3), torchmetrics.classification.MulticlassF1Score(3)]
    expected = [skm.jaccard_score, skm.f1_score]
    found = validated(pixels, classes, nn.CrossEntropyLoss(), metrics)
    for name, score in zip(("multiclass_jaccard_index", "multiclass_f1_score"), expected, strict=True):
        assert found[name] == pytest.approx(score(classes.flatten(), pixels.argmax(1).flatten(), average="macro"))
    pred, targ = value_data(2)
    found = validated(pred, targ, nn.MSELoss(), [torchmetrics.R2Score(), torchmetrics.MeanSquaredError(), mae, rmse])
    assert found["r2_score"] == pytest.approx(skm.r2_score(targ, pred), abs=1e-3)  # theirs loses digits far from 0
    assert found["mean_squared_error"] == pytest.approx(skm.mean_squared_error(targ, pred)) == found["rmse"] ** 2
    assert found["mae"] == pytest.approx(skm.mean_absolute_error(targ, pred))


def validated(pred, targ, loss, metrics):
    """What a learner finds that predicts `pred`, in uneven batches."""
    valid = list(zip(pred.split(17), targ.split(17), strict=True))
    return Learner(DataBunch(valid, valid, device="cpu"), nn.Identity(), loss, metrics=metrics).validate()


def test_sklearn_metric_hands_over_classes_a_mask_probabilities_or_values():
    (pred, targ), (label_pred, labels) = class_data(3), label_data()
    f1 = partial(skm.f1_score, average="macro")
    assert measured(sklearn_metric(f1), pred, targ) == pytest.approx(f1(targ, pred.argmax(1)))
    expected = f1(labels, label_pred.sigmoid() > 0.7)
    assert measured(sklearn_metric(f1, thresh=0.7), label_pred, labels) == pytest.approx(expected)
    log_loss = sklearn_metric(skm.log_loss, activation=partial(torch.softmax, dim=-1))
    assert measured(log_loss, pred, targ) == pytest.approx(float(F.cross_entropy(pred, targ)), abs=1e-6)
    pred, targ = value_data()
    assert measured(sklearn_metric(skm.max_error, axis=None), pred, targ) == pytest.approx(skm.max_error(targ, pred))


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (accuracy, "accuracy"),
        (partial(top_k_accuracy, k=3), "top_k_accuracy"),
        (partial(partial(accuracy, axis=1)), "accuracy"),
        (AverageMetric(mse), "mse"),
        (AverageMetric(mse, name="squares"), "squares"),
        (RocAuc(), "roc_auc"),
        (F1Score(), "f1_score"),
        (F1Score(average="macro", name="f1_macro"), "f1_macro"),
        (R2Score(), "r2_score"),
        (FBeta(2), "f_beta"),
        (APScoreBinary(), "ap_score_binary"),
        (sklearn_metric(partial(skm.f1_score, average="macro")), "f1_score"),
        (sklearn_metric(skm.f1_score, name="f1"), "f1"),
        (torchmetrics.classification.MulticlassAccuracy(3), "multiclass_accuracy"),
        (nn.CrossEntropyLoss(), "cross_entropy_loss"),
    ],
)
def test_a_metric_is_named_after_its_function_or_class(metric, name):
    assert metric_name(metric) == name
    assert metric_name(as_metric(metric)) == name


def test_a_class_is_no_metric_but_its_instance_is():
    with pytest.raises(TypeError, match=r"RocAuc is a class: pass an instance, RocAuc\(...\)"):
        as_metric(RocAuc)


@pytest.mark.parametrize("thing", ["accuracy", 3, None, object()])
def test_other_things_are_no_metrics(thing):
    with pytest.raises(TypeError, match=r"A metric is a function \(pred, targ\) -> scalar tensor, or an object with"):
        as_metric(thing)


def test_a_function_of_other_arguments_is_refused_before_training():
    def foo(pred):
        return pred.mean()

    message = r"metric `foo` could not be called with \(pred, targ\): too many positional arguments. A metric is a func"
    with pytest.raises(TypeError, match=message):
        as_metric(foo)
    with pytest.raises(TypeError, match=r"metric `fbeta_score` could not be called .* missing a required .*'beta'"):
        as_metric(skm.fbeta_score)


def test_a_type_error_on_a_batch_names_the_metric():
    metric = as_metric(torch.sub)  # a builtin, whose signature nobody can ask for
    with pytest.raises(TypeError, match=r"metric `sub` could not be called with \(pred, targ\)"):
        metric.update(torch.zeros(2), ["a", "b"])


@pytest.mark.parametrize(("value", "what"), [(torch.zeros(4), r"a tensor of shape \(4,\)"), (None, "None")])
def test_a_function_must_return_one_number(value, what):
    def foo(pred, targ):
        return value

    with pytest.raises(ValueError, match=f"metric `foo` returned {what}, not one number"):
        as_metric(foo).update(torch.zeros(4), torch.zeros(4))


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match=r"predictions of shape \(4,\) do not fit targets of shape \(3,\)"):
        accuracy(torch.zeros(4, 2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(4, 1\) hold one output on axis -1.*use accuracy_multi"):
        F1Score().update(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ValueError, match=r"\(4,\) do not fit .*\(4, 2\).* Several labels per item\? Use accuracy_mul"):
        accuracy(torch.zeros(4, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"\(4, 2\) do not fit targets of shape \(4,\)"):
        mse(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(ValueError, match="k=5 needs 5 classes or more, found 3"):
        top_k_accuracy(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(ValueError, match="Two outputs on axis -1, or one"):
        RocAucBinary().update(torch.zeros(4, 3), torch.zeros(4))


def test_targets_that_are_no_classes_of_the_model_are_counted():
    pred, targ = class_data(3)
    targ[5:7] = 3
    with pytest.raises(ValueError, match=r"2 targets are not in 0…2, the classes of a model with 3 outputs"):
        measured(F1Score(), pred, targ)
    with pytest.raises(ValueError, match=r"2 targets are not in 0…2"):
        measured(CohenKappa(), pred, targ)
    with pytest.raises(ValueError, match=r"2 of 40 targets are not in 0…2"):
        measured(RocAuc(), pred, targ)
    with pytest.raises(ValueError, match="targets are not in 0 and 1"):
        measured(RocAucBinary(), pred[:, :2], targ)


def test_averages_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="average must be None or one of"):
        F1Score(average="mean")
    with pytest.raises(ValueError, match="pos_label must be 0 or 1"):
        Precision(average="binary", multi=True)
    with pytest.raises(ValueError, match="average='binary' is for two classes, but the model has 3 outputs"):
        Recall(average="binary").update(*class_data(3))
    with pytest.raises(ValueError, match="weights must be None, 'linear' or 'quadratic'"):
        CohenKappa(weights="cubic")
