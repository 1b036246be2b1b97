"""Cleaning: the right suggestions, what a person makes of them, and training on what is left."""

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from warmstart.data import CategoryBlock, DataBlock, EndSplitter, MultiCategoryBlock
from warmstart.learner import ClassificationInterpretation, Learner, accuracy
from warmstart.vision import ImageBlock, ImageCleaner, ImageDataBunch, Resize

VOCAB = ["blue", "red"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Red and blue images to train and validate on: in each set one has the wrong label; one is there twice."""
    root = tmp_path_factory.mktemp("photos")
    for split, n in (("train", 10), ("valid", 8)):
        for i in range(n):
            pixels = np.random.default_rng(i + 100 * n).integers(0, 120, (16, 16, 3)).astype(np.uint8)
            pixels[..., 0 if i % 2 else 2] += 130
            label = VOCAB[i % 2 if i != 4 else 1]
            file = root / split / label / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    Image.open(root / "train/blue/2.png").save(root / "valid/blue/copy.png")
    return root


def colour_network():
    """Knows red from blue."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model[2].weight.data = torch.tensor([[-20.0, 0, 20], [20, 0, -20]])
    model[2].bias.data.zero_()
    return model


@pytest.fixture
def learn(folder):
    learn = Learner(ImageDataBunch.from_folder(folder, bs=4, num_workers=0, device="cpu", seed=0), colour_network())
    learn.progress.bar = learn.progress.table = False
    return learn


@pytest.fixture
def cleaner(learn):
    return ImageCleaner.from_learner(learn)


def numbers(cleaner, name):
    return [i for i, file in cleaner.files.items() if file.endswith(name)]


def test_wrong_labels_are_to_be_changed_and_copies_to_go(cleaner):
    assert len(cleaner.files) == 10 + 9
    wrong = numbers(cleaner, "red/4.png")
    assert cleaner.change() == [(i, "blue") for i in wrong] and len(wrong) == 2
    assert cleaner.delete() == numbers(cleaner, "copy.png")
    copy, original = cleaner.table.loc[cleaner.delete()[0]], numbers(cleaner, "train/blue/2.png")[0]
    assert copy["duplicate_of"] == original and copy["is_valid"]
    assert set(cleaner.table.drop(index=[*wrong, *cleaner.delete()])["action"]) == {"keep"}


def test_rows_say_what_the_model_says(learn, cleaner):
    row = cleaner.worst().iloc[0]
    label, _, probs = learn.predict(row["file"])
    assert (row["label"], row["predicted"]) == ("red", label) and row["probability"] == pytest.approx(
        probs.max().item()
    )
    assert row["loss"] == pytest.approx(-probs[1].log().item(), rel=1e-3)
    assert cleaner.worst()["loss"].is_monotonic_decreasing
    blue = cleaner.worst("blue", 3)
    assert len(blue) == 3 and set(blue["label"]) == {"blue"}
    with pytest.raises(ValueError, match=r"label='green': the labels are \['blue', 'red'\]"):
        cleaner.worst("green")


def test_a_doubt_below_the_given_probability_is_no_suggestion(learn):
    assert ImageCleaner.from_learner(learn, confident=1.1).change() == []
    assert ImageCleaner.from_learner(learn, duplicates=None).delete() == []


def test_one_set_or_an_interpretation_may_be_cleaned(learn, cleaner):
    train = ImageCleaner.from_learner(learn, "train")
    pd.testing.assert_frame_equal(train.table, cleaner.table[:10])
    interp = ClassificationInterpretation.from_learner(learn)
    valid = ImageCleaner.from_interpretation(interp)
    assert valid.files.tolist() == cleaner.files[10:].tolist() and valid.table["is_valid"].all()
    assert valid.delete() == []  # its copy is in the training set


def test_what_is_left_trains_and_is_better(learn, cleaner):
    learn.metrics = accuracy
    assert learn.validate()["accuracy"] < 1
    frame = cleaner.cleaned()
    assert len(frame) == 18 and frame["is_valid"].sum() == 8
    data = ImageDataBunch.from_df(frame, valid_col="is_valid", item_tfms=Resize(16), bs=4, num_workers=0, device="cpu")
    assert data.classes == VOCAB and len(data.train_ds) == 10
    other = Learner(data, colour_network(), metrics=accuracy)
    with other.no_bar(), other.no_logging():
        other.fit(1)
        assert other.validate()["accuracy"] == 1


def test_no_file_is_touched(folder, cleaner):
    before = sorted(folder.rglob("*.png"))
    cleaner.cleaned()
    assert sorted(folder.rglob("*.png")) == before and len(before) == 19


# ---- as a table to edit


def test_a_table_is_written_edited_and_read_again(cleaner, tmp_path):
    file = cleaner.to_csv(tmp_path / "cleaning.csv")
    again = ImageCleaner.from_csv(file)
    pd.testing.assert_frame_equal(again.cleaned(), cleaner.cleaned())
    assert again.change() == cleaner.change() and again.delete() == cleaner.delete()
    assert again.files.to_dict() == cleaner.files.to_dict()

    frame = pd.read_csv(file, keep_default_na=False)
    assert frame["loss"].is_monotonic_decreasing
    frame.loc[0, ["action", "new_label"]] = ["keep", ""]
    frame.loc[5, "action"] = "delete"
    frame.loc[6, ["action", "new_label"]] = ["relabel", "green"]
    gone = frame.loc[7, "file"]
    frame.drop(index=7).to_csv(file, index=False)
    edited = ImageCleaner.from_csv(file, vocab=[*VOCAB, "green"])
    assert frame.loc[5, "item"] in edited.delete() and (frame.loc[6, "item"], "green") in edited.change()
    cleaned = edited.cleaned().set_index("file")["label"]
    assert gone not in cleaned and cleaned[frame.loc[0, "file"]] == "red" and cleaned[frame.loc[6, "file"]] == "green"


def test_labels_that_are_no_texts_come_back_from_the_vocabulary(folder, tmp_path):
    files = [*(folder / "train/red").iterdir(), *(folder / "train/blue").iterdir()]
    data = ImageDataBunch.from_lists(folder, files, [1] * 6 + [0] * 4, bs=4, num_workers=0, device="cpu", seed=0)
    cleaner = ImageCleaner.from_learner(Learner(data, colour_network()))
    again = ImageCleaner.from_csv(cleaner.to_csv(tmp_path / "numbers.csv"), cleaner.vocab)
    pd.testing.assert_frame_equal(again.cleaned(), cleaner.cleaned())
    assert set(again.cleaned()["label"]) == {0, 1}


def test_a_class_called_na_or_with_zeros_in_front_stays_what_it_is(cleaner, tmp_path):
    table = cleaner.table.replace({"red": "NA", "blue": "007"})
    odd = ImageCleaner(table, ["007", "NA"])
    again = ImageCleaner.from_csv(odd.to_csv(tmp_path / "odd.csv"))
    pd.testing.assert_frame_equal(again.cleaned(), odd.cleaned())


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("action", "remove", r"item \d+ \(.*png\): action 'remove' is none of \['keep', 'relabel', 'delete'\]"),
        ("new_label", "rde", r"new_label 'rde' is none of the labels \['blue', 'red'\]"),
        ("new_label", "", "new_label '' is none of the labels"),
    ],
)
def test_a_slip_of_the_pen_is_found_with_its_item(cleaner, tmp_path, column, value, message):
    frame = pd.read_csv(cleaner.to_csv(tmp_path / "cleaning.csv"), keep_default_na=False)
    frame.loc[0, column] = value
    frame.to_csv(tmp_path / "cleaning.csv", index=False)
    with pytest.raises(ValueError, match=message):
        ImageCleaner.from_csv(tmp_path / "cleaning.csv")


