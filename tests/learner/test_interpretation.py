"""Interpretation: counts and scores are scikit-learn's, losses PyTorch's, and the pictures show the right items."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from sklearn import metrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from warmstart.data import (
    Block,
    CategoryBlock,
    ColReader,
    DataBlock,
    DataBunch,
    EndSplitter,
    IndexSplitter,
    MultiCategoryBlock,
    RegressionBlock,
)
from warmstart.learner import (
    ClassificationInterpretation,
    CrossEntropyLoss,
    F1Score,
    Interpretation,
    Learner,
    MSELoss,
    MultiLabelInterpretation,
    accuracy,
)
from warmstart.vision import BBoxBlock, BBoxLabelBlock, ImageBlock, PointBlock, Resize, get_image_files, parent_label

torch.set_num_threads(1)
matplotlib.use("Agg")

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def quiet(learn):
    learn.progress.bar = learn.progress.table = False
    return learn


def vector_learner(targets, target=CategoryBlock, n_out=3, loss_func=None):
    """A learner of 40 vectors, of which the last 25 validate, with random weights."""
    block = DataBlock((Block, target), splitter=IndexSplitter(range(15, 40)))
    data = block.databunch(list(zip(X.tolist(), targets, strict=True)), bs=8, num_workers=0, device="cpu", seed=0)
    torch.manual_seed(0)
    return quiet(Learner(data, nn.Linear(4, n_out), loss_func))


@pytest.fixture
def learn():
    return vector_learner([NAMES[i] for i in Y])


@pytest.fixture
def interp(learn):
    return ClassificationInterpretation.from_learner(learn)


def answers(learn, x):
    with torch.no_grad():
        return learn.model(x).argmax(1)


# ---- losses


def test_top_losses_are_the_highest_losses_and_where_their_items_are(learn, interp):
    with torch.no_grad():
        expected = F.cross_entropy(learn.model(X[15:]), Y[15:], reduction="none")
    losses, positions = interp.top_losses(4)
    assert losses.allclose(expected.sort(descending=True)[0][:4])
    assert expected[positions].allclose(losses)
    smallest, _ = interp.top_losses(2, largest=False)
    assert smallest.allclose(expected.sort()[0][:2])
    assert len(interp.top_losses()[0]) == len(interp.top_losses(1000)[0]) == 25


def test_the_training_set_is_interpreted_whole_and_in_order(learn):
    for interp in (
        Interpretation.from_learner(learn, "train"),
        Interpretation.from_learner(learn, dl=learn.data.train_dl),  # which itself shuffles, and drops the last items
    ):
        assert interp.targs.equal(Y[:15])
        assert interp.decoded.equal(answers(learn, X[:15]))


def test_new_items_with_labels_are_interpreted(learn):
    items = [([0.0, 1.0, 2.0, 3.0], "bee"), ([1.0, 0.0, 0.0, 0.0], "cat")]
    interp = ClassificationInterpretation.from_learner(learn, dl=learn.data.test_dl(items, with_labels=True))
    assert interp.targs.tolist() == [1, 2] and interp.confusion_matrix().sum() == 2
    with pytest.raises(ValueError, match=r"have no labels.*pass dl=data\.test_dl\(items, with_labels=True\)"):
        Interpretation.from_learner(learn, dl=learn.data.test_dl(items))


def test_without_a_validation_set_another_is_asked_for():
    alone = quiet(Learner(DataBunch([(X, Y)], device="cpu"), nn.Linear(4, 3), CrossEntropyLoss()))
    with pytest.raises(ValueError, match="no validation set: pass split='train'"):
        Interpretation.from_learner(alone)
    assert ClassificationInterpretation.from_learner(alone, "train").confusion_matrix().sum() == 40


# ---- classes


def test_the_confusion_matrix_is_scikit_learns(learn, interp):
    expected = metrics.confusion_matrix(Y[15:], answers(learn, X[15:]), labels=range(3))
    assert np.array_equal(interp.confusion_matrix(), expected)


@pytest.mark.parametrize("never", [None, "predicted", "actual"])
def test_the_report_is_scikit_learns(learn, never):
    if never == "predicted":
        learn.model.bias.data[2] = -100
    items = [(x, NAMES[y]) for x, y in zip(X.tolist(), Y, strict=True) if never != "actual" or y != 2]
    dl = learn.data.test_dl(items, with_labels=True)
    interp = ClassificationInterpretation.from_learner(learn, dl=dl)
    table = interp.classification_report()
    expected = metrics.classification_report(
        interp.targs, interp.decoded, labels=range(3), target_names=NAMES, output_dict=True, zero_division=0
    )
    for name in [*NAMES, "macro avg", "weighted avg"]:
        scores = [expected[name][key] for key in ("precision", "recall", "f1-score", "support")]
        assert table.loc[name].tolist() == pytest.approx(scores), name
    assert table.loc["accuracy", "f1"] == pytest.approx((interp.targs == interp.decoded).float().mean().item())


def test_the_report_is_printed_with_the_names_of_classes(interp, capsys):
    interp.print_classification_report()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["precision", "recall", "f1", "support"]
    assert [line.split()[0] for line in lines[1:4]] == NAMES and len(lines) == 7
    assert max(map(len, lines)) <= 80


def test_a_class_may_be_called_like_a_line_of_the_report():
    learn = vector_learner([["accuracy", "macro avg", "x"][i] for i in Y])
    table = ClassificationInterpretation.from_learner(learn).classification_report()
    assert table.index.tolist() == ["accuracy", "macro avg", "x", "accuracy", "macro avg", "weighted avg"]
    assert table["support"].iloc[:3].sum() == 25


def test_most_confused_lists_pairs_of_classes_most_often_first(interp):
    counts = interp.confusion_matrix()
    pairs = interp.most_confused()
    assert {(a, b): n for a, b, n in pairs} == {
        (NAMES[i], NAMES[j]): counts[i, j] for i in range(3) for j in range(3) if i != j and counts[i, j]
    }
    assert [n for *_, n in pairs] == sorted((n for *_, n in pairs), reverse=True)
    at_least = pairs[0][2]
    assert interp.most_confused(min_val=at_least) == [pair for pair in pairs if pair[2] >= at_least]


@pytest.mark.parametrize("labels", [[10, 20, 30], [True, False, False]])
def test_labels_that_are_no_texts_are_kept_as_they_are(labels, capsys):
    interp = ClassificationInterpretation.from_learner(vector_learner([labels[i] for i in Y], n_out=len(set(labels))))
    assert {type(a) for a, *_ in interp.most_confused()} <= {type(labels[0])}
    interp.print_classification_report()
    interp.plot_confusion_matrix()
    assert str(labels[0]) in capsys.readouterr().out


def test_plain_loaders_have_numbered_classes_and_no_pictures():
    batches = DataLoader(TensorDataset(X, Y), 8)
    learn = quiet(Learner(DataBunch(batches, batches, device="cpu"), nn.Linear(4, 3), nn.CrossEntropyLoss()))
    interp = ClassificationInterpretation.from_learner(learn)
    expected = metrics.confusion_matrix(Y, answers(learn, X), labels=range(3))
    assert interp.vocab == [0, 1, 2] and np.array_equal(interp.confusion_matrix(), expected)
    assert ClassificationInterpretation.from_learner(learn, dl=batches).targs.equal(Y)
    with pytest.raises(ValueError, match="plot_top_losses needs data from a DataBlock"):
        interp.plot_top_losses(2)


def test_targets_that_the_loss_ignores_are_not_counted():
    targets = Y.clone()
    targets[::4] = -100
    batches = [(X, targets)]
    learn = quiet(Learner(DataBunch(batches, batches, device="cpu"), nn.Linear(4, 3), CrossEntropyLoss()))
    assert ClassificationInterpretation.from_learner(learn).confusion_matrix().sum() == 30


def test_a_loss_that_does_not_say_what_outputs_mean_is_read_by_the_highest():
    def my_loss(pred, targ, reduction="mean"):
        return F.cross_entropy(pred, targ, reduction=reduction)

    batches = [(X, Y)]
    learn = quiet(Learner(DataBunch(batches, batches, device="cpu"), nn.Linear(4, 3), my_loss))
    assert ClassificationInterpretation.from_learner(learn).decoded.equal(answers(learn, X))


OTHER_TASKS = {
    "several labels": ([[NAMES[i]] for i in Y], MultiCategoryBlock, 3),
    "numbers": (X[:, 0].tolist(), RegressionBlock, 1),
}


@pytest.mark.parametrize(("targets", "block", "n_out"), OTHER_TASKS.values(), ids=OTHER_TASKS)
def test_other_targets_have_losses_and_a_table_but_no_confusion_matrix(targets, block, n_out, capsys):
    learn = vector_learner(targets, block, n_out)
    interp = Interpretation.from_learner(learn)
    loss = learn.loss_func(learn.model(X[15:]), interp.targs).item()
    assert interp.losses.mean().item() == pytest.approx(loss)
    interp.plot_top_losses(3)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["input", "prediction", "actual", "loss", "probability"] and len(rows) == 3
    assert f"{interp.losses.max():.2f}" in rows[0]
    with pytest.raises(TypeError, match="needs one class per item; for other targets use Interpretation"):
        ClassificationInterpretation.from_learner(learn)


def test_a_set_that_is_none_is_refused(learn):
    with pytest.raises(ValueError, match="split='test': 'train' or 'valid'"):
        Interpretation.from_learner(learn, "test")
    learn.loss_func = None
    with pytest.raises(ValueError, match=r"has no loss_func.*assign"):
        Interpretation.from_learner(learn)


def test_a_loss_that_knows_no_reduction_is_asked_about_each_item():
    def my_loss(pred, targ):
        return F.cross_entropy(pred, targ) ** 2

    learn = vector_learner([NAMES[i] for i in Y], loss_func=my_loss)
    interp = Interpretation.from_learner(learn)
    with torch.no_grad():
        expected = F.cross_entropy(learn.model(X[15:]), Y[15:], reduction="none") ** 2
    torch.testing.assert_close(interp.losses, expected)


def test_a_model_with_more_outputs_than_labels_has_numbers_for_the_rest():
    learn = vector_learner([NAMES[i] for i in Y], n_out=5)
    learn.model.bias.data[4] = 100.0
    interp = ClassificationInterpretation.from_learner(learn)
    assert interp.vocab == [*NAMES, 3, 4] and interp.confusion_matrix()[:3, 4].sum() == 25


# ---- groups


def test_groups_have_their_losses_and_metrics(learn, interp):
    groups = np.array(["a", "b", "b", "c", "a"] * 5)
    table = interp.by_group(groups.tolist(), [accuracy, F1Score()])
    assert table.index.tolist() == ["a", "b", "c"] and table["n"].tolist() == [10, 10, 5]
    for name in "abc":
        chosen = torch.from_numpy(groups == name)
        answer, actual = interp.decoded[chosen], interp.targs[chosen]
        assert table.loc[name, "loss"] == pytest.approx(interp.losses[chosen].mean().item())
        assert table.loc[name, "accuracy"] == pytest.approx(metrics.accuracy_score(actual, answer))
        present = sorted({*actual.tolist(), *answer.tolist()})
        expected = metrics.f1_score(actual, answer, average="macro", labels=present, zero_division=0)
        assert table.loc[name, "f1_score"] == pytest.approx(expected)


def test_the_learners_metrics_are_the_default_and_accuracy_where_a_classifier_has_none(learn, interp):
    assert list(interp.by_group([0] * 25)) == ["n", "loss", "accuracy"]
    assert list(Interpretation.from_learner(learn).by_group([0] * 25)) == ["n", "loss"]
    learn.metrics = F1Score()
    assert list(interp.by_group([0] * 25)) == ["n", "loss", "f1_score"]


def test_torchmetrics_measure_groups():
    torchmetrics = pytest.importorskip("torchmetrics")
    learn = vector_learner([NAMES[i] for i in Y])
    interp = ClassificationInterpretation.from_learner(learn)
    theirs = torchmetrics.MetricCollection(
        {"top1": torchmetrics.Accuracy("multiclass", num_classes=3, average="micro")}
    )
    table = interp.by_group([i % 2 for i in range(25)], [accuracy, theirs])
    assert table["top1"].tolist() == pytest.approx(table["accuracy"].tolist())


def test_a_group_is_a_column_a_function_or_a_list():
    frame = pd.DataFrame({"x": X.tolist(), "y": [NAMES[i] for i in Y], "camera": (["k", "l", None, "k"] * 10)})
    block = DataBlock((Block, CategoryBlock), get_x=ColReader("x"), get_y=ColReader("y"), splitter=EndSplitter(0.5))
    data = block.databunch(frame, bs=8, num_workers=0, device="cpu")
    interp = Interpretation.from_learner(quiet(Learner(data, nn.Linear(4, 3))))
    by_column = interp.by_group("camera")
    assert by_column["n"].tolist() == [10, 5, 5] and pd.isna(by_column.index[2])  # those without a group are one
    pd.testing.assert_frame_equal(by_column, interp.by_group(lambda row: row["camera"]))
    pd.testing.assert_frame_equal(by_column, interp.by_group(frame["camera"][20:]))
    with pytest.raises(KeyError, match=r"no column 'city' in the items, columns are \['x', 'y', 'camera'\]"):
        interp.by_group("city")
    with pytest.raises(ValueError, match="groups has 3 values for 20 items"):
        interp.by_group(["a", "b", "c"])


def test_plain_loaders_can_be_grouped_by_a_list():
    learn = quiet(Learner(DataBunch([(X, Y)], [(X, Y)], device="cpu"), nn.Linear(4, 3), CrossEntropyLoss()))
    table = Interpretation.from_learner(learn).by_group(Y.tolist(), accuracy)
    assert table["n"].sum() == 40 and table.index.tolist() == [0, 1, 2]


# ---- several labels


def test_labels_are_counted_one_by_one_as_scikit_learn_does():
    labels = [[name for name, on in zip(NAMES, row, strict=True) if on] for row in (X[:, :3] > 0.3).tolist()]
    learn = vector_learner(labels, MultiCategoryBlock)
    interp = MultiLabelInterpretation.from_learner(learn)
    table = interp.report()
    true, said = interp.targs.int().numpy(), interp.decoded.int().numpy()
    counts = metrics.multilabel_confusion_matrix(true, said)
    assert table.index.tolist() == NAMES
    assert np.array_equal(table[["tn", "fp", "fn", "tp"]].to_numpy(), counts.reshape(3, 4))
    scores = metrics.precision_recall_fscore_support(true, said, zero_division=0)[:3]
    assert np.allclose(table[["precision", "recall", "f1"]].to_numpy().T, scores)
    assert list(interp.by_group([0] * 25)) == ["n", "loss", "accuracy_multi"]
    with pytest.raises(TypeError, match="MultiLabelInterpretation needs a 0 or 1 for each label"):
        MultiLabelInterpretation.from_learner(vector_learner([NAMES[i] for i in Y]))


def test_of_several_labels_those_that_are_wrong_have_their_probability(capsys):
    learn = vector_learner([["ant", "bee"]] * 40, MultiCategoryBlock(vocab=NAMES))
    learn.model.weight.data.zero_()
    learn.model.bias.data[:] = torch.tensor([2.0, -1.0, 1.0])
    Interpretation.from_learner(learn).plot_top_losses(1)
    assert "ant;cat  ant;bee" in (row := capsys.readouterr().out.splitlines()[1])
    assert row.endswith("bee 0.27, cat 0.73")


def test_a_long_caption_is_parted_between_words_and_numbers(photos):
    names = [["a long label", "another long label"], ["one more of them"]]
    target = MultiCategoryBlock(vocab=["a long label", "another long label", "one more of them"])
    block = DataBlock((ImageBlock, target), get_image_files, None, lambda f: names[int(f.stem) % 2],
                      IndexSplitter([0, 11]))  # fmt: skip
    data = block.databunch(photos, bs=2, num_workers=0, device="cpu")
    learn = quiet(Learner(data, nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(3, 3))))
    learn.model[2].weight.data.zero_()
    learn.model[2].bias.data[:] = torch.tensor([3.0, -3.0, -3.0])
    interp = Interpretation.from_learner(learn)
    interp.plot_top_losses(1)
    lines = plt.gcf().axes[0].get_title().split("\n")
    assert lines[0] == "a long label / one more of them"
    assert lines[1].startswith(f"{interp.losses.max():.2f} / a long label 0.95, one")
    assert max(map(len, lines)) <= 32


# ---- targets in a picture


def pictures(targets, *blocks, model, loss_func=None, getters=None):
    """A learner of 12 noisy pictures, of which the last half validates, with a model of yours."""
    block = DataBlock((ImageBlock, *blocks), n_inp=1, splitter=EndSplitter(0.5), get_x=lambda i: i[0], get_y=getters)
    noise = [np.random.default_rng(i).integers(0, 255, (16, 24, 3), np.uint8) for i in range(12)]
    items = [(pixels, *target) for pixels, target in zip(noise, targets, strict=True)]
    data = block.databunch(items, bs=4, num_workers=0, device="cpu", seed=0)
    return quiet(Learner(data, model, loss_func)), noise


class Constant(nn.Module):
    """Answers each picture with the same."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = [torch.tensor(answer) for answer in answers]
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        repeated = tuple(answer.expand(len(x), *answer.shape) for answer in self.answers)
        return repeated if len(repeated) > 1 else repeated[0]


