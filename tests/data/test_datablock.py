import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import WeightedRandomSampler
from torchvision.transforms import v2
from warmstart.data import (
    Block,
    CategoryBlock,
    ColReader,
    ColSplitter,
    DataBlock,
    DeviceLoader,
    EndSplitter,
    IndexSplitter,
    ItemError,
    ItemGetter,
    RandomSplitter,
    RegexLabeller,
    RegressionBlock,
    Transform,
    get_files,
    get_image_files,
    parent_label,
)

files = [Path(f"data/{['ant', 'bee'][i % 2]}/{i}.jpg") for i in range(10)]


def number(path):
    return float(path.stem)


def insects(**changes):
    """A number and a label read from each file's path."""
    arguments = {"blocks": (RegressionBlock, CategoryBlock), "get_x": number, "get_y": parent_label, **changes}
    return DataBlock(**{"splitter": EndSplitter(), **arguments})


def bunch(block, source=files, **arguments):
    return block.databunch(source, **{"bs": 2, "num_workers": 0, "device": "cpu", "seed": 0, **arguments})


@dataclass
class Scale(Transform):
    by: float

    def __call__(self, sample, rand):
        return (sample[0] * self.by, *sample[1:])


# ---- from a source to samples


def test_items_are_listed_split_and_read():
    train, valid = insects(get_items=lambda source: files).datasets("anything")
    assert train.items == files[:8] and valid.items == files[8:]
    assert train.training and not valid.training
    assert [value.item() for value in train[3]] == [3, 1]
    assert train.blocks[1].vocab == valid.blocks[1].vocab == ["ant", "bee"]


@pytest.mark.parametrize(
    "source", [files, tuple(files), iter(files), (f for f in files), pd.Series(files, index=range(10, 20))]
)
def test_any_list_of_items_is_a_source(source):
    train, valid = insects().datasets(source)
    assert [sample[0].item() for sample in train] == list(range(8))
    assert [sample[0].item() for sample in valid] == [8, 9]


def test_a_generator_is_a_result_of_get_items():
    train, _ = insects(get_items=lambda source: (f for f in source)).datasets(files)
    assert len(train) == 8


def test_rows_of_a_table_are_items_whatever_their_index():
    table = pd.DataFrame({"x": np.arange(10), "size": 0.5, "y": list("abababababab")[:10]}, index=range(100, 90, -1))
    table["is_valid"] = [False] * 7 + [True] * 3
    block = insects(get_x=ColReader("x"), get_y=ColReader("y"), splitter=ColSplitter())
    train, valid = block.datasets(table)
    assert [sample[0].item() for sample in valid] == [7, 8, 9]
    assert train.item(0)["x"] == 0 and isinstance(train.item(0)["x"], int)
    assert len(bunch(block, table).train_ds) == 7


def test_strings_and_dicts_are_items():
    paths = [str(f) for f in files]
    train, _ = insects(get_x=len).datasets(paths)
    assert train[0][1] == 0
    records = [{"x": i, "y": "a"} for i in range(10)]
    train, _ = insects(get_x=ItemGetter("x"), get_y=ColReader("y")).datasets(records)
    assert train[3][0] == 3


def test_tuples_with_a_value_for_each_block_are_samples_already():
    block = insects(get_x=None, get_y=None)
    train, _ = block.datasets([(i, "a") for i in range(5)])
    assert [value.item() for value in train[2]] == [2, 0]
    with pytest.raises(ValueError, match=r"2 blocks but no get_y: pass get_y .* The first item is 5"):
        block.datasets([5, 6, 7, 8, 9])


@pytest.mark.parametrize("labels, expected", [
    ([3, 1, 2, 1, 1], [1, 2, 3]),
    (np.array([3, 1, 2, 1, 1]), [1, 2, 3]),
    (np.array(["b", "a", "a", "b", "a"]), ["a", "b"]),
    ([True, False, True, False, True], [False, True]),
    (np.array([True, False, True, False, True]), [False, True]),
    (torch.tensor([3, 1, 2, 1, 1]), [1, 2, 3]),
    ([3, "a", 2, "a", 3], [2, 3, "a"]),
])  # fmt: skip
def test_labels_of_any_kind_become_a_sorted_vocabulary(labels, expected):
    block = DataBlock((RegressionBlock, CategoryBlock), splitter=IndexSplitter([4]))
    data = bunch(block, [(float(i), label) for i, label in enumerate(labels)])
    assert data.vocab == expected and all(type(label) is type(e) for label, e in zip(data.vocab, expected, strict=True))
    assert data.c == len(expected)


