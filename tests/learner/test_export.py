"""Export: a new process predicts the same from the file and what is handed in by name; the file alone runs nothing."""

import io
import json
import pickle
import pickletools
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2
from warmstart.data import (
    Block,
    CategoryBlock,
    DataBlock,
    DataBunch,
    IndexSplitter,
    MultiCategoryBlock,
    RegressionBlock,
)
from warmstart.data.transforms import Transform
from warmstart.learner import CrossEntropyLoss, Learner, load_learner, losses
from warmstart.learner.export import FORMAT, KEY
from warmstart.learner.files import FileError, load_file, save_file
from warmstart.vision import ImageBlock, Normalize, Resize, aug_transforms, get_image_files, parent_label

torch.set_num_threads(1)


# ---- what is the user's own


def colour_of(path):
    return Path(path).parent.name


def initial_of(path):
    return Path(path).parent.name[0]


def as_text(path):
    return str(path)


def halve(image):
    return image // 2


@dataclass
class Brighten(Transform):
    """A transform with a parameter, of the batch."""

    by: float

    def __call__(self, sample, rand):
        return (sample[0] + self.by, *sample[1:])


class Invert(Transform):
    """A transform that is no dataclass."""

    def __call__(self, sample, rand):
        return (1 - sample[0], *sample[1:])


@dataclass
class Grade(Block):
    """A block of the user's own, which learns."""

    grades: list | None = None
    learns: ClassVar = True
    loss: ClassVar = "CrossEntropyLoss"

    @property
    def n_out(self):
        return len(self.grades or [])

    def setup(self, values):
        return Grade(sorted(set(values), key=lambda grade: -ord(grade)))

    def encode(self, value):
        return torch.tensor(self.grades.index(value))

    def decode(self, encoded):
        return self.grades[int(encoded)]