def test_points_are_drawn_where_they_are_and_where_they_are_predicted():
    targets = [([[2.0 * i, 8.0]],) for i in range(12)]
    learn, noise = pictures(targets, PointBlock, model=Constant([0.0, 0.0]), getters=lambda i: i[1])
    interp = Interpretation.from_learner(learn)
    expected = torch.tensor([((2 * i / 12 - 1) ** 2) / 2 for i in range(6, 12)])
    torch.testing.assert_close(interp.losses, expected)
    interp.plot_top_losses(2)
    first = plt.gcf().axes[0]
    assert plt.gcf().get_suptitle() == "target / prediction" and first.get_title() == f"loss {expected[5]:.2f}"
    assert np.allclose(first.images[0].get_array(), noise[11] / 255)
    target, pred = [np.asarray(dots.get_offsets())[0] + 0.5 for dots in first.collections]
    assert np.allclose(target, [22, 8], atol=1e-5) and np.allclose(pred, [12, 8], atol=1e-5)


def box_loss(pred, boxes, labels):
    """Knows no reduction, as most losses that people write."""
    return F.l1_loss(pred[0], boxes[:, :1]) + F.cross_entropy(pred[1][:, 0], labels[:, 0])


def test_boxes_and_their_names_are_drawn_with_a_loss_of_ones_own():
    targets = [([[i, 2, i + 8, 10]], ["cat"]) for i in range(12)]
    model = Constant([[-1.0, -1.0, 0.0, 0.0]], [[0.0, 0.0, 3.0]])
    boxes = pictures(targets, BBoxBlock, BBoxLabelBlock(["dog", "cat"]), model=model, loss_func=box_loss,
                     getters=[lambda i: i[1], lambda i: i[2]])  # fmt: skip
    learn, _ = boxes
    interp = Interpretation.from_learner(learn)
    assert interp.outputs is None and interp.losses.argmax() == 5
    one = learn.data.test_dl([learn.data.valid_ds.items[5]], with_labels=True)
    assert interp.losses[5].item() == pytest.approx(learn.validate(one)["valid_loss"])
    interp.plot_top_losses(1)
    (ax,) = plt.gcf().axes
    assert ax.get_title() == f"loss {interp.losses[5]:.2f}"
    target, pred = ax.patches[:2]
    assert np.allclose(target.get_xy(), [10.5, 1.5]) and np.allclose(pred.get_xy(), [-0.5, -0.5])
    assert [text.get_text() for text in ax.texts] == ["cat", "cat"]


