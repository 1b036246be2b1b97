"""A checkpoint of parted tensors: read by any number of processes, whole or not at all, and never trusted."""

import copy
import os
import pickle
import random
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.tensor import DTensor
from torch.utils.data import TensorDataset
from warmstart.callbacks import EMA, Callback, GradientClip
from warmstart.data import DataBunch
from warmstart.learner import Checkpoint, Learner, RankError, checkpoint_folder, launch, set_seed
from warmstart.learner.files import FileError, load_file
from warmstart.learner.ranks import Ranks
from warmstart.learner.shards import load_parts, put_back

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:EMA", "ignore:The last digits of this run may change"),
]
STOP = SimpleNamespace(where=None)  # apart from the callback, which is part of the recipe


class Stop(Callback):
    """Breaks a fit off at a place that is planned: (epoch, batch), counted from 0."""

    order = 99  # when the checkpoint has been written, if it was

    def after_batch(self, learn):
        if learn.training and (learn.epoch, learn.iter) == STOP.where:
            raise KeyboardInterrupt


def samples(n=96):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.sum(1) > 0).long())


def make_learn(bs):
    """A model of tensors with 7 rows, 1 row, and numbers beside them that are no parameters."""
    set_seed(1)
    model = nn.Sequential(
        nn.Linear(6, 7), nn.Tanh(), nn.BatchNorm1d(7, affine=False).eval(), nn.Linear(7, 1, bias=False)
    )
    model.append(nn.Linear(1, 2))
    model[2].train = lambda mode=True: model[2]  # the same statistics for any number of processes
    data = DataBunch.from_dsets(samples(), samples(), bs=bs, val_bs=32, device="cpu", seed=3)
    learn = Learner(data, model, nn.CrossEntropyLoss(), lr=1e-2)
    learn.progress.bar = learn.progress.table = False
    return learn


def train(folder, bs, where=None, every=3):
    """A run in the processes that there are; `where` it is broken off, if that is said."""
    STOP.where = where
    learn = make_learn(bs).to_fsdp(timeout=30)
    try:
        learn.fit_one_cycle(3, cbs=[EMA(0.9), GradientClip(0.1), Checkpoint(folder, every, allow_changes=True), Stop()])
    except KeyboardInterrupt:
        return None
    state = learn.model.state_dict()
    return {
        "weights": {n: (v.full_tensor() if isinstance(v, DTensor) else v).clone() for n, v in state.items()},
        "losses": torch.tensor(learn.recorder.losses),
    }