class OwnNet(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Linear(width, 2)

    def forward(self, image):
        return self.head(self.norm(self.conv(image)).relu().mean((2, 3)))


def make_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


class OwnLoss(nn.Module):
    def __init__(self, smoothing=0.1):
        super().__init__()
        self.smoothing = smoothing

    def forward(self, pred, targ):
        return F.cross_entropy(pred, targ, label_smoothing=self.smoothing)

    def activation(self, pred):
        return pred.softmax(-1)

    def decodes(self, pred):
        return pred.argmax(-1)


def own_loss(pred, targ):
    return F.cross_entropy(pred, targ)


# ---- learners


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six red and six blue images of 20 × 20 pixels, with some noise."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for i in range(12):
        pixels = noise.integers(0, 60, (20, 20, 3), dtype=np.uint8)
        pixels[..., 0 if i % 2 else 2] += 180
        file = folder / ("red" if i % 2 else "blue") / f"{i:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder


def photo_data(photos, target=CategoryBlock, get_x=None, get_y=parent_label, item_tfms=None, batch_tfms=None):
    splitter = IndexSplitter([1, 4, 8, 11])
    tfms = Resize(16) if item_tfms is None else item_tfms
    block = DataBlock((ImageBlock, target), get_image_files, get_x, get_y, splitter, None, tfms, batch_tfms)
    return block.databunch(photos, bs=4, num_workers=0, device="cpu", seed=3)


def quiet(learn):
    learn.progress.bar = learn.progress.table = False
    return learn


def photo_learner(photos, model=None, loss_func=None, path=".", splitter=None, **options):
    torch.manual_seed(0)
    extra = {} if splitter is None else {"splitter": splitter}
    return quiet(Learner(photo_data(photos, **options), model or make_net(), loss_func, path=path, **extra))


def vector_learner(items, blocks, n_out, **options):
    block = DataBlock(blocks, splitter=IndexSplitter(range(8, len(items))))
    torch.manual_seed(0)
    return quiet(Learner(block.databunch(items, bs=4, num_workers=0, device="cpu"), nn.Linear(4, n_out), **options))


def predictions(learn, items):
    return learn.get_preds(dl=learn.data.test_dl(items))[0]


def assert_same(again, learn, items):
    """Both learners give the same numbers, and the same words, for these items."""
    assert predictions(again, items).equal(predictions(learn, items))
    for one, other in zip(again.batch_predict(items[:3]), learn.batch_predict(items[:3]), strict=True):
        assert one.decoded == other.decoded and torch.equal(one.index, other.index)


def reload(learn, tmp_path, custom=None, **options):
    return quiet(load_learner(learn.export(tmp_path / "export.pt"), custom=custom, **options))


# ---- in a new process

OWN_CODE = """
from dataclasses import dataclass
from torch import nn
from warmstart.data.transforms import Transform

def colour_of(path):
    return path.parent.name

@dataclass
class Brighten(Transform):
    by: float
    def __call__(self, sample, rand):
        return (sample[0] + self.by, *sample[1:])

def make_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""

NEW_PROCESS = """
import json, sys
import torch
torch.set_num_threads(1)
from own_code import Brighten, make_net
from warmstart.learner import load_learner
from warmstart.vision import get_image_files

folder, photos = sys.argv[1:]
files = get_image_files(photos)
result = {}
for name, custom in [("own", {"Brighten": Brighten, "Sequential": make_net}), ("library", None)]:
    learn = load_learner(f"{folder}/{name}.pt", custom=custom)
    learn.progress.bar = learn.progress.table = False
    result[name] = learn.get_preds(dl=learn.data.test_dl(files))[0], learn.predict(files[0]).decoded
torch.save(result, f"{folder}/result.pt")
"""


def test_a_new_process_predicts_identically(photos, tmp_path):
    from warmstart.vision import resnet18, vision_learner

    own = photo_learner(photos, get_y=colour_of, batch_tfms=[Brighten(0.25)], path=tmp_path)
    own.fit(1)
    torch.manual_seed(0)
    data = photo_data(photos, item_tfms=Resize(32), batch_tfms=aug_transforms(size=32))
    library = quiet(vision_learner(data, resnet18, pretrained=False, path=tmp_path))
    own.export("own.pt")
    library.export("library.pt")

    (tmp_path / "own_code.py").write_text(OWN_CODE)
    (tmp_path / "script.py").write_text(NEW_PROCESS)
    subprocess.run([sys.executable, tmp_path / "script.py", tmp_path, photos], check=True, timeout=120)

    files, result = get_image_files(photos), torch.load(tmp_path / "result.pt")
    for name, learn in {"own": own, "library": library}.items():
        preds, label = result[name]
        assert preds.equal(predictions(learn, files)), name
        assert label == learn.predict(files[0]).decoded


# ---- what is in the file


def test_the_file_holds_numbers_and_a_json_description_without_code(photos, tmp_path):
    learn = photo_learner(
        photos, OwnNet(), own_loss, get_y=colour_of, batch_tfms=[Brighten(0.25), halve], path=tmp_path
    )
    learn.get_preds()
    content = load_file(learn.export())
    description = json.loads(content[KEY])
    assert content.keys() == {KEY, "weights"} and description["format"] == FORMAT
    assert description["model"] == {"custom": "OwnNet"} and description["loss"] == {"custom": "own_loss"}
    assert description["data"]["get_y"] == [{"custom": "colour_of"}]
    assert {"custom": "Brighten", "fields": {"by": 0.25}} in description["data"]["batch_tfms"]["list"]

    with zipfile.ZipFile(tmp_path / "export.pt") as archive:
        names = archive.namelist()
        program = next(archive.read(name) for name in names if name.endswith("data.pkl"))
    called = {argument for op, argument, _ in pickletools.genops(program) if op.name in ("GLOBAL", "STACK_GLOBAL")}
    assert called <= {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "torch LongStorage",
    }
    assert not any(name.endswith(".py") for name in names)


def test_export_makes_missing_folders_and_says_where_the_file_is(photos, tmp_path):
    learn = photo_learner(photos, path=str(tmp_path))
    assert learn.export("new/folder/model.pt") == tmp_path / "new" / "folder" / "model.pt"
    assert load_learner(str(tmp_path / "new" / "folder" / "model.pt"), custom={"Sequential": make_net})


# ---- what is handed in by name


def test_a_model_is_handed_in_as_a_class_a_function_or_an_instance(photos, tmp_path):
    learn = photo_learner(photos, OwnNet())
    for handed_in in (OwnNet, lambda: OwnNet(), OwnNet()):
        assert_same(reload(learn, tmp_path, {"OwnNet": handed_in}), learn, get_image_files(photos))


def test_a_model_of_another_size_is_reported(photos, tmp_path):
    learn = photo_learner(photos, OwnNet(width=8))
    with pytest.raises(FileError, match=r"weights of another architecture.*conv\.weight: \(8, 3, 3, 3\) there, \(4, 3"):
        reload(learn, tmp_path, {"OwnNet": OwnNet})
    assert_same(reload(learn, tmp_path, {"OwnNet": lambda: OwnNet(8)}), learn, get_image_files(photos))


PIPELINES = {
    "own dataclass": ({"batch_tfms": [Brighten(0.5)]}, {"Brighten": Brighten}),
    "own dataclass as an instance": ({"batch_tfms": [Brighten(0.5)]}, {"Brighten": Brighten(0.5)}),
    "two of one dataclass": ({"batch_tfms": [Brighten(0.5), Brighten(-0.25)]}, {"Brighten": Brighten}),
    "own class": ({"batch_tfms": [Invert()]}, {"Invert": Invert}),
    "own functions": ({"item_tfms": [Resize(16), halve], "get_x": as_text}, {"halve": halve, "as_text": as_text}),
    "own block": ({"target": Grade, "get_y": initial_of}, {"Grade": Grade}),
    "a function within torchvision's": ({"item_tfms": [Resize(16), v2.RandomApply([halve])]}, {"halve": halve}),
    "torchvision's": (
        {
            "item_tfms": [v2.Resize((16, 18)), v2.AutoAugment(), v2.CenterCrop(12)],
            "batch_tfms": [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.4] * 3, [0.2] * 3)],
        },
        {},
    ),
    "the library's": (
        {
            "item_tfms": Resize((16, 20), "pad"),
            "batch_tfms": [*aug_transforms(size=12), Normalize([0.4] * 3, [0.3] * 3)],
        },
        {},
    ),
    "a given vocabulary": ({"target": CategoryBlock(vocab=["red", "blue"])}, {}),
}


@pytest.mark.parametrize(("pipeline", "own"), PIPELINES.values(), ids=PIPELINES)
def test_a_pipeline_comes_back_with_what_is_handed_in(photos, tmp_path, pipeline, own):
    learn = photo_learner(photos, OwnNet(), **pipeline)
    again = reload(learn, tmp_path, {"OwnNet": OwnNet, **own})
    assert_same(again, learn, get_image_files(photos))
    assert str(again.data.train_ds.item_tfms) == str(learn.data.train_ds.item_tfms)
    assert str(again.data.batch_tfms) == str(learn.data.batch_tfms) or "Invert" in own
    assert again.data.blocks[1] == learn.data.blocks[1]


def test_labels_are_read_if_their_function_is_handed_in_and_are_not_missed_otherwise(photos, tmp_path):
    learn, files = photo_learner(photos, OwnNet(), get_y=colour_of), get_image_files(photos)
    with_labels = reload(learn, tmp_path, {"OwnNet": OwnNet, "colour_of": colour_of})
    _, targs = with_labels.get_preds(dl=with_labels.data.test_dl(files, with_labels=True))
    assert [with_labels.data.vocab[i] for i in targs] == [colour_of(file) for file in files]

    without = reload(learn, tmp_path, {"OwnNet": OwnNet})
    assert_same(without, learn, files)
    with pytest.raises(ValueError, match="how labels are read is not in the file: hand your function in"):
        without.get_preds(dl=without.data.test_dl(files, with_labels=True))


def test_a_lambda_may_read_labels_but_nothing_that_predicting_needs(photos, tmp_path):
    learn = photo_learner(photos, OwnNet(), get_y=lambda path: path.parent.name)
    assert_same(reload(learn, tmp_path, {"OwnNet": OwnNet}), learn, get_image_files(photos))

    message = r"^{}: A {} cannot be exported: it has no name to ask for again\. Write it as `def my_function"
    for where, options in {
        "get_x": {"get_x": lambda path: path},
        "item_tfms": {"item_tfms": [Resize(16), lambda x: x]},
    }.items():
        with pytest.raises(ValueError, match=message.format(where, "lambda")):
            photo_learner(photos, **options).export(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message.format("loss_func", "lambda")):
        photo_learner(photos, loss_func=lambda pred, targ: pred.sum()).export(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message.format("loss_func", "partial")):
        photo_learner(photos, loss_func=partial(F.cross_entropy, label_smoothing=0.1)).export(tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()


def test_two_objects_of_one_name_are_refused_since_one_would_stand_for_both(photos, tmp_path):
    def other():
        def halve(image):
            return image // 4

        return halve

    learn = photo_learner(photos, item_tfms=[Resize(16), halve, other()])
    with pytest.raises(ValueError, match="item_tfms: Two different objects are called 'halve'"):
        learn.export(tmp_path / "x.pt")


def test_a_label_that_json_does_not_know_is_refused(photos, tmp_path):
    learn = photo_learner(photos, get_y=lambda path: pd.Timestamp("2024-01-01"))
    with pytest.raises(ValueError, match=r"blocks: .*a Timestamp is neither plain data nor a function"):
        learn.export(tmp_path / "x.pt")


def test_all_missing_names_are_listed_with_the_call_that_hands_them_in(photos, tmp_path):
    learn = photo_learner(photos, OwnNet(), own_loss, get_x=as_text, get_y=colour_of, batch_tfms=[Brighten(0.5)])
    file = learn.export(tmp_path / "export.pt")
    with pytest.raises(KeyError) as caught:
        load_learner(file)
    message = str(caught.value)
    assert (
        "'OwnNet' (in the model), 'own_loss' (in the loss), 'as_text' (in get_x), 'Brighten' (in batch_tfms)" in message
    )
    call = "custom={'OwnNet': OwnNet, 'own_loss': own_loss, 'as_text': as_text, 'Brighten': Brighten})"
    assert f"load_learner({str(file)!r}, {call}" in message
    with pytest.raises(KeyError, match=r"needs objects of your own, which no file brings: 'as_text' \(in get_x\)\."):
        load_learner(file, custom={"OwnNet": OwnNet, "own_loss": own_loss, "Brighten": Brighten})


class Sized(nn.Module):
    def __init__(self, n_out):
        super().__init__()
        self.linear = nn.Linear(4, n_out)


@pytest.mark.parametrize("model", [make_net(), Sized(2)], ids=["Sequential", "Sized"])
def test_a_model_whose_class_needs_arguments_is_asked_for_as_a_function(photos, tmp_path, model):
    file, name = photo_learner(photos, model).export(tmp_path / "export.pt"), type(model).__name__
    with pytest.raises(KeyError, match=rf"custom=\{{'{name}': lambda: {name}\(…\)\}}\)"):
        load_learner(file)
    assert load_learner(file, custom={name: lambda: model}).model is model


def test_what_is_no_model_is_reported(photos, tmp_path):
    file = photo_learner(photos, OwnNet()).export(tmp_path / "export.pt")
    for wrong, message in {dict: "custom gave dict for the model", "OwnNet": "'str' object is not callable"}.items():
        with pytest.raises(FileError, match=message):
            load_learner(file, custom={"OwnNet": wrong})


# ---- losses


LOSSES = {
    "ours": (losses.FocalLoss(gamma=1.5), losses.FocalLoss(gamma=1.5)),
    "a module": (
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0]), label_smoothing=0.25),
        CrossEntropyLoss([1.0, 2.0], label_smoothing=0.25, axis=1),
    ),
    "another module": (nn.MSELoss(reduction="sum"), losses.MSELoss("sum")),
    "a module with weights": (
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 3.0])),
        losses.BCEWithLogitsLoss(pos_weight=[2.0, 3.0]),
    ),
    "a function": (F.cross_entropy, CrossEntropyLoss(axis=1)),
    "another function": (F.l1_loss, losses.L1Loss()),
}


@pytest.mark.parametrize(("loss", "expected"), LOSSES.values(), ids=LOSSES)
def test_a_loss_of_pytorch_comes_back_as_ours_of_the_same_meaning(photos, tmp_path, loss, expected):
    learn = photo_learner(photos, OwnNet(), loss)
    again = reload(learn, tmp_path, {"OwnNet": OwnNet})
    assert again.loss_func == expected
    pred, targ = torch.randn(6, 2), torch.rand(6, 2)
    assert again.loss_func(pred, targ).allclose(loss(pred, targ))
    assert predictions(again, get_image_files(photos)).allclose(predictions(learn, get_image_files(photos)))


@pytest.mark.parametrize("given", [OwnLoss, OwnLoss(smoothing=0.1)], ids=["class", "instance"])
def test_a_loss_of_your_own_is_handed_in(photos, tmp_path, given):
    learn = photo_learner(photos, OwnNet(), OwnLoss())
    again = reload(learn, tmp_path, {"OwnNet": OwnNet, "OwnLoss": given})
    assert isinstance(again.loss_func, OwnLoss)
    assert_same(again, learn, get_image_files(photos))


def test_a_subclass_of_a_loss_is_not_taken_for_it(photos, tmp_path):
    class Doubled(nn.CrossEntropyLoss):
        def forward(self, pred, targ):
            return 2 * super().forward(pred, targ)

    with pytest.raises(KeyError, match=r"'Doubled' \(in the loss\)"):
        reload(photo_learner(photos, OwnNet(), Doubled()), tmp_path, {"OwnNet": OwnNet})


# ---- other tasks and labels


VECTORS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)).tolist()
TASKS = {
    "several labels": ([["a"], ["a", "b"], [], ["c"]] * 3, MultiCategoryBlock, 3),
    "a number": ([sum(vector) for vector in VECTORS], RegressionBlock, 1),
    "numbers": ([vector[:2] for vector in VECTORS], RegressionBlock, 2),
    "ints": ([3, 1, 2] * 4, CategoryBlock, 3),
    "bools": ([True, False] * 6, CategoryBlock, 2),
    "numpy ints": (list(np.array([30, 10, 20] * 4)), CategoryBlock, 3),
    "numpy texts": (list(np.array(["x", "y"] * 6)), CategoryBlock, 2),
    "missing": ([float("nan"), "b", "c"] * 4, CategoryBlock(add_na=True), 3),
    "mixed": ([1, "1", 2] * 4, CategoryBlock, 3),
}


@pytest.mark.parametrize(("labels", "target", "n_out"), TASKS.values(), ids=TASKS)
def test_targets_of_any_kind_come_back(tmp_path, labels, target, n_out):
    items = list(zip(VECTORS, labels, strict=True))
    learn = vector_learner(items, (Block, target), n_out)
    again = reload(learn, tmp_path, {"Linear": lambda: nn.Linear(4, n_out)})
    assert_same(again, learn, items)
    assert again.data.vocab == learn.data.vocab and again.data.c == n_out
    for ours, theirs in zip(again.data.vocab or [], learn.data.vocab or [], strict=True):
        assert type(ours) is type(theirs) or isinstance(theirs, str)


def test_a_learner_of_plain_loaders_keeps_model_and_loss(tmp_path):
    samples = TensorDataset(torch.tensor(VECTORS), torch.tensor([0, 1, 2] * 4))
    data = DataBunch(DataLoader(samples, 4), DataLoader(samples, 4), device="cpu")
    learn = quiet(Learner(data, nn.Linear(4, 3), nn.CrossEntropyLoss()))
    again = reload(learn, tmp_path, {"Linear": lambda: nn.Linear(4, 3)})
    loader = DataLoader(TensorDataset(torch.tensor(VECTORS)), 5)
    assert again.get_preds(dl=loader)[0].equal(learn.get_preds(dl=loader)[0])
    with pytest.raises(ValueError, match="needs data from a DataBlock"):
        again.predict(VECTORS[0])
    with pytest.raises(ValueError, match=r"no training batch|training set is empty"):
        again.fit(1)


# ---- what a loaded learner can do


def two_groups(model):
    return [[*model.conv.parameters(), *model.norm.parameters()], list(model.head.parameters())]


def test_a_learner_exported_while_frozen_can_be_unfrozen_and_trained_on_new_data(photos, tmp_path):
    learn = photo_learner(photos, OwnNet(), splitter=two_groups)
    learn.freeze()
    again = reload(learn, tmp_path, {"OwnNet": OwnNet, "two_groups": two_groups})
    assert not again.model.training
    for without_items in (again.show_results, again.get_preds, lambda: again.fit(1)):
        with pytest.raises(ValueError, match=r"needs a validation set|no batch|no training batch"):
            without_items()
    again.data, before = photo_data(photos), again.model.conv.weight.clone()
    again.fine_tune(1)
    assert not again.model.conv.weight.equal(before)
    again.unfreeze()
    again.fit_one_cycle(8, slice(1e-2, 1e-1))
    preds, targs = again.get_preds()
    assert preds.argmax(1).equal(targs)
    assert_same(reload(again, tmp_path, {"OwnNet": OwnNet}), again, get_image_files(photos))


def test_exporting_leaves_the_learner_in_training(photos, tmp_path):
    learn = photo_learner(photos, OwnNet())
    learn.fit(1)
    optimizer, mode = learn.opt, learn.model.training
    learn.export(tmp_path / "export.pt")
    assert learn.opt is optimizer and learn.model.training == mode
    learn.fit(1)


def test_the_model_and_its_data_are_put_on_the_device(photos, tmp_path):
    learn = photo_learner(photos, OwnNet())
    for device in ("cpu", torch.device("cpu")):
        assert_same(reload(learn, tmp_path, {"OwnNet": OwnNet}, device=device), learn, get_image_files(photos))
    elsewhere = reload(learn, tmp_path, {"OwnNet": OwnNet}, device="meta")
    assert {p.device.type for p in elsewhere.model.parameters()} == {"meta"} and elsewhere.data.device.type == "meta"


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device that is to be absent")
def test_an_absent_device_is_not_taken_for_a_damaged_file(photos, tmp_path):
    file = photo_learner(photos, OwnNet()).export(tmp_path / "export.pt")
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        load_learner(file, device="cuda", custom={"OwnNet": OwnNet})


# ---- files that are not trusted


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of an export that needs nothing handed in."""
    items = list(zip(VECTORS, "ab" * 6, strict=True))
    learn = vector_learner(items, (Block, CategoryBlock), 2)
    learn.model_spec = CrossEntropyLoss()  # stands for a description, of which nothing is built in these tests
    return learn.export(tmp_path_factory.mktemp("whole") / "export.pt").read_bytes()


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def test_a_pickle_bomb_renamed_to_an_export_does_not_go_off(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "export.pt"
    archive = io.BytesIO()
    torch.save({KEY: "{}", "weights": Bomb(marker)}, archive)
    for content in (pickle.dumps(Bomb(marker)), archive.getvalue()):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"export\.pt"):
            load_learner(path)
        assert not marker.exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_export_is_reported(whole, tmp_path, share):
    path = tmp_path / "export.pt"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FileError, match=r"export\.pt is not a file that torch\.save wrote, or its end is missing"):
        load_learner(path)


