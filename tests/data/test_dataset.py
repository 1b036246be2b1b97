import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from warmstart.data import Block, CategoryBlock, ColReader, Dataset, ItemError, ItemGetter, RegressionBlock, Transform
from warmstart.data.dataset import Draw
from warmstart.data.transforms import as_transforms


@dataclass
class Noise(Transform):
    def __call__(self, sample, rand):
        return sample if rand is None else (sample[0] + rand.uniform(1)[0, 0], *sample[1:])


@dataclass
class Add(Transform):
    amount: float

    def __call__(self, sample, rand):
        return (sample[0] + self.amount, *sample[1:])


def numbers(n=6, getters=(None,), **kwargs):
    return Dataset(list(range(n)), [RegressionBlock()] * len(getters), getters, **kwargs)


def failing(*bad):
    def square(item):
        if item in bad:
            raise KeyError(item)
        return item**2

    return square


# ---- samples


def test_a_sample_holds_a_value_for_each_block():
    items = [("a", 1.5), ("b", 2.5)]
    ds = Dataset(items, [CategoryBlock(["a", "b"]), RegressionBlock()], [ItemGetter(0), ItemGetter(1)])
    assert len(ds) == 2
    assert [tuple(value.item() for value in sample) for sample in ds] == [(0, 1.5), (1, 2.5)]
    assert ds[-1] == ds[1] == ds[np.int64(1)]
    with pytest.raises(IndexError):
        ds[2]
    assert repr(ds) == "Dataset(2 items, blocks=(CategoryBlock, RegressionBlock), training=False)"


def test_a_row_of_a_table_keeps_the_type_of_each_column():
    table = pd.DataFrame({"label": [3, 4], "size": [0.5, 1.5]}, index=[10, 5])
    ds = Dataset(table, [CategoryBlock([3, 4]), RegressionBlock()], [ColReader("label"), ColReader("size")])
    assert ds.item(1)["label"] == 4 and isinstance(ds.item(1)["label"], int)
    assert ds.values(0) == [3, 4]
    assert ds.items is table


def test_a_series_is_a_list_of_its_values():
    ds = Dataset(pd.Series([1.0, 2.0], index=[7, 3]), [RegressionBlock()], [None])
    assert ds[1][0] == 2


def test_walk_names_every_step():
    ds = Dataset([4], [Block(), RegressionBlock()], [float, failing()], [Add(1.0)])
    steps = list(ds.walk(Draw(0)))
    assert [name for name, _ in steps] == [
        "item",
        "get_x",
        "Block.encode",
        "get_y",
        "RegressionBlock.encode",
        "item transform Add",
        "sample",
    ]
    assert [value for _, value in steps] == [4, 4.0, 4.0, 16, 16.0, (5.0, 16.0), (5.0, 16.0)]


def test_transforms_draw_by_seed_epoch_and_item_in_training_only():
    ds = numbers(item_tfms=[Noise()], training=True, seed=1)
    drawn = {(epoch, i): ds[Draw(i, epoch)][0].item() % 1 for epoch in range(2) for i in range(3)}
    assert len(set(drawn.values())) == 6
    assert ds[2][0] % 1 == drawn[0, 2] == ds.__getitems__([5, 2])[1][0] % 1
    assert numbers(item_tfms=[Noise()], training=True, seed=2)[2][0] % 1 != drawn[0, 2]
    assert numbers(item_tfms=[Noise()], training=False, seed=1)[2][0] == 2


def test_functions_that_draw_from_global_generators_draw_by_seed_epoch_and_item():
    def getter(item):
        return [random.random(), np.random.rand(), torch.rand(1).item()]

    def transform(value):
        return value + torch.rand(3)

    tfms = as_transforms([transform, v2.RandomHorizontalFlip(0.5)])
    ds = Dataset(range(4), [RegressionBlock()], [getter], tfms, training=True, seed=3)
    first = [sample[0].tolist() for sample in ds]
    state = torch.get_rng_state()
    torch.manual_seed(0)
    assert [ds[i][0].tolist() for i in reversed(range(4))] == first[::-1]
    assert ds[Draw(0, 1)][0].tolist() != first[0] != first[1]
    torch.set_rng_state(state)


def test_reading_leaves_the_global_generators_alone():
    ds = Dataset([0], [RegressionBlock()], [lambda item: random.random() + np.random.rand() + torch.rand(1).item()])
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    ds[0], ds.__getitems__([0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state()), random.getstate()) == before[1:]


def test_a_dataset_can_be_read_by_any_loader_of_yours():
    (batch,) = DataLoader(numbers(getters=(None, failing())), batch_size=6)
    assert torch.equal(batch[0], torch.arange(6.0)) and torch.equal(batch[1], torch.arange(6.0) ** 2)