# ---- several inputs and targets


def test_several_inputs_have_a_function_each():
    block = DataBlock((Block, Block, CategoryBlock), get_x=[number, lambda f: number(f) ** 2], get_y=parent_label)
    data = bunch(block)
    assert data.n_inp == 2
    first, second, label = data.one_batch()
    assert torch.equal(first**2, second) and torch.equal(label.float(), first % 2)


def test_several_targets_have_a_function_each():
    block = DataBlock(
        (Block, CategoryBlock, RegressionBlock),
        get_x=number,
        get_y=[parent_label, number],
        n_inp=1,
        splitter=EndSplitter(),
    )
    data = bunch(block)
    assert data.n_inp == 1 and data.c == 3
    first, label, target = data.one_batch()
    assert torch.equal(first, target) and torch.equal(label.float(), first % 2)


def test_as_many_blocks_are_targets_as_get_y_has_functions():
    assert DataBlock((Block, CategoryBlock, RegressionBlock), get_y=[parent_label, number]).n_inp == 1
    assert DataBlock((Block, Block, CategoryBlock), get_x=[number, number], get_y=[parent_label]).n_inp == 2


def test_one_block_has_no_target():
    data = bunch(DataBlock(RegressionBlock, get_x=number, splitter=EndSplitter()))
    assert len(data.one_batch()) == 1 and data.targets == []


def test_functions_must_match_the_blocks():
    with pytest.raises(ValueError, match="get_x has 1 functions for 2 blocks: pass a list with one for each"):
        DataBlock((Block, Block, Block), get_x=number)
    with pytest.raises(ValueError, match="get_y has 2 functions for 1 blocks"):
        insects(get_y=[parent_label, number])
    with pytest.raises(ValueError, match="n_inp=3: of 2 blocks, 1 to 2 are inputs"):
        insects(n_inp=3)


# ---- loaders


def test_batches_hold_as_many_items_as_asked():
    data = bunch(insects(), bs=3, val_bs=1)
    assert [len(batch[0]) for batch in data.train_dl] == [3, 3]
    assert [len(batch[0]) for batch in data.valid_dl] == [1, 1]
    assert [len(batch[0]) for batch in bunch(insects(), bs=3, drop_last=False).train_dl] == [3, 3, 2]


def test_seed_shuffle_and_sampler_govern_the_order():
    def order(**arguments):
        return [x for batch in bunch(insects(), **arguments).train_dl for x in batch[0].tolist()]

    assert order(seed=1) == order(seed=1) != order(seed=2)
    assert order(shuffle=False) == list(range(8))
    assert order(sampler=[7, 7, 0, 1]) == [7, 7, 0, 1]
    assert set(order(sampler=WeightedRandomSampler([0.0] * 6 + [1.0] * 2, 10))) == {6, 7}


def test_the_seed_governs_the_split_unless_the_splitter_has_its_own():
    def valid(seed, splitter):
        return bunch(insects(splitter=splitter), seed=seed).valid_ds.items

    assert valid(1, None) == valid(1, None) != valid(2, None)
    assert valid(1, RandomSplitter(seed=3)) == valid(2, RandomSplitter(seed=3))
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    valid(1, None)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_seed_is_drawn_from_the_global_generator():
    def order():
        torch.manual_seed(4)
        return bunch(insects(), seed=None).one_batch()[0].tolist()

    assert order() == order()


def test_transforms_run_on_samples_and_batches():
    data = bunch(insects(item_tfms=Scale(10.0), batch_tfms=[Scale(2.0), lambda x: x + 1]), shuffle=False)
    assert data.train_ds[3][0] == 30
    assert data.one_batch()[0].tolist() == [1, 21]


@dataclass
class Doubled(RegressionBlock):
    item_tfms = batch_tfms = (Scale(2.0),)