def test_images_as_targets_stand_beside_what_was_made_of_the_input():
    noise = [np.random.default_rng(i).integers(0, 255, (16, 24, 3), np.uint8) for i in range(12)]
    identity = nn.Conv2d(3, 3, 1)
    nn.init.dirac_(identity.weight)
    nn.init.zeros_(identity.bias)
    darker = [((n * (0.9 - 0.05 * i)).astype(np.uint8),) for i, n in enumerate(noise)]
    learn, _ = pictures(darker, ImageBlock, model=identity, loss_func=MSELoss(), getters=lambda i: i[1])
    interp = Interpretation.from_learner(learn)
    assert interp.outputs is None and interp.losses.argmax() == 5
    expected = ((noise[11] - darker[11][0]) / 255.0) ** 2
    assert interp.losses[5].item() == pytest.approx(expected.mean(), rel=1e-4)
    interp.plot_top_losses(1)
    (ax,) = plt.gcf().axes
    given, target, made = [np.asarray(image.get_array()) for image in ax.images]
    assert np.allclose(given, noise[11] / 255) and np.allclose(target, darker[11][0] / 255, atol=1e-6)
    assert np.allclose(made, given, atol=1e-6)


def test_several_labels_of_one_picture_are_told_apart(photos):
    block = DataBlock((ImageBlock, CategoryBlock, CategoryBlock), n_inp=1, get_items=get_image_files,
                      get_y=[parent_label, lambda f: int(f.stem) % 3], splitter=IndexSplitter([0, 7, 9]))  # fmt: skip
    data = block.databunch(photos, bs=3, num_workers=0, device="cpu")

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x.mean((2, 3))), self.b(x.mean((2, 3)))

    def both(pred, a, b):
        return F.cross_entropy(pred[0], a) + F.cross_entropy(pred[1], b)

    learn = quiet(Learner(data, Two(), both))
    Interpretation.from_learner(learn).plot_top_losses(2)
    said, actual, loss = plt.gcf().axes[0].get_title().replace("\n", " ").split(" / ")
    assert actual.split("; ")[0] in ("red", "blue") and float(loss) > 0 and said


