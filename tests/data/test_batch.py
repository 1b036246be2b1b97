from collections import OrderedDict, namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence
from warmstart.data.batch import batch_size, default_device, split_batch, to_device

x, y, z = torch.zeros(4, 3), torch.ones(4), torch.full((4,), 2.0)
Pair = namedtuple("Pair", "image label")
meta = torch.device("meta")  # a device that every machine has


def devices(batch):
    if isinstance(batch, torch.Tensor):
        return {batch.device.type}
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return {device for part in parts for device in devices(part)}


BATCHES = [x, (x, y), [x, y], {"image": x, "label": y}, Pair(x, y), ((x, y), z), {"images": [x, {"deep": y}]}]


@pytest.mark.parametrize("batch", BATCHES)
def test_every_tensor_of_a_batch_is_moved_and_its_structure_kept(batch):
    moved = to_device(batch, meta)
    assert devices(moved) == {"meta"} and devices(batch) == {"cpu"}
    assert type(moved) is type(batch)


def test_what_is_no_tensor_stays():
    assert to_device((x, "name", 3, None), meta)[1:] == ("name", 3, None)


def test_a_tensor_that_is_there_is_not_copied():
    assert to_device((x, y), torch.device("cpu"))[0] is x


def test_what_can_move_itself_does():
    packed = pack_sequence([x, x[:2]])
    moved = to_device({"texts": packed}, meta)["texts"]
    assert moved.data.device.type == "meta"
    assert moved.batch_sizes.device.type == "cpu"  # as a PackedSequence needs it


@given(st.integers(1, 6), st.integers(1, 6))
def test_a_tuple_is_parted_after_its_inputs(n, n_inp):
    batch = [torch.full((2,), float(i)) for i in range(n)]
    xb, yb = split_batch(batch, min(n_inp, n))
    assert isinstance(xb, tuple) and isinstance(yb, tuple)
    assert len(xb) == min(n_inp, n) and [*xb, *yb] == batch


def test_by_default_all_values_but_the_last_are_inputs():
    assert split_batch((x, y, z)) == ((x, y), (z,))
    assert split_batch([x]) == split_batch(x) == ((x,), ())
    assert split_batch(Pair(x, y)) == ((x,), (y,))
    assert split_batch(((x, y), z)) == (((x, y),), (z,))


@pytest.mark.parametrize("key", ["labels", "label", "targets", "target", "y"])
def test_a_dict_names_its_target(key):
    assert split_batch(OrderedDict({"image": x, key: y})) == ({"image": x}, (y,))


def test_a_dict_without_target_is_all_input():
    assert split_batch({"image": x}) == ({"image": x}, ())
    assert split_batch({"y": z, "labels": y}) == ({"y": z}, (y,))


@pytest.mark.parametrize(
    "batch", [x, (x, y), {"name": ["a", "b", "c", "d"], "image": x}, [[], (x,)], ("ab", {"x": x}), Pair(x, y)]
)
def test_the_first_tensor_tells_the_batch_size(batch):
    assert batch_size(batch) == 4


@pytest.mark.parametrize("batch", [torch.tensor(3.0), (), {}, "abc", ["abc"], None])
def test_a_batch_without_tensors_counts_as_one_sample(batch):
    assert batch_size(batch) == 1


def test_the_default_device_is_the_accelerator():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert default_device().type == expected


@pytest.mark.parametrize(("local_rank", "expected"), [(None, 0), ("3", 3), ("4", 0)])
def test_of_several_processes_on_a_machine_each_has_its_own_accelerator(monkeypatch, local_rank, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)  # or fewer: one alone may be visible to a process
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert default_device() == torch.device("cuda", expected)