def test_what_several_blocks_bring_along_runs_once():
    data = bunch(insects(blocks=(Doubled, Doubled), get_y=number, item_tfms=Scale(10.0)), shuffle=False)
    assert data.train_ds[3][0] == 60 and data.one_batch()[0].tolist() == [0, 40]


def test_workers_run_functions_without_a_name():
    data = bunch(insects(get_x=lambda f: number(f) + 1, item_tfms=lambda x: x * 2), num_workers=1, shuffle=False)
    assert next(iter(data.train_dl))[0].tolist() == [2, 4]


def test_a_block_is_as_it_was_after_use():
    block = insects(item_tfms=Scale(2.0))
    before = copy.deepcopy(block)
    bunch(block)
    block.datasets(files)
    assert block == before and block.blocks[1].vocab is None
    assert repr(block) == repr(before)


def test_repr_shows_the_pipeline():
    text = repr(insects(item_tfms=Scale(2.0)))
    assert "RegressionBlock(n_out=None), CategoryBlock(vocab=None" in text and "item_tfms=[Scale(by=2.0)]" in text


# ---- summary


def test_summary_prints_every_step(capsys):
    insects(get_items=get_files_, item_tfms=Scale(2.0), batch_tfms=Scale(0.5)).summary("data")
    printed = capsys.readouterr().out
    lines = [
        "Found 10 items in data",
        "Split by EndSplitter(valid_pct=0.2): 8 train, 2 valid",
        "Block RegressionBlock(n_out=1)",
        "Block CategoryBlock(vocab=['ant', 'bee'], sort=True, add_na=False)",
        "One sample",
        "  item: data/ant/0.jpg",
        "  get_x: 0.0",
        "  RegressionBlock.encode: Tensor () float32",
        "  get_y: ant",
        "  CategoryBlock.encode: Tensor () int64",
        "  item transform Scale: (Tensor () float32, Tensor () int64)",
        "A batch of 4",
        "  collate: (Tensor (4,) float32, Tensor (4,) int64)",
        "  batch transform Scale: (Tensor (4,) float32, Tensor (4,) int64)",
    ]
    positions = [printed.find(line + "\n") for line in lines]
    assert -1 not in positions and positions == sorted(positions)


def get_files_(source):
    return files


def test_summary_reads_a_source_that_can_be_read_once(capsys):
    insects().summary(f for f in files)
    assert "8 train, 2 valid" in capsys.readouterr().out


def raise_error(value):
    raise RuntimeError("no")


@pytest.mark.parametrize("changes, step, last_line", [
    ({"get_y": raise_error}, r"get_y \(raise_error\) failed on item 0 of 8 \(data/ant/0.jpg\)", "Found 10 items"),
    ({"get_x": raise_error}, r"get_x \(raise_error\) failed on item 0", "Found 10 items"),
    ({"item_tfms": raise_error}, r"item transform raise_error failed on item 0", "  CategoryBlock.encode"),
    ({"batch_tfms": raise_error}, r"batch transform raise_error failed: RuntimeError: no", "  collate"),
])  # fmt: skip
def test_summary_names_the_step_that_fails(changes, step, last_line, capsys):
    with pytest.raises(ItemError, match=step):
        insects(**changes).summary(files)
    assert capsys.readouterr().out.splitlines()[-1].startswith(last_line)


# ---- errors


def test_a_batch_transform_that_fails_is_named_with_the_first_item():
    with pytest.raises(ItemError, match=r"raise_error failed: RuntimeError: no\. The batch begins with item 0 of 8 \("):
        bunch(insects(batch_tfms=raise_error), shuffle=False).one_batch()


def test_an_item_transform_that_returns_no_tensor_is_named():
    message = r"item transforms \(Scale, nothing\) leave a NoneType for the RegressionBlock of item 0 of 8 \(data/ant"

    def nothing(value):
        return None

    with pytest.raises(ItemError, match=message):
        bunch(insects(blocks=(RegressionBlock, RegressionBlock), get_x=number, get_y=number,
                      item_tfms=[Scale(2.0), nothing]), shuffle=False).one_batch()  # fmt: skip