def test_missing_columns_are_named(cleaner, tmp_path):
    frame = pd.read_csv(cleaner.to_csv(tmp_path / "cleaning.csv"))
    frame.drop(columns="action").to_csv(tmp_path / "a.csv", index=False)
    frame.drop(columns="item").to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ValueError, match=r"lacks the columns \['action'\]"):
        ImageCleaner.from_csv(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="lacks the column 'item'"):
        ImageCleaner.from_csv(tmp_path / "b.csv")


def test_images_need_files_and_one_label():
    pixels = np.zeros((16, 16, 3), np.uint8)
    block = DataBlock(
        (ImageBlock, CategoryBlock), splitter=EndSplitter(0.5), get_x=lambda i: i[0], get_y=lambda i: i[1]
    )
    data = block.databunch([(pixels, VOCAB[i % 2]) for i in range(8)], bs=4, num_workers=0, device="cpu")
    with pytest.raises(TypeError, match="whose images are read from files, not ndarray"):
        ImageCleaner.from_learner(Learner(data, colour_network()))
    block = DataBlock((ImageBlock, MultiCategoryBlock), splitter=EndSplitter(0.5))
    data = block.databunch([(pixels, [VOCAB[i % 2]]) for i in range(8)], bs=4, num_workers=0, device="cpu")
    with pytest.raises(TypeError, match="needs one class per item"):
        ImageCleaner.from_learner(Learner(data, colour_network()))


# ---- in a notebook


class Widget:
    """As much of ipywidgets as is used: widgets keep their arguments, and tell who observes their value."""

    def __init__(self, children=(), value=None, options=(), format=None, layout=None, **style):
        self.children, self.value, self.options, self.layout = children, value, options, layout or self
        self.observers = []

    def observe(self, handler, names):
        assert names == "value"
        self.observers.append(handler)

    def pick(self, value):
        for handler in self.observers:
            handler({"name": "value", "old": self.value, "new": value})


@pytest.fixture
def displayed(monkeypatch):
    """What is displayed, with widgets that are real where ipywidgets is installed."""
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        fake = ModuleType("ipywidgets")
        for name in ("Dropdown", "HBox", "Image", "Label", "Layout", "VBox"):
            setattr(fake, name, Widget)
        monkeypatch.setitem(sys.modules, "ipywidgets", fake)
    shown = []
    display = pytest.importorskip("IPython.display")
    monkeypatch.setattr(display, "display", shown.append)
    return shown


def pick(menu, value):
    menu.pick(value) if isinstance(menu, Widget) else setattr(menu, "value", value)


def test_menus_change_the_table(cleaner, displayed):
    cleaner.show("red", n=3)
    cells, rows = displayed[0].children, cleaner.worst("red", 3)
    assert len(cells) == 3
    image, caption, menu = cells[0].children
    assert bytes(image.value).startswith(b"\x89PNG")
    assert caption.value == f"blue / red / {rows['loss'].iloc[0]:.2f} / {rows['probability'].iloc[0]:.2f}"
    assert [name for name, _ in menu.options] == ["keep", "delete", "relabel: blue", "relabel: red"]
    assert menu.value == 2 and cells[2].children[2].value == 0
    pick(menu, 1)
    pick(cells[2].children[2], 2)
    assert rows.index[0] in cleaner.delete() and (rows.index[2], "blue") in cleaner.change()
    pick(menu, 0)
    assert rows.index[0] not in cleaner.delete() and cleaner.table.loc[rows.index[0], "new_label"] == ""


def test_without_ipywidgets_the_other_way_is_named(cleaner, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r"pip install ipywidgets.*cleaner\.to_csv"):
        cleaner.show()
