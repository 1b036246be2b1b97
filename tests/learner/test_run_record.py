"""Records of runs: the same for the same script, and whatever makes another fit is named."""

import json
import os
import random
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler
from warmstart.callbacks import (
    EMA,
    ActivationStats,
    Callback,
    CancelFit,
    CSVLogger,
    EarlyStopping,
    GradientAccumulation,
    GradientClip,
    LimitBatches,
    MixUp,
    ParamScheduler,
    SaveModel,
    StopAfter,
    TorchScheduler,
    ValidateEvery,
    sched_cos,
)
from warmstart.data import CategoryBlock, DataBlock, DataBunch, IndexSplitter, get_image_files, parent_label
from warmstart.learner import AdamW, CrossEntropyLoss, F1Score, Learner, Lookahead, accuracy, launch
from warmstart.learner.differences import differences
from warmstart.learner.run_record import run_record, save_record
from warmstart.vision import ImageBlock, Resize, aug_transforms

torch.set_num_threads(1)


class Record(Callback):
    """Takes the record when a fit begins, as whoever writes it next to the weights does."""

    order = -1000

    def __init__(self, ends=True):
        self.ends, self.records = ends, []

    def before_fit(self, learn):
        self.records.append(run_record(learn, without=[self]))
        if self.ends:
            raise CancelFit


class Strong(Callback):
    def __init__(self, strength=1.0):
        self.strength = strength


class Net(nn.Module):
    def __init__(self, width=8, drop=0.1):
        super().__init__()
        self.drop, self.body, self.head = drop, nn.Linear(4, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.head(F.dropout(self.body(x).relu(), self.drop, self.training))


def two_groups(model):
    return [list(model.body.parameters()), list(model.head.parameters())]


def tables(n=40, bs=8, seed=1, flip=0):
    x = torch.arange(n * 4.0).reshape(n, 4) / n
    y = torch.arange(n) % 3
    y[:flip] = 2 - y[:flip]
    return DataBunch.from_dsets(TensorDataset(x, y), TensorDataset(x[:12], y[:12]), bs=bs, seed=seed, device="cpu")


def learner(data=None, model=None, loss_func=None, cbs=None, **options):
    options = {"metrics": accuracy, "splitter": two_groups, **options}
    learn = Learner(data or tables(), model or Net(), loss_func or CrossEntropyLoss(), cbs=cbs, **options)
    learn.progress.bar = learn.progress.table = False
    return learn


def record_of(learn, fit=lambda learn, cbs: learn.fit(2, cbs=cbs)):
    record = Record()
    fit(learn, record)
    return record.records[0]


@pytest.fixture
def photos(tmp_path):
    for label in ("ants", "bees"):
        for number in range(5):
            file = tmp_path / "photos" / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20 + number, 24)).save(file)
    return tmp_path / "photos"


def images(folder, max_rotate=10.0, size=16, get_y=parent_label, n=10):
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=lambda path: get_image_files(path)[:n],
        get_y=get_y,
        splitter=IndexSplitter([0, 6]),
        item_tfms=Resize(size),
        batch_tfms=aug_transforms(max_rotate=max_rotate),
    )
    return block.databunch(folder, bs=4, seed=1, device="cpu")


def photo_learner(data):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return learner(data, model, splitter=lambda model: list(model.parameters()))


# ---- the same


def test_a_record_is_json_that_comes_back_equal(tmp_path):
    record = record_of(learner(cbs=[MixUp(), Strong()]))
    assert set(record) == {"recipe", "data", "seed", "environment"}
    file = save_record(record, tmp_path / "new" / "run.json")
    found = json.loads(file.read_text("utf-8"))
    assert found == record and differences(found, record) == []
    assert list(file.parent.iterdir()) == [file]


SCRIPT = """
import json, sys
from functools import partial
from pathlib import Path
import torch
from torch import nn
from warmstart.callbacks import MixUp, ParamScheduler
from warmstart.vision import *
from test_run_record import Record

torch.set_num_threads(1)

class Own(Callback):
    def __init__(self, names, folder):
        self.names, self.folder, self.table, self.model = set(names), folder, torch.ones(3), nn.Linear(1, 1)
        self.function, self.any = (lambda x: x + 1), object()

def loss(pred, targ):
    return nn.functional.cross_entropy(pred, targ, label_smoothing=0.1)

folder = Path(sys.argv[1])
labels = {file: file.parent.name for file in get_image_files(folder)}
block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=lambda file: labels[file],
                  splitter=RandomSplitter(seed=1), item_tfms=[Resize(16), lambda x: x], batch_tfms=aug_transforms())
data = block.databunch(folder, bs=4, device="cpu", seed=3)
model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
set_seed(5)
learn = Learner(data, model, loss, metrics=[accuracy, lambda pred, targ: pred.mean(), partial(top_k_accuracy, k=1)],
                cbs=[MixUp(), Own({"a", "b", "c", "d"}, folder)])
record = Record()
with learn.no_bar(), learn.no_logging():
    learn.fit_one_cycle(2, cbs=[record, ParamScheduler({"wd": lambda pct: 0.1 * pct})])
print(json.dumps(record.records[0]))
"""