def test_what_is_normalised_before_it_is_cut_off_is_an_error():
    @dataclass
    class Light(Transform):
        clips = True

        def __call__(self, sample, rand):
            return sample

    normalise = v2.Normalize([0.5], [0.5])
    with pytest.raises(ValueError, match="Normalize would come before Light of batch_tfms"):
        insects(item_tfms=normalise, batch_tfms=Light())
    insects(batch_tfms=[normalise, Light()])


def test_an_empty_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(
        ValueError, match=r"get_image_files found no items in .*: is it the right place, .* extensions\?"
    ):
        insects(get_items=get_image_files).datasets(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        insects(get_items=get_files).datasets(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"There are no items in \[\]"):
        insects().datasets([])


def test_no_items_to_validate_or_to_train_on_is_an_error():
    with pytest.raises(ValueError, match=r"IndexSplitter\(valid_idx=\[\]\) put 0 of 10 items into the validation set"):
        insects(splitter=IndexSplitter([])).datasets(files)
    with pytest.raises(ValueError, match=r"RandomSplitter\(valid_pct=1.*put 0 of 10 items into the training set"):
        insects(splitter=RandomSplitter(1)).datasets(files)


@pytest.mark.parametrize("source", ["data", Path("data")])
def test_a_path_is_no_list_of_items(source):
    with pytest.raises(TypeError, match=r"data \((str|Path)\) is not a list of items: .* get_items=get_image_files"):
        insects().datasets(source)


def test_a_label_regex_that_matches_nothing_is_an_error():
    with pytest.raises(
        ItemError,
        match=r"get_y \(RegexLabeller\) failed on item 0 of 8 \(data/ant/0.jpg\): the pattern does not match; try",
    ):
        insects(get_y=RegexLabeller(r"/(\d+)_")).datasets(files)


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_labels_that_are_missing_are_counted(nothing):
    def label(path):
        return nothing if path.parent.name == "bee" else "ant"

    with pytest.raises(
        ItemError,
        match=r"get_y \(label\) gave no value \(None, NaN or empty\) for 4 of 8 items, first: item 1 of 8 "
        r"\(data/bee/1.jpg\)\. It gets a Path: return its value, or leave such items out in get_items",
    ):
        insects(get_y=label).datasets(files)
    assert bunch(insects(blocks=(Block, CategoryBlock(add_na=True)), get_y=label)).vocab == ["#na#", "ant"]


def test_a_label_that_only_validation_has_is_an_error_before_training():
    with pytest.raises(
        ItemError,
        match=r"CategoryBlock.encode failed on item 1 of 2 \(data/bee/9.jpg\): the label 'bee' is not in the "
        r"vocabulary \('ant'\)\. Move an item with this label into the training set",
    ):
        insects(splitter=lambda items: ([0, 2, 4], [6, 9])).datasets(files)
    assert bunch(insects(blocks=(Block, CategoryBlock(["bee", "ant"])))).vocab == ["bee", "ant"]


def test_a_batch_larger_than_the_training_set_is_an_error():
    with pytest.raises(
        ValueError, match=r"bs=64 is larger than the training set of 8 items.*Use bs=8 or less, or drop_last"
    ):
        bunch(insects(), bs=64)
    assert len(bunch(insects(), bs=64, drop_last=False).train_dl) == 1
    with pytest.raises(ValueError, match="bs=4 is larger than the training set of 3 items"):
        bunch(insects(), bs=4, sampler=[1, 2, 3])
    with pytest.raises(ValueError, match="bs=0: a batch holds at least one item"):
        bunch(insects(), bs=0, drop_last=False)


@pytest.mark.parametrize("blocks", [(), "image", (RegressionBlock, "label"), (Path,), None, [[Block]]])
def test_what_is_no_block_is_an_error(blocks):
    with pytest.raises(TypeError, match="blocks takes Block classes or instances, as in"):
        DataBlock(blocks)


@pytest.mark.parametrize("changes, message", [
    ({"get_y": RegexLabeller}, r"get_y=RegexLabeller is a class: pass an instance, RegexLabeller\(\.\.\.\)"),
    ({"splitter": RandomSplitter}, "splitter=RandomSplitter is a class"),
    ({"get_items": files}, r"get_items takes a function, not \[.*Path"),
    ({"get_y": "label"}, "get_y takes a function, not 'label'"),
    ({"get_x": [3]}, "get_x takes a function, not 3"),
    ({"splitter": 0.2}, r"splitter takes a function, not 0\.2"),
    ({"item_tfms": "Resize"}, "A transform is a Transform, .* or a function, not 'Resize'"),
    ({"batch_tfms": [Scale]}, r"Scale is a class: pass an instance, Scale\("),
])  # fmt: skip
def test_what_is_no_function_is_an_error(changes, message):
    with pytest.raises(TypeError, match=message):
        insects(**changes)


def test_a_plain_type_is_a_function():
    assert insects(get_x=len, get_y=str).get_y is str


@pytest.mark.parametrize("split", [[1, 2, 3], ([1], [2], [3]), None])
def test_what_is_no_split_is_an_error(split):
    with pytest.raises(TypeError, match=r"The splitter returns two lists of positions, \(train, valid\), not"):
        insects(splitter=lambda items: split).datasets(files)


def test_an_unknown_keyword_is_an_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'item_transforms'"):
        insects(item_transforms=Scale(1.0))
    with pytest.raises(TypeError, match="unexpected keyword argument 'batch_size'"):
        bunch(insects(), batch_size=3)


# ---- blocks that read ahead, differ in length, or make batches of their own


@dataclass
class Digits(Block):
    """A number as its digits, of which it keeps what it has read ahead."""

    learns = is_sequence = True

    def __post_init__(self):
        self.known, self.n_workers = {}, None

    def read_ahead(self, values, n_workers=None):
        block = copy.copy(self)
        block.known, block.n_workers = {value: [int(c) for c in str(value)] for value in values}, n_workers
        return block

    def encode(self, value):
        return torch.tensor(self.known[value])

    def collate(self, values):
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True)


