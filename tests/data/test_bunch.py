from collections import namedtuple

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from warmstart.data import (
    Block,
    CategoryBlock,
    ColReader,
    DataBlock,
    DataBunch,
    DeviceLoader,
    EndSplitter,
    ItemError,
    MultiCategoryBlock,
    RegressionBlock,
)
from warmstart.data.batch import split_batch
from warmstart.vision import ImageBlock, Normalize

matplotlib.use("Agg")
from matplotlib import pyplot as plt

cpu, meta = torch.device("cpu"), torch.device("meta")
x, y = torch.arange(20.0), torch.arange(20) % 2


def insects(n=20, bs=4, **kwargs):
    """Pairs of a number and a label, of which the last fifth validates."""
    items = [(float(i), ["ant", "bee", "wasp"][i % 3]) for i in range(n)]
    block = DataBlock((RegressionBlock, CategoryBlock), splitter=EndSplitter(), **kwargs)
    return block.databunch(items, bs=bs, num_workers=0, device="cpu", seed=1)


def pictures(targets=(CategoryBlock,), labels=lambda i: (["ant", "bee"][i % 2],), batch_tfms=None):
    items = [(torch.full((3, 4, 5), 10 * i, dtype=torch.uint8), *labels(i)) for i in range(20)]
    block = DataBlock((ImageBlock, *targets), splitter=EndSplitter(), n_inp=1, batch_tfms=batch_tfms)
    return block.databunch(items, bs=4, num_workers=0, device="cpu", seed=1)


# ---- any loader


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(x, y, strict=True))


class Re:
    """Batches from a class of one's own."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


Pair = namedtuple("Pair", "image label")
BATCHES = [(x, y), [x, y], {"image": x, "label": y}, Pair(x, y), ((x, x), y), {"images": {"left": x}, "label": y}, x]


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: type(batch).__name__)
@pytest.mark.parametrize(
    "wrap", [lambda b: [b, b], lambda b: (b, b), lambda b: Re(b, b)], ids=["list", "tuple", "class"]
)
def test_any_batches_come_through_as_they_are(wrap, batch):
    data = DataBunch(wrap(batch), device="cpu")
    first, second = data.train_dl
    assert str(first) == str(second) == str(data.one_batch()) == str(batch)
    assert type(first) is type(batch)
    assert data.valid_dl is None and data.blocks == () and data.n_inp is None and data.vocab is None


def test_a_loader_and_a_stream_of_torch_are_loaders():
    train, valid = DataLoader(TensorDataset(x, y), batch_size=5), DataLoader(Stream(), batch_size=3)
    data = DataBunch(train, valid, path="models", device="cpu")
    assert data.train_ds is train.dataset and data.valid_ds is valid.dataset and data.bs == 5
    assert len(list(data.train_dl)) == 4 and len(list(data.valid_dl)) == 7
    assert data.path.name == "models"
    assert repr(data) == "DataBunch(train 20 items, valid of unknown length on cpu)"
    assert repr(DataBunch([x, x], device="cpu")) == "DataBunch(train 2 items, valid – on cpu)"


def test_a_third_loader_is_one_more_for_validation():
    data = DataBunch([x], [x], [y], device="cpu")
    assert len(data.dls) == 3
    assert torch.equal(next(iter(data.dls[2])), y)


def test_loaders_without_batches_have_none():
    with pytest.raises(ValueError, match="There is no training batch: the training set is empty, or smaller than one"):
        DataBunch([], device="cpu").one_batch()


def test_what_came_without_blocks_cannot_be_decoded_or_counted():
    data = DataBunch([(x, y)], device="cpu")
    for call in (data.show_batch, lambda: data.decode((x, y)), data.class_weights, lambda: data.test_dl([1])):
        with pytest.raises(ValueError, match=r"DataBlock|CategoryBlock"):
            call()
    with pytest.raises(AttributeError, match="give n_out= to the model"):
        data.c  # noqa: B018


# ---- datasets


def test_datasets_are_shuffled_by_seed_and_epoch_for_training():
    train, valid = TensorDataset(x, y), TensorDataset(x[:6], y[:6])
    data = DataBunch.from_dsets(train, valid, bs=8, device="cpu", seed=2)
    assert data.train_ds is train and data.valid_ds is valid
    epochs = [[batch[0].tolist() for batch in data.train_dl] for _ in range(2)]
    assert [len(batch) for batch in epochs[0]] == [8, 8] and epochs[0] != epochs[1]
    assert [batch[0].tolist() for batch in data.valid_dl] == [[0, 1, 2, 3, 4, 5]]
    again = DataBunch.from_dsets(train, valid, bs=8, num_workers=2, device="cpu", seed=2)
    assert [[batch[0].tolist() for batch in again.train_dl] for _ in range(2)] == epochs
    order = [batch[0].tolist() for batch in data.train_eval_dl()]
    assert order == [list(range(8)), list(range(8, 16)), list(range(16, 20))]


class Drawing(torch.utils.data.Dataset):
    """A dataset whose samples are random, as one with torchvision's transforms is."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return {"x": torch.rand(2), "noise": np.random.rand()}