def test_the_same_script_in_two_processes_gives_the_same_recipe_data_and_seed(photos, tmp_path, monkeypatch, capsys):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, str(script), str(photos)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    monkeypatch.setattr(sys, "argv", command[1:])
    monkeypatch.syspath_prepend(Path(__file__).parent)
    runpy.run_path(str(script), run_name="__main__")
    one, other = (json.loads(output.splitlines()[-1]) for output in (done.stdout, capsys.readouterr().out))
    for part in ("recipe", "data", "seed"):
        assert one[part] == other[part]
    assert differences(one, other) == []
    assert one["seed"] == {"data": 3, "torch": 5} and one["environment"]["argv"][0] == str(script)
    assert "0x" not in json.dumps({**one, "environment": None})


def test_a_fit_leaves_no_trace_in_the_next_ones_record(tmp_path):
    cbs = [MixUp(), EMA(0.5), GradientClip(), GradientAccumulation(8), EarlyStopping(patience=9), SaveModel(),
           StopAfter(steps=6), LimitBatches(3), ValidateEvery(2), ActivationStats(), Strong(),
           TorchScheduler(partial(StepLR, step_size=1))]  # fmt: skip
    learn = learner(cbs=cbs, path=tmp_path, metrics=[accuracy, F1Score()])
    record = Record(ends=False)
    for _ in range(2):
        learn.fit(1, cbs=record)
    one, other = record.records
    assert one["recipe"] == other["recipe"] and one["data"] == other["data"] and one["seed"] == other["seed"]
    names = [cb["class"] for cb in one["recipe"]["callbacks"]]
    assert names == [type(cb).__name__ for cb in cbs]


def test_taking_a_record_changes_nothing():
    def drawing(pct):
        return random.random() * 0 + np.random.rand() * 0 + torch.rand(1).item() * 0 + pct

    learn = learner()
    sampler, passes = learn.data.train_dl.sampler, learn.data.train_dl.sampler.passes

    class Compare(Callback):
        order = -1000

        def before_fit(self, learn):
            states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
            weights = {name: value.clone() for name, value in learn.model.state_dict().items()}
            run_record(learn)
            assert torch.equal(states[0], torch.get_rng_state()) and states[2] == random.getstate()
            assert states[1] == np.random.get_state()[1].tolist()
            assert all(torch.equal(value, weights[name]) for name, value in learn.model.state_dict().items())
            assert learn.data.train_dl.sampler is sampler and sampler.passes == passes and sampler.epoch == 0

    learn.fit(1, cbs=[Compare(), ParamScheduler({"lr": drawing})])


def test_no_image_is_opened_and_no_worker_started(photos, monkeypatch):
    learn = photo_learner(images(photos))
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    monkeypatch.setattr(DataLoader, "__iter__", lambda _: pytest.fail("a batch was asked for"))
    assert record_of(learn)["data"]["train"]["items"] == 8


def test_what_only_writes_or_shows_does_not_belong_to_the_recipe(tmp_path):
    learn = learner(cbs=CSVLogger(), path=tmp_path)
    assert record_of(learn)["recipe"] == record_of(learner())["recipe"]


def record_of_a_rank():
    learn = learner(tables(n=41))
    learn.to_distributed(timeout=20)
    return record_of(learn)


def test_processes_that_train_together_record_the_whole():
    alone = record_of(learner(tables(n=41)))
    for record in launch(record_of_a_rank):
        assert all(record[part] == alone[part] for part in ("recipe", "data"))
        assert differences(record, alone) == [] and record["environment"]["processes"] == 2


def test_foreign_loaders_are_recorded_as_far_as_they_can_be_known():
    dataset = TensorDataset(torch.zeros(8, 4), torch.zeros(8).long())

    def found(**options):
        return record_of(learner(DataBunch(DataLoader(dataset, 4, **options), device="cpu")))

    plain = found()
    assert plain["data"]["valid"] is None and plain["seed"]["data"] is None
    sentence = differences(plain, found(shuffle=True))[0]
    assert sentence.startswith("the order of training items was SequentialSampler(data_source=TensorDataset(")
    assert " and is RandomSampler(data_source=TensorDataset(" in sentence
    batches = record_of(learner(DataBunch([(torch.zeros(2, 4), torch.tensor([0, 1]))], device="cpu")))
    assert batches["recipe"]["bs"] is None and batches["data"]["train"]["kind"] == "list"