numbers = [10 ** (i % 5) for i in range(20)]


def test_a_block_reads_ahead_for_all_items_with_the_workers_that_are_asked_for():
    data = bunch(DataBlock(Digits, splitter=EndSplitter()), numbers, num_workers=2)
    block = data.train_ds.blocks[0]
    assert block.known.keys() == set(numbers) and block.n_workers == 2
    assert data.valid_ds.blocks[0] is block


def test_sequences_of_similar_length_are_together_and_validation_begins_with_the_longest():
    data = bunch(DataBlock(Digits, splitter=EndSplitter(0.5)), numbers, bs=2)
    epoch = [batch.shape[1] for (batch,) in data.train_dl]
    assert sorted(epoch) == [1, 2, 3, 4, 5] and epoch[0] == 5
    assert [batch.shape[1] for (batch,) in data.valid_dl] == [5, 4, 3, 2, 1]
    assert [batch.shape[1] for (batch,) in data.test_dl(numbers[:4])] == [2, 4]  # as they come


@dataclass
class Sums(Block):
    """Batches that are no lists of items: the sum of all, again and again."""

    def own_loader(self, dataset, bs, device, batch_tfms, training, shuffle):
        total = torch.tensor(dataset.values(0)).sum().repeat(bs)
        return DeviceLoader([(total,)] * (2 if training else 1), device, batch_tfms, dataset.blocks, training)


def test_a_block_may_make_batches_of_its_own():
    block = DataBlock(Sums, splitter=EndSplitter(), batch_tfms=[lambda x: x])
    data = bunch(block, numbers, bs=3)
    assert [batch[0].tolist() for batch in data.train_dl] == [[sum(numbers[:16])] * 3] * 2
    assert [batch[0].tolist() for batch in data.valid_dl] == [[sum(numbers[16:])] * 3]
    with pytest.raises(ValueError, match=r"cache=memory: Sums\(\) makes batches of its own, leave it out"):
        bunch(block, numbers, cache="memory")


def test_an_input_alone_is_taken_where_items_are_tuples():
    data = bunch(DataBlock((Block, CategoryBlock), splitter=EndSplitter()), [(float(i), i % 2) for i in range(10)])
    (from_tuples,), (alone,) = next(iter(data.test_dl([(7.0, 1)]))), next(iter(data.test_dl([7.0])))
    assert torch.equal(from_tuples, alone)