def test_a_dataset_that_draws_gives_the_same_with_any_number_of_workers_and_batch_size():
    def drawn(num_workers, bs, dataset):
        data = DataBunch.from_dsets(dataset, bs=bs, num_workers=num_workers, device="cpu", seed=2)
        return torch.cat([torch.cat([b["x"], b["noise"][:, None]], 1) for b in data.train_dl])

    expected = drawn(0, 2, Drawing())
    assert expected.unique().numel() == 18
    assert torch.equal(drawn(0, 2, Drawing()), expected) and torch.equal(drawn(2, 3, Drawing()), expected)
    some = Subset(Drawing(), range(6))  # reads whole batches
    assert torch.equal(drawn(2, 2, some), drawn(0, 2, some))


def test_a_stream_as_a_dataset():
    data = DataBunch.from_dsets(Stream(), Stream(), bs=8, val_bs=20, device="cpu")
    assert [len(batch[0]) for batch in data.train_dl] == [8, 8, 4]
    assert [len(batch[0]) for batch in data.valid_dl] == [20]


def test_a_training_set_below_one_batch_is_an_error():
    with pytest.raises(ValueError, match=r"bs=64 is larger than the training set of 20 items.*Use bs=20 or less"):
        DataBunch.from_dsets(TensorDataset(x, y))
    with pytest.raises(ValueError, match="The training set is empty"):
        DataBunch.from_dsets(TensorDataset(x[:0]))


# ---- what is in it


def test_attributes_tell_what_the_data_are():
    data = insects()
    assert data.c == 3 and data.vocab == data.classes == ["ant", "bee", "wasp"]
    assert data.bs == 4 and data.n_inp == 1 and data.device == cpu
    assert [type(block) for block in data.blocks] == [RegressionBlock, CategoryBlock]
    assert data.targets == data.blocks[1:]
    assert len(data.train_ds) == 16 and len(data.valid_ds) == 4
    assert repr(data) == "DataBunch(train 16 items, valid 4 items on cpu)"


def test_a_sum_of_outputs_is_needed_for_several_targets():
    data = pictures((RegressionBlock, CategoryBlock), lambda i: ([1.0, 2.0], i % 3))
    assert data.c == 5 and data.vocab == [0, 1, 2]
    with pytest.raises(AttributeError, match="n_out="):
        pictures((Block,), lambda i: (1.0,)).c  # noqa: B018


def test_class_weights_are_those_of_scikit_learn():
    labels = list("aaaaaaaaabbbbbbccccc")
    data = DataBlock((RegressionBlock, CategoryBlock), splitter=EndSplitter()).databunch(
        [(1.0, label) for label in labels], bs=2, num_workers=0, device="cpu"
    )
    expected = compute_class_weight("balanced", classes=np.array(list("abc")), y=labels[:16])
    assert np.allclose(data.class_weights(), expected)


def test_class_weights_of_several_labels_count_each():
    labels = lambda i: (["a", "b"] if i % 4 == 0 else ["b"],)  # noqa: E731
    weights = pictures((MultiCategoryBlock,), labels).class_weights()
    assert torch.allclose(weights, torch.tensor([16 / (2 * 4), 16 / (2 * 16)]))