def with_description(tmp_path, **changes):
    """An export of the library's own parts alone, its description changed."""
    description = {
        "format": FORMAT,
        "version": "0.1",
        "torch": "2",
        "model": {"class": "vision.vision_model.VisionModel", "fields": {"arch": "resnet18", "n_out": 2}},
        "loss": {"class": "learner.losses.MSELoss", "fields": {}},
        "splitter": None,
        "data": None,
    }
    content = {KEY: json.dumps(description | changes), "weights": {"weight": torch.ones(2, 2)}}
    return save_file(content, tmp_path / "export.pt")


@pytest.mark.parametrize("version", [FORMAT + 1, 0, "one", None])
def test_an_export_of_another_format_is_reported_with_the_version_that_wrote_it(tmp_path, version):
    with pytest.raises(
        FileError, match=rf"written in format {version!r} by version '9\.8' of warmstart; this is version"
    ):
        load_learner(with_description(tmp_path, format=version, version="9.8"))


def test_weights_are_not_taken_for_an_export(photos, tmp_path):
    learn = photo_learner(photos, path=tmp_path)
    learn.save("model")
    torch.save(learn.model.state_dict(), tmp_path / "state.pt")
    for file in (tmp_path / "models" / "model.pth", tmp_path / "state.pt"):
        with pytest.raises(
            FileError, match=r"is not an exported learner.*Weights of learn\.save\(\) are read by learn\.load"
        ):
            load_learner(file)
    with pytest.raises(FileNotFoundError, match=r"exports\.pt does not exist"):
        load_learner(tmp_path / "exports.pt")