def test_a_system_is_recorded_with_its_own_hyper_parameters():
    class Own(nn.Module):
        def __init__(self, lr=0.1):
            super().__init__()
            self.layer, self.rate = nn.Linear(4, 3), lr

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.layer(batch[0]), batch[1])

        def configure_optimizers(self):
            return SGD(self.parameters(), self.rate)

    def found(lr):
        learn = Learner(tables(), Own(lr))
        learn.progress.bar = learn.progress.table = False
        return record_of(learn)

    assert found(0.1)["recipe"]["callbacks"] == [{"class": "SystemHooks"}]
    assert differences(found(0.1), found(0.1)) == []
    assert differences(found(0.1), found(0.2)) == ["the learning rate was 0.1 and is 0.2"]


# ---- another recipe


def fit(**options):
    return lambda learn, cbs: learn.fit(**{"n_epoch": 2, "cbs": cbs, **options})


def one_cycle(**options):
    return lambda learn, cbs: learn.fit_one_cycle(**{"n_epoch": 2, "cbs": cbs, **options})


def frozen():
    learn = learner()
    learn.freeze()
    return learn


CHANGES = [
    (learner, fit(n_epoch=3), ["the number of epochs was 2 and is 3"]),
    (learner, fit(lr=0.1), ["the learning rate was 0.001 and is 0.1"]),
    (learner, fit(lr=slice(0.1, 1)), ["the learning rate was 0.001 and is [0.1, 1.0]"]),
    (learner, fit(wd=0.3), ["the weight decay was 0.01 and is 0.3"]),
    (partial(learner, opt_func=SGD), fit(), ["the optimizer was AdamW(lr=0.001, "]),
    (partial(learner, opt_func=partial(AdamW, eps=1e-6)), fit(), ["optimizer.eps was 1e-08 and is 1e-06"]),
    (lambda: learner(loss_func=CrossEntropyLoss(label_smoothing=0.1)), fit(),
     ["loss.label_smoothing was 0.0 and is 0.1"]),
    (lambda: learner(loss_func=nn.MSELoss()), fit(),
     ["the loss was CrossEntropyLoss(", " and is MSELoss(reduction='mean')"]),
    (lambda: learner(model=Net(16)), fit(),
     ["the model's layer body was Linear(in_features=4, out_features=8, "
      "bias=True) and is Linear(in_features=4, out_features=16, bias=True), and 1 more of its layers differ",
      "what the model holds was 4 tensors of 67 numbers ("]),
    (lambda: learner(model=Net(drop=0.2)), fit(), ["the model was Net(drop=0.1) and is Net(drop=0.2)"]),
    (partial(learner, splitter=lambda model: [*model.parameters()]), fit(),
     ["what trains in each group was ['2 tensors of 40 numbers ("]),
    (frozen, fit(), ["what trains of the model was 4 tensors of 67 numbers ("]),
    (lambda: learner(tables(bs=10)), fit(), ["the batch size was 8 and is 10"]),
    (lambda: learner(tables(seed=2)), fit(), ["the seed of the data was 1 and is 2 (for the same in "]),
    (lambda: learner(tables(n=41)), fit(), ["the training data had 40 items and have 41"]),
    (lambda: learner(tables(flip=1)), fit(),
     ["the training data have 40 items as before, but other items",
      "the validation data have 12 items as before, but other items"]),
    (lambda: learner(cbs=MixUp(0.4)), fit(), ["callback MixUp(alpha=0.4) is new"]),
    (lambda: learner(metrics=[accuracy, F1Score()]), fit(), ["metric F1Score("]),
    (lambda: learner().to_bf16(), fit(), ["the precision was float32 and is bfloat16, weights in float32"]),
    (learner, one_cycle(), ["the schedule of lr was absent and is 4e-05 → 0.00075 → 1e-08"]),
]  # fmt: skip


@pytest.mark.parametrize("other, how, sentences", CHANGES, ids=[sentences[0][:40] for *_, sentences in CHANGES])
def test_each_change_of_the_recipe_is_named(other, how, sentences):
    found = differences(record_of(learner()), record_of(other(), how))
    for sentence in sentences:
        assert any(sentence in one for one in found), found
    assert len(found) <= 3