def test_class_weights_need_a_vocabulary():
    with pytest.raises(ValueError, match="class_weights needs a target with a vocabulary"):
        pictures((RegressionBlock,), lambda i: (1.0,)).class_weights()


# ---- looking at it


def test_one_batch_is_the_first_of_epoch_0():
    data = insects()
    first = data.one_batch()
    data.train_dl.set_epoch(0)
    for batch in (next(iter(data.train_dl)), data.one_batch()):
        assert torch.equal(batch[0], first[0]) and torch.equal(batch[1], first[1])


def test_decode_undoes_the_transforms_that_hide_the_picture():
    data = pictures(batch_tfms=Normalize((0.5,) * 3, (0.2,) * 3))
    batch = data.one_batch()
    assert batch[0].min() < 0
    decoded = data.decode(batch)
    assert len(decoded) == 4 and len(data.decode(batch, 2)) == 2
    for (image, label), item in zip(decoded, data.train_dl.items or [], strict=True):
        assert torch.allclose(image, torch.tensor(10 * item / 255), atol=1e-6)
        assert label == ["ant", "bee"][item % 2]
    assert [len(sample) for sample in data.decode(batch[:1])] == [1] * 4


def titles():
    shown = [ax.get_title() for ax in plt.gcf().axes]
    plt.close("all")
    return shown


def test_show_batch_draws_pictures_with_their_labels():
    data = pictures()
    data.show_batch(max_n=3)
    axes = plt.gcf().axes
    assert [len(ax.images) for ax in axes[:3]] == [1, 1, 1]
    labels = [data.vocab[i] for i in data.one_batch()[1][:3]]
    assert titles()[:3] == labels


def test_show_batch_draws_all_targets():
    pictures((CategoryBlock, RegressionBlock), lambda i: ("ant", i / 3)).show_batch(max_n=4)
    shown = titles()
    assert len(shown) == 4 and all(title.startswith("ant\n") for title in shown)


def test_show_batch_draws_two_pictures_side_by_side():
    data = pictures((ImageBlock,), lambda i: (torch.zeros(3, 4, 6, dtype=torch.uint8),))
    data.show_batch(max_n=1)
    (ax,) = plt.gcf().axes
    extents = [image.get_extent() for image in ax.images]
    assert extents == [[-0.5, 4.5, 3.5, -0.5], [4.5, 10.5, 3.5, -0.5]]
    assert ax.get_xlim() == (-0.5, 10.5)
    plt.close("all")


def test_show_batch_prints_a_table_where_there_is_nothing_to_draw(capsys):
    data = insects()
    data.show_batch(max_n=2)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["input", "target"]
    decoded = data.decode(data.one_batch(), 2)
    assert [row.split()[1:] for row in rows] == [[f"{number:.4g}", label] for number, label in decoded]


# ---- new items


def test_test_dl_reads_new_items_in_order_without_labels():
    data = insects()
    dl = data.test_dl([(5.0, None), (3.0, None), (4.0, None)])
    (batch,) = dl
    assert len(batch) == 1 and batch[0].tolist() == [5, 3, 4]
    assert dl.items == [0, 1, 2]


def test_test_dl_reads_labels_where_asked():
    data = insects()
    (batch,) = data.test_dl([(5.0, "bee")], with_labels=True)
    assert [value.tolist() for value in batch] == [[5], [1]]
    with pytest.raises(ValueError, match=r"item 0 of 1 .*'fly' is not in the vocabulary"):
        list(data.test_dl([(5.0, "fly")], with_labels=True))


def test_test_dl_takes_tables_arrays_and_generators():
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0] * 4, "y": list("aba") * 4})
    block = DataBlock((RegressionBlock, CategoryBlock), get_x=ColReader("x"), get_y=ColReader("y"))
    data = block.databunch(table, bs=2, num_workers=0, device="cpu")
    assert [batch[0].tolist() for batch in data.test_dl(table[["x"]][2:5])] == [[3, 1], [2]]
    for items in (np.array([7.0, 8.0]), (i for i in (7.0, 8.0)), pd.Series([7.0, 8.0])):
        assert next(iter(data.test_dl(items)))[0].tolist() == [7, 8]