FOREIGN = {
    "a class of the standard library": {"class": "subprocess.Popen", "fields": {"args": "touch marker"}},
    "a function of the standard library": {"function": "os.system"},
    "a path out of the package": {"class": "..os.system", "fields": {}},
    "a class that is not described": {"class": "learner.learner.Learner", "fields": {}},
    "a function called as a class": {"class": "data.getters.get_files", "fields": {"path": "/"}},
    "a module of torchvision": {"v2": "functional", "fields": {}},
    "a function of torchvision": {"v2": "query_size", "fields": {}},
    "a module of torch": {"dtype": "hub"},
    "another enumeration": {"enum": "Enum", "value": 1},
    "arguments that do not fit": {"class": "vision.transforms.Resize", "fields": {"sizes": 3}},
    "an unknown kind": {"pickle": "gASVJQ=="},
    "nothing": None,
    "a number": 3,
    "fields that are none": {"class": "vision.transforms.Resize", "fields": 7},
    "a name that is none": {"class": 7, "fields": {}},
}


@pytest.mark.parametrize("spec", FOREIGN.values(), ids=FOREIGN)
def test_a_description_names_nothing_but_the_librarys_descriptions(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=r"export\.pt cannot be built by version"):
        load_learner(with_description(tmp_path, model=spec))
    assert [file.name for file in tmp_path.iterdir()] == ["export.pt"]