@pytest.mark.parametrize(
    "one, other, sentence",
    [
        (MixUp(0.4), MixUp(0.2), "callback MixUp.alpha was 0.4 and is 0.2"),
        (Strong(), Strong(2.0), "callback Strong.strength was 1.0 and is 2.0"),
        (TorchScheduler(partial(StepLR, step_size=1)), TorchScheduler(partial(StepLR, step_size=2)),
         "callback TorchScheduler.scheduler.step_size was 1 and is 2"),
        (EarlyStopping(patience=1), EarlyStopping("accuracy", patience=1),
         "callback EarlyStopping.monitor.name was valid_loss and is accuracy"),
    ],
)  # fmt: skip
def test_a_callback_with_another_argument_is_named(one, other, sentence):
    assert differences(record_of(learner(cbs=one)), record_of(learner(cbs=other))) == [sentence]


def test_a_callback_that_is_gone_is_named_with_its_arguments():
    assert differences(record_of(learner(cbs=MixUp())), record_of(learner())) == ["callback MixUp(alpha=0.4) is gone"]


def test_a_loss_of_ones_own_that_was_changed_is_named():
    def defined(factor):
        namespace = {"__name__": "__main__", "F": F}
        exec(f"def loss(pred, targ): return F.cross_entropy(pred, targ) * {factor}", namespace)
        return namespace["loss"]

    one, other = (record_of(learner(loss_func=defined(factor))) for factor in (1, 2))
    assert differences(one, other) == ["the code of the loss has changed"]


def test_a_method_of_a_callback_that_was_repaired_is_not_named(monkeypatch):
    one = record_of(learner(cbs=Strong()))
    monkeypatch.setattr(Strong, "after_loss", lambda self, learn: None, raising=False)
    assert differences(one, record_of(learner(cbs=Strong()))) == []


def test_an_optimizer_around_another_is_named_by_its_own_arguments():
    def slow(k):
        return learner(opt_func=lambda params, lr: Lookahead(SGD(params, lr), k))

    assert differences(record_of(slow(5)), record_of(slow(6))) == ["optimizer.k was 5 and is 6"]


def test_schedules_compare_by_their_values():
    def found(sched):
        return record_of(learner(), lambda learn, cbs: learn.fit(2, cbs=[cbs, ParamScheduler({"lr": sched})]))

    assert differences(found(sched_cos(1, 0.5)), found(lambda pct: sched_cos(1, 0.5)(pct))) == []
    changed = differences(found(sched_cos(1, 0.5)), found(sched_cos(1, 0.25)))
    assert changed == ["the schedule of lr was 1 → 0.75 → 0.5 and is 1 → 0.625 → 0.25"]


def test_weights_of_a_sampler_are_seen(photos):
    def found(weights):
        block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                          splitter=IndexSplitter([0, 6]), item_tfms=Resize(16))  # fmt: skip
        data = block.databunch(photos, bs=4, seed=1, device="cpu", sampler=WeightedRandomSampler(weights, 8))
        return record_of(photo_learner(data))

    assert differences(found([1.0] * 8), found([1.0] * 8)) == []
    assert "order" in differences(found([1.0] * 8), found([1.0] * 7 + [2.0]))[0]


# ---- other data


def test_stronger_augmentation_and_other_sizes_are_named(photos):
    one = record_of(photo_learner(images(photos)))
    other = record_of(photo_learner(images(photos, max_rotate=20.0, size=18)))
    assert differences(one, other) == [
        "block ImageBlock.min_side was 16 and is 18",
        "item transform Resize.size was 16 and is 18",
        "batch transform Geometry.max_rotate was 10.0 and is 20.0",
    ]


def test_items_that_were_added_or_removed_are_named(photos):
    one, other = record_of(photo_learner(images(photos))), record_of(photo_learner(images(photos, n=9)))
    assert differences(one, other) == ["the training data had 8 items and have 7"]
    assert differences(other, one) == ["the training data had 7 items and have 8"]


def test_items_that_were_relabelled_are_named(photos):
    labels = {file: file.parent.name for file in get_image_files(photos)}
    one = record_of(photo_learner(images(photos, get_y=lambda file: labels[file])))
    labels[photos / "ants" / "1.png"] = "bees"
    other = record_of(photo_learner(images(photos, get_y=lambda file: labels[file])))
    assert differences(one, other)[-1:] == ["the training data have 8 items as before, but other labels"]


def test_a_file_that_has_changed_is_named_by_its_set(photos):
    one = record_of(photo_learner(images(photos)))
    Image.new("RGB", (70, 50), "red").save(photos / "ants" / "0.png")
    other = record_of(photo_learner(images(photos)))
    assert differences(one, other) == ["the validation data have 2 items as before, but other file sizes"]


def test_another_class_changes_the_vocabulary(photos):
    one = record_of(photo_learner(images(photos)))
    (photos / "bees").rename(photos / "wasps")
    found = differences(one, record_of(photo_learner(images(photos))))
    assert found[-1] == "the vocabulary was [['ants', 'bees']] and is [['ants', 'wasps']]"