# ---- plots


@pytest.mark.parametrize("normalize", [False, True])
def test_the_confusion_matrix_is_drawn_with_names_and_numbers(interp, normalize):
    interp.plot_confusion_matrix(normalize, figsize=(5, 4))
    assert plt.gcf().get_size_inches().tolist() == [5, 4]
    ax, counts = plt.gca(), interp.confusion_matrix()
    assert [ax.get_xlabel(), ax.get_ylabel(), ax.get_title()] == ["predicted", "actual", "Confusion matrix"]
    assert [label.get_text() for label in ax.get_xticklabels()] == NAMES
    assert [label.get_text() for label in ax.get_yticklabels()] == NAMES
    written = {text.get_position(): text.get_text() for text in ax.texts}
    for row in range(3):
        for col in range(3):
            share = counts[row, col] / max(1, counts[row].sum())
            assert written[col, row] == (f"{share:.2f}" if normalize else str(counts[row, col]))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six red and six blue images of 16 × 16 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(12):
        pixels = np.full((16, 16, 3), 10 * i, np.uint8)
        pixels[..., 0 if i % 2 else 2] = 255
        file = folder / ("red" if i % 2 else "blue") / f"{i:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder


@pytest.mark.parametrize("split", ["valid", "train"])
def test_top_losses_are_drawn_as_pictures_with_prediction_actual_loss_and_probability(photos, split):
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_image_files, None, parent_label, IndexSplitter([1, 4, 8, 11]), None, Resize(16)
    )
    data = block.databunch(photos, bs=4, num_workers=0, device="cpu")
    torch.manual_seed(0)
    learn = quiet(Learner(data, nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(3, 2))))
    interp = ClassificationInterpretation.from_learner(learn, split)
    interp.plot_top_losses(3)
    losses, positions = interp.top_losses(3)
    items = (data.valid_ds if split == "valid" else data.train_ds).items
    assert plt.gcf().get_suptitle() == "prediction / actual / loss / probability"
    axes = [ax for ax in plt.gcf().axes if ax.images]
    assert len(axes) == 3
    for ax, loss, position in zip(axes, losses, positions, strict=True):
        label, _, probs = learn.predict(items[position])
        assert ax.get_title() == f"{label} / {items[position].parent.name} / {loss:.2f} / {probs.max():.2f}"
        shown = np.asarray(Image.open(items[position])) / 255
        assert np.allclose(ax.images[0].get_array(), shown, atol=1e-6)