def test_a_class_that_was_imported_is_not_built_unless_it_is_handed_in(tmp_path):
    for name in (f"{Brighten.__module__}.Brighten", f"warmstart.{Brighten.__module__}.Brighten", "Brighten"):
        with pytest.raises(FileError, match="has no"):
            load_learner(with_description(tmp_path, model={"class": name, "fields": {"by": 1}}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["class", "fields", "function", "v2", "custom", "list", "tuple", "dict", "path", "dtype", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(model=JSON, data=JSON, loss=JSON)
def test_any_description_gives_a_clear_error(tmp_path_factory, model, data, loss):
    file = with_description(tmp_path_factory.mktemp("any"), model=model, data=data, loss=loss)
    with pytest.raises((FileError, KeyError), match=r"export\.pt"):
        load_learner(file)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"version": 3}'])
def test_a_description_that_is_none_is_reported(tmp_path, text):
    file = save_file({KEY: text, "weights": {}}, tmp_path / "export.pt")
    with pytest.raises(FileError, match=r"export\.pt is damaged: its description cannot be read"):
        load_learner(file)


@settings(max_examples=60, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_changed_byte_is_reported_or_changes_nothing(whole, tmp_path_factory, position, byte):
    changed = bytearray(whole)
    changed[int(position * len(whole))] = byte
    file = tmp_path_factory.mktemp("changed") / "export.pt"
    file.write_bytes(changed)
    try:
        content = load_file(file)
    except FileError as error:
        assert "export.pt" in str(error)
    else:
        file.write_bytes(whole)
        original = load_file(file)
        assert content[KEY] == original[KEY]
        assert all(torch.equal(value, original["weights"][name]) for name, value in content["weights"].items())