# ---- batches


def test_samples_are_collated_with_the_items_they_are_made_of():
    ds = numbers(getters=(None, failing()))
    batch = ds.collate(ds.__getitems__([Draw(3, 7), Draw(1, 7)]))
    assert batch.items == [3, 1] and batch.epoch == 7
    assert [value.tolist() for value in batch.values] == [[3, 1], [9, 1]]


def test_values_of_different_size_are_named():
    ds = Dataset([3, 3, 4], [Block()], [torch.zeros])
    with pytest.raises(
        ItemError, match=r"\(3,\) for item 0 of 3 \(3\), \(4,\) for item 2 of 3 \(4\)\. .* in item_tfms\.$"
    ):
        ds.collate(ds.__getitems__([Draw(0), Draw(1), Draw(2)]))


def test_a_random_crop_of_torchvision_that_validation_leaves_out_is_mentioned():
    ds = Dataset([3, 4], [Block()], [torch.zeros], as_transforms(v2.RandomCrop(2)))
    with pytest.raises(ItemError, match="RandomCrop of torchvision acts on training items only"):
        ds.collate(ds.__getitems__([Draw(0), Draw(1)]))


# ---- errors: step, item and fix in one sentence


def test_a_getter_that_fails_is_named_with_its_item():
    with pytest.raises(
        ItemError, match=r"^get_x \(square\) failed on item 4 of 6 \(4\): KeyError\(4\); your function gets a int$"
    ):
        numbers(getters=[failing(4)])[4]
    ds = Dataset([Path("a/b.jpg")], [Block(), Block()], [len, None])
    with pytest.raises(
        ItemError, match=r"^get_x \(len\) failed on item 0 of 1 \(a/b\.jpg\): TypeError: .*gets a Path$"
    ):
        ds[0]


def test_a_getter_of_this_library_is_no_function_of_yours():
    ds = Dataset([{"a": 1}], [Block(), Block()], [None, ColReader("b")])
    with pytest.raises(ItemError, match=r"^get_y \(ColReader\) failed on item 0 of 1 .*no column 'b'; the columns are"):
        ds.values(1)
    with pytest.raises(ItemError) as error:
        ds.values(1)
    assert "your function" not in str(error.value)


def test_the_getters_of_several_inputs_and_targets_are_numbered():
    getters = [failing(0), failing(1), failing(2), failing(3)]
    ds = Dataset(range(4), [Block()] * 4, getters, n_inp=2)
    steps = ["get_x[0]", "get_x[1]", "get_y[0]", "get_y[1]"]
    for which, step in enumerate(steps):
        with pytest.raises(ItemError) as error:
            ds.values(which)
        assert str(error.value).startswith(f"{step} (square) failed on item {which} of 4 ({which})")


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_missing_values_are_counted_and_the_first_is_named(nothing):
    ds = Dataset(range(10), [CategoryBlock(["a"])], [lambda i: nothing if i in (3, 5) else "a"])
    with pytest.raises(
        ItemError,
        match=r"^get_x \(<lambda>\) gave no value \(None, NaN or empty\) for 2 of 10 items, first: item 3 of 10 "
        r"\(3\)\. It gets a int: return its value, or leave such items out in get_items; .*add_na=True",
    ):
        ds.values(0)


def test_none_is_reported_while_items_are_read():
    ds = Dataset([7], [Block()], [lambda item: None])
    with pytest.raises(ItemError, match=r"gave no value .* first: item 0 of 1 \(7\)"):
        ds[0]


def test_a_block_with_a_place_for_missing_values_gets_them():
    ds = Dataset([None, "a"], [CategoryBlock(["a"], add_na=True)], [lambda item: item])
    assert ds.values(0) == [None, "a"]
    assert [sample[0].item() for sample in ds] == [0, 1]


def test_check_finds_a_bad_label_before_training():
    ds = Dataset(["a", "b"], [CategoryBlock(["a"])], [None])
    with pytest.raises(ItemError, match=r"^CategoryBlock\.encode failed on item 1 of 2 \(b\): the label 'b' is not in"):
        ds.check(0, ds.values(0))


def test_a_transform_that_fails_is_named_with_its_item():
    with pytest.raises(
        ItemError, match=r"^item transform failing_transform failed on item 2 of 6 \(2\): RuntimeError: no$"
    ):
        numbers(item_tfms=as_transforms(failing_transform))[2]


def failing_transform(value):
    raise RuntimeError("no")


@dataclass
class Broken(Transform):
    def __call__(self, sample, rand):
        return sample[0]


def test_a_transform_that_does_not_return_a_sample_is_named():
    with pytest.raises(ItemError, match=r"item transform Broken returned Tensor \(\) float32 for a sample of 1 values"):
        numbers(item_tfms=[Broken()])[0]
