"""Interpretation: counts and scores are scikit-learn's, losses PyTorch's, and the pictures show the right items."""

import matplotlib
import numpy as np
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
    DataBlock,
    DataBunch,
    IndexSplitter,
    MultiCategoryBlock,
    RegressionBlock,
)
from warmstart.learner import ClassificationInterpretation, CrossEntropyLoss, Interpretation, Learner
from warmstart.vision import ImageBlock, Resize, get_image_files, parent_label

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
    with pytest.raises(ValueError, match="plot_top_losses needs data from a DataBlock with one target"):
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


# ---- plots


@pytest.mark.parametrize("normalize", [False, True])
def test_the_confusion_matrix_is_drawn_with_names_and_numbers(interp, normalize):
    interp.plot_confusion_matrix(normalize)
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