def test_test_dl_of_one_path_is_an_error():
    with pytest.raises(TypeError, match="is not a list of items"):
        insects().test_dl("images")


def test_the_training_items_can_be_evaluated_in_order():
    data = insects()
    batches = list(data.train_eval_dl())
    assert [value for batch in batches for value in batch[0].tolist()] == list(range(16))
    assert DataBunch([x], device="cpu").train_eval_dl().dl == [x]


def test_one_item_becomes_a_batch():
    (batch,) = insects().input_batch((2.5, "not read"))
    assert batch.tolist() == [2.5]
    (image,) = pictures().input_batch((torch.full((3, 2, 2), 255, dtype=torch.uint8), None))
    assert torch.equal(image, torch.ones(1, 3, 2, 2))


# ---- devices and other transforms


def test_batches_arrive_on_the_device():
    data = DataBunch([(x, y)], [{"x": x}], device="meta")
    assert data.one_batch()[0].device == meta and next(iter(data.valid_dl))["x"].device == meta
    assert data.to("cpu") is data and data.device == cpu
    assert data.one_batch()[0].device == cpu and next(iter(data.valid_dl))["x"].device == cpu
    assert data.to("meta").cpu().device == cpu


def test_loaders_of_other_data_keep_their_device_unless_told():
    data = insects().to("meta")
    assert DataBunch(data.train_dl).device == meta
    moved = DataBunch(data.train_dl, device="cpu")
    assert moved.one_batch()[0].device == cpu and data.one_batch()[0].device == meta
    assert moved.vocab == data.vocab


def test_an_empty_loader_moves_too():
    data = DataBunch([x], [], device="meta").to("cpu")
    assert isinstance(data.valid_dl, DeviceLoader) and data.valid_dl.device == cpu


def test_other_batch_transforms_leave_the_data_as_they_were():
    data = pictures()
    other = data.with_batch_tfms([*data.batch_tfms, Normalize((0.5,) * 3, (0.5,) * 3)])
    assert len(other.batch_tfms) == 2 and len(data.batch_tfms) == 1
    assert torch.allclose(other.one_batch()[0], data.one_batch()[0] * 2 - 1)
    assert other.train_ds is data.train_ds


def test_n_inp_of_a_batchs_values_are_inputs():
    x, kinds, numbers = torch.randn(12, 4), torch.arange(12) % 3, torch.randn(12)
    samples = TensorDataset(x, kinds, numbers)
    for data in (
        DataBunch(DataLoader(samples, 4), DataLoader(samples, 4), device="cpu", n_inp=1),
        DataBunch.from_dsets(samples, samples, bs=4, device="cpu", n_inp=1),
    ):
        inputs, targets = split_batch(data.one_batch(), data.to("cpu").n_inp)
        assert [value.shape for value in (*inputs, *targets)] == [(4, 4), (4,), (4,)] and len(inputs) == 1
    with pytest.raises(ValueError, match="n_inp=0: of a batch's values one or more are inputs"):
        DataBunch(DataLoader(samples, 4), n_inp=0)
    block = DataBlock((RegressionBlock, RegressionBlock), get_x=float, get_y=float)
    data = block.databunch(range(20), bs=4, num_workers=0, device="cpu")
    with pytest.raises(ValueError, match="those of a DataBlock know it"):
        DataBunch(data.train_dl, n_inp=1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_item_of_a_dataset_that_cannot_be_read_or_batched_is_named(num_workers):
    class Damaged(torch.utils.data.Dataset):
        def __init__(self, damage):
            self.damage = damage

        def __len__(self):
            return 8

        def __getitem__(self, i):
            return self.damage() if i == 5 else torch.zeros(3)

    def refuse():
        raise OSError("cut off")

    for damage, message in (
        (refuse, "^item 5 of 8 of the Damaged cannot be read: OSError: cut off"),
        (lambda: torch.zeros(2), r"The items \[.*5.*\] of the Damaged cannot form a batch, .* with a collate_fn"),
    ):
        data = DataBunch.from_dsets(Damaged(damage), bs=8, device="cpu", num_workers=num_workers)
        with pytest.raises(ItemError, match=message):
            list(data.train_dl)