def run(n, *args):
    """`train(…)` in `n` processes, that share batches of 24; what came of it, the same on all of them."""
    if n == 1:
        return train(args[0], 24, *args[1:])
    first, *others = launch(train, [args[0], 24 // n, *args[1:]], n)
    for other in others:
        torch.testing.assert_close(first, other, atol=0, rtol=0)
    return first


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What came of a run in two processes."""
    return run(2, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory):
    """The folder of a run in two processes that came to its 11th batch."""
    folder = tmp_path_factory.mktemp("broken_off")
    run(2, folder, (2, 2))
    return folder


@pytest.fixture
def folder(broken_off, tmp_path):
    """A copy of it."""
    os.system(f"cp -r {broken_off}/. {tmp_path}")
    return tmp_path


def check_same(found, expected, atol=0.0):
    torch.testing.assert_close(found, expected, atol=atol, rtol=atol)


# ---- going on


@pytest.mark.parametrize("where", [(0, 3), (1, 1), (2, 3)])
def test_a_run_that_broke_off_ends_with_the_weights_of_one_that_did_not(tmp_path, undisturbed, where):
    assert run(2, tmp_path, where) is None
    check_same(run(2, tmp_path), undisturbed)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(tmp_path, undisturbed, before, after):
    assert run(before, tmp_path, (1, 2), "epoch") is None
    check_same(run(after, tmp_path, None, "epoch"), undisturbed, atol=1e-6)


def test_a_run_that_is_done_is_recognised_by_any_number(tmp_path, undisturbed):
    run(2, tmp_path)
    check_same(run(2, tmp_path)["weights"], undisturbed["weights"])
    check_same(run(1, tmp_path)["weights"], undisturbed["weights"])


def test_each_rank_writes_its_own_part_and_no_tensor_is_written_whole(folder):
    file = max(folder.glob("checkpoint-*.pt"))
    content = load_file(file)
    assert sorted(content["parts"]["files"]) == ["__0_0.distcp", "__1_0.distcp"]
    rows = {tuple(t["size"]): sorted(chunk["size"][0] for chunk in t["chunks"])
            for t in content["parts"]["tensors"].values()}  # fmt: skip
    assert rows == {(7, 6): [3, 4], (7,): [3, 4], (1, 7): [0, 1], (2, 1): [1, 1], (2,): [1, 1]}
    assert content["model"]["0.weight"] == {"parted tensor": "0"}


def test_parts_go_with_their_checkpoints(folder):
    run(2, folder)
    names = [sorted(file.stem for file in folder.glob(f"checkpoint-*{suffix}")) for suffix in (".pt", ".parts")]
    assert names[0] == names[1] and len(names[0]) == 3


# ---- what is damaged


def flip_a_bit(parts):
    file = parts / "__1_0.distcp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def remove_a_part(parts):
    (parts / "__0_0.distcp").unlink()


def remove_all(parts):
    for file in [*parts.iterdir()]:
        file.unlink()
    parts.rmdir()


@pytest.mark.parametrize("damage", [flip_a_bit, remove_a_part, remove_all])
@pytest.mark.parametrize("n", [1, 2])
def test_where_a_part_is_damaged_the_checkpoint_before_is_used_and_that_is_said(folder, undisturbed, damage, n):
    files = sorted(folder.glob("checkpoint-*.pt"))
    damage(files[-1].with_suffix(".parts"))

    def go_on():
        with pytest.warns(UserWarning) as warned:
            found = train(folder, 24 // n)
        (said,) = [str(w.message) for w in warned if "Going on" in str(w.message)]
        return found, said

    found, said = go_on() if n == 1 else launch(go_on)[0]
    assert f"{files[-1].stem}.parts" in said and f"Going on from {files[-2].name}, the one before." in said
    check_same(found, undisturbed, atol=0 if n == 2 else 1e-6)


def test_where_all_parts_are_damaged_nothing_is_begun_anew_by_itself(folder):
    for parts in folder.glob("checkpoint-*.parts"):
        flip_a_bit(parts)
    with pytest.raises(RankError, match=r"__1_0\.distcp has changed since it was written, or is missing"):
        run(2, folder)


def killed_in(monkeypatch, owner, name, rank):
    """Have a process killed in the third call of a function."""
    before, calls = getattr(owner, name), []

    def call(*args, **kwargs):
        calls.append(name)
        if len(calls) == 3 and torch.distributed.get_rank() == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(
    ("owner", "name", "rank"),
    [
        (FileSystemWriter, "write_data", 1),
        (FileSystemWriter, "finish", 0),
        (checkpoint_folder, "save_file", 0),
    ],
)
def test_a_process_that_is_killed_while_it_writes_leaves_the_checkpoint_before(
    tmp_path, undisturbed, owner, name, rank, monkeypatch
):
    with monkeypatch.context() as patch:
        killed_in(patch, owner, name, rank)
        with pytest.raises(RankError, match="SIGKILL"):
            run(2, tmp_path)
    assert sorted(file.name for file in tmp_path.glob("*.pt")) == ["checkpoint-1.pt", "checkpoint-2.pt"]
    check_same(run(2, tmp_path), undisturbed)


def test_a_folder_that_cannot_be_written_is_said_on_all_ranks(tmp_path):
    (tmp_path / "checkpoint-1.parts").write_text("a file where a folder should be")
    with pytest.raises(RankError, match=r"WriteError: .*checkpoint-1.parts could not be written, on rank 0: "):
        run(2, tmp_path)


# ---- what is not trusted


def parts_of(folder):
    """The last folder of parts, and what its checkpoint says of it."""
    file = max(folder.glob("checkpoint-*.pt"))
    return file.with_suffix(".parts"), load_file(file)["parts"]


class Canary:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_the_index_that_torch_writes_beside_the_parts_is_never_opened(folder, undisturbed, tmp_path_factory):
    canary = tmp_path_factory.mktemp("canary") / "ran"
    for parts in folder.glob("checkpoint-*.parts"):
        (parts / ".metadata").write_bytes(pickle.dumps(Canary(canary)))
    check_same(run(2, folder), undisturbed)
    assert not canary.exists()


def test_a_part_that_holds_more_than_tensors_is_refused_and_nothing_is_run(folder, tmp_path_factory):
    canary = tmp_path_factory.mktemp("canary") / "ran"
    path, parts = parts_of(folder)
    torch.save(Canary(canary), path / "__0_0.distcp")
    with (path / "__0_0.distcp").open("ab") as file:
        file.write(bytes(10_000))  # as much as is said to be there
    parts["files"]["__0_0.distcp"] = sha256(path / "__0_0.distcp")
    for tensor in parts["tensors"].values():
        for chunk in tensor["chunks"]:
            chunk["begin"], chunk["length"] = 0, (path / "__0_0.distcp").stat().st_size - 10_000
    error = check_refused(path, parts)
    assert "cannot be read, on rank 0" in error and not canary.exists()


def sha256(file):
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_refused(path, parts):
    """The message of the error, in one paragraph, that names the folder."""
    with pytest.raises(FileError) as caught:
        load_parts(path, parts, Ranks(), None)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 600
    return message


def first_tensor(parts):
    return parts["tensors"]["0"]


def leads_out(parts):
    first_tensor(parts)["chunks"][0]["file"] = "../checkpoint-2.pt"


def file_that_leads_out(parts):
    parts["files"]["../checkpoint-2.pt"] = "0" * 64


def no_dtype(parts):
    first_tensor(parts)["dtype"] = "load"


def too_large(parts):
    first_tensor(parts)["size"] = [1 << 40, 6]


def negative(parts):
    first_tensor(parts)["size"] = [-7, 6]


def gap(parts):
    first_tensor(parts)["chunks"].pop()


def outside(parts):
    first_tensor(parts)["chunks"][0]["at"] = [70, 0]


def no_tensors(parts):
    del parts["tensors"]


def texts_for_numbers(parts):
    first_tensor(parts)["chunks"][0]["begin"] = "here"


def another_place(parts):
    first_tensor(parts)["chunks"][0]["begin"] += 1


@pytest.mark.parametrize("change", [leads_out, file_that_leads_out, no_dtype, too_large, negative, gap, outside,
                                    no_tensors, texts_for_numbers, another_place])  # fmt: skip
def test_parts_are_refused_that_are_not_as_they_were_written(folder, change):
    path, parts = parts_of(folder)
    load_parts(path, parts, Ranks(), None)
    change(parts)
    check_refused(path, parts)


def test_any_change_of_what_is_said_of_the_parts_is_refused_or_does_no_harm(broken_off):
    path, parts = parts_of(broken_off)
    rand = random.Random(0)
    values = [None, -1, 0, 1 << 62, 2.5, "", "float64", "__9_9.distcp", [], {}, [-1], [7, 7], True, "a\nb" * 1000]
    n_refused = 0
    for _ in range(150):
        changed = copy.deepcopy(parts)
        change_somewhere(changed, rand, values)
        try:
            load_parts(path, changed, Ranks(), None)
        except FileError as error:
            n_refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert n_refused > 100


def change_somewhere(value, rand, values):
    """Replace, or remove, something in nested lists and dicts."""
    key = rand.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if isinstance(value[key], (list, dict)) and value[key] and rand.random() < 0.9:
        change_somewhere(value[key], rand, values)
    elif rand.random() < 0.2:
        del value[key]
    else:
        value[key] = rand.choice(values)


def test_a_checkpoint_that_names_a_tensor_that_is_not_there_is_refused():
    with pytest.raises(FileError, match="of its parts 7 is missing"):
        put_back({"model": [{"parted tensor": "7"}]}, {"0": torch.ones(1)})
