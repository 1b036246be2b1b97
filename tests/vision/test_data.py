from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from warmstart.data import CategoryBlock, DataBlock, ItemError, MultiCategoryBlock, RegressionBlock, get_image_files
from warmstart.data import parent_label as folder_label
from warmstart.vision import ImageBlock, ImageDataBunch, Resize

KINDS = ["ant", "bee", "wasp"]
COMMON = {"bs": 2, "num_workers": 0, "device": "cpu", "seed": 0}


def draw(path, i, size=(12, 10)):
    """A picture of one colour, which tells its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10 * i, 20 * (i % 3), 0)).save(path)
    return path


def number(image):
    return round(image[0, 0, 0].item() * 25.5)


def seen(data):
    """The pictures' numbers and their decoded labels, of training and validation."""
    parts = []
    for dl in (data.train_eval_dl(), data.valid_dl):
        samples = [sample for batch in dl for sample in data.decode(batch)]
        parts.append({number(image): label for image, label in samples})
    return parts


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """train and valid with a folder per kind, and some that are neither."""
    path = tmp_path_factory.mktemp("folders")
    for i in range(12):
        draw(path / ("valid" if i >= 9 else "train") / KINDS[i % 3] / f"{i}.png", i)
    draw(path / "test" / "13.png", 13)
    draw(path / "models" / "old" / "14.png", 14)
    return path


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Pictures in one folder whose names begin with their kind."""
    path = tmp_path_factory.mktemp("names")
    return path, [draw(path / f"{KINDS[i % 3]}_{i}.png", i) for i in range(12)]


expected = {i: KINDS[i % 3] for i in range(12)}


def assert_all_labelled(data, labels=expected, n_valid=2):
    train, valid = seen(data)
    assert {**train, **valid} == labels
    assert len(train) + len(valid) == len(labels) and len(valid) == n_valid


# ---- folders


def test_from_folder_takes_train_and_valid(folders):
    data = ImageDataBunch.from_folder(folders, **COMMON)
    train, valid = seen(data)
    assert train == {i: KINDS[i % 3] for i in range(9)} and valid == {i: KINDS[i % 3] for i in range(9, 12)}
    assert data.classes == KINDS and data.path == folders and data.bs == 2


def test_from_folder_takes_other_names_of_the_folders(folders):
    data = ImageDataBunch.from_folder(str(folders), train="valid", valid="train", **COMMON)
    assert [len(part) for part in seen(data)] == [3, 9]
    with pytest.raises(ValueError, match=r"9 items under 'train' and 0 under 'val'.*'models'.*'valid'"):
        ImageDataBunch.from_folder(folders, valid="val", **COMMON)


def test_from_folder_splits_at_random_where_asked(folders):
    data = ImageDataBunch.from_folder(folders / "train", valid_pct=0.3, **COMMON)
    assert_all_labelled(data, {i: KINDS[i % 3] for i in range(9)}, 3)
    again = ImageDataBunch.from_folder(folders / "train", valid_pct=0.3, **COMMON)
    assert again.valid_ds.items == data.valid_ds.items


def test_from_folder_takes_a_vocabulary_and_a_mode(folders):
    data = ImageDataBunch.from_folder(folders, vocab=[*reversed(KINDS), "fly"], mode="L", **COMMON)
    assert data.vocab == ["wasp", "bee", "ant", "fly"] and data.c == 4
    assert data.one_batch()[0].shape == (2, 1, 10, 12)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"get_image_files found no items in .*: is it the right place"):
        ImageDataBunch.from_folder(tmp_path, **COMMON)


# ---- names


@pytest.mark.parametrize("pattern", [
    r"/([^/]+)_\d+\.png$",  # as for fast.ai 1, on the whole path
    r"([^/]+)_\d+\.png$",
    r"^([^/]+)_\d+\.png$",
    r"^(.*)_\d+.png",  # as for fast.ai 2, on the name
])  # fmt: skip
def test_from_name_re_reads_the_label_off_the_name(names, pattern):
    path, files = names
    assert_all_labelled(ImageDataBunch.from_name_re(path, files, pattern, **COMMON))


def test_from_name_re_reads_a_folder_where_the_pattern_has_a_slash(folders):
    files = get_image_files(folders, folders=["train"])
    data = ImageDataBunch.from_name_re(folders, map(str, files), r"train/([a-z]+)/\d", **COMMON)
    assert_all_labelled(data, {i: KINDS[i % 3] for i in range(9)})


def test_a_pattern_that_matches_nothing_is_an_error(names):
    with pytest.raises(ItemError, match=r"get_y \(ItemName\) failed on item 0 of 10 .*: the pattern does not match"):
        ImageDataBunch.from_name_re(*names, r"^(\d+)_", **COMMON)


def test_from_name_func_gives_the_name(names):
    path, files = names
    assert_all_labelled(ImageDataBunch.from_name_func(path, files, lambda name: name.split("_")[0], **COMMON))


def test_from_path_func_gives_the_path(names):
    path, files = names
    data = ImageDataBunch.from_path_func(path, map(str, files), lambda file: file.stem.split("_")[0], **COMMON)
    assert_all_labelled(data)


# ---- lists and tables


@pytest.mark.parametrize("labels, block", [
    ([KINDS[i % 3] for i in range(12)], CategoryBlock),
    ([i % 3 for i in range(12)], CategoryBlock),
    (np.array([i % 2 == 0 for i in range(12)]), CategoryBlock),
    (pd.Series([i / 4 for i in range(12)], index=range(20, 32)), RegressionBlock),
    ([["small"] * (i % 2) + [KINDS[i % 3]] for i in range(12)], MultiCategoryBlock),
])  # fmt: skip
def test_from_lists_takes_classes_lists_of_classes_and_numbers(names, labels, block):
    path, files = names
    data = ImageDataBunch.from_lists(path, files, labels, **COMMON)
    assert type(data.targets[0]) is block
    for part in seen(data):
        for i, label in part.items():
            wanted = list(labels)[i]
            assert sorted(label) == sorted(wanted) if block is MultiCategoryBlock else label == wanted


def test_from_lists_finds_names_below_the_path_or_with_it(names, monkeypatch):
    path, files = names
    labels = list(expected.values())
    assert_all_labelled(ImageDataBunch.from_lists(path, [file.name for file in files], labels, **COMMON))
    monkeypatch.chdir(path.parent)
    below = [Path(path.name) / file.name for file in files]
    assert_all_labelled(ImageDataBunch.from_lists(path.name, below, labels, **COMMON))
    assert_all_labelled(ImageDataBunch.from_lists(".", below, labels, **COMMON))


def test_from_lists_needs_a_label_for_each_name(names):
    with pytest.raises(ValueError, match="12 file names and 2 labels"):
        ImageDataBunch.from_lists(*names, ["a", "b"], **COMMON)


@pytest.fixture
def table(names):
    _, files = names
    return pd.DataFrame({
        "name": [file.name for file in files], "kind": list(expected.values()),
        "tags": [f"{KINDS[i % 3]} small" if i % 2 else KINDS[i % 3] for i in range(12)],
        "small": [i % 2 for i in range(12)], "old": [i % 3 == 0 for i in range(12)],
        "x": [i / 2 for i in range(12)], "y": [i * 2 for i in range(12)], "is_valid": [i > 7 for i in range(12)],
        "stem": [file.stem for file in files],
    }, index=range(50, 62))  # fmt: skip


def test_from_df_reads_names_and_labels_by_position_or_name(names, table):
    path, _ = names
    assert_all_labelled(ImageDataBunch.from_df(table, path, **COMMON))
    assert_all_labelled(
        ImageDataBunch.from_df(table[["kind", "name"]], path, fn_col="name", label_col="kind", **COMMON)
    )
    data = ImageDataBunch.from_df(table, path.parent, folder=path.name, fn_col="stem", suff=".png", **COMMON)
    assert_all_labelled(data)
    absolute = table.assign(name=[str(path / name) for name in table["name"]])
    assert_all_labelled(ImageDataBunch.from_df(absolute, "elsewhere", **COMMON))


@pytest.mark.parametrize("col", ["is_valid", 7])
def test_from_df_validates_on_the_marked_rows(names, table, col):
    _, valid = seen(ImageDataBunch.from_df(table, names[0], valid_col=col, **COMMON))
    assert sorted(valid) == [8, 9, 10, 11]


@pytest.mark.parametrize("label_col, block", [
    ("kind", CategoryBlock()),
    (["kind"], CategoryBlock()),
    ("small", CategoryBlock()),
    ("x", RegressionBlock()),
    (["x", "y"], RegressionBlock()),
    (["small", "old"], MultiCategoryBlock(encoded=True, vocab=["small", "old"])),
    ([3, 4], MultiCategoryBlock(encoded=True, vocab=["small", "old"])),
    (["kind", "stem"], MultiCategoryBlock()),
])  # fmt: skip
def test_from_df_takes_the_block_that_fits_the_labels(names, table, label_col, block):
    table["stem"] = "a"
    data = ImageDataBunch.from_df(table, names[0], label_col=label_col, **COMMON)
    target = data.targets[0]
    assert type(target) is type(block)
    if block.n_out:
        assert target == block
    wanted = (
        table[[label_col] if isinstance(label_col, str) else label_col]
        if label_col != [3, 4]
        else table.iloc[:, [3, 4]]
    )
    for part in seen(data):
        for i, label in part.items():
            values = wanted.iloc[i].tolist()
            if isinstance(target, MultiCategoryBlock):
                values = [c for c, on in zip(target.vocab, values, strict=True) if on] if target.encoded else values
                assert sorted(label) == sorted(values)
            else:
                assert label == values or label == values[0]


def test_from_df_splits_labels_at_the_delimiter(names, table):
    data = ImageDataBunch.from_df(table, names[0], label_col="tags", label_delim=" ", **COMMON)
    assert data.vocab == [*KINDS[:2], "small", "wasp"]
    assert {**seen(data)[0], **seen(data)[1]}[7] == ["bee", "small"]


def test_from_df_lists_the_columns_where_one_is_missing(names, table):
    for arguments in (
        {"label_col": "class"},
        {"label_col": ["kind", "class"]},
        {"label_col": 99},
        {"valid_col": "class"},
    ):
        with pytest.raises(KeyError, match=r"no column ('class'|99); the columns are \['name', 'kind'"):
            ImageDataBunch.from_df(table, names[0], **arguments, **COMMON)


def test_from_csv_reads_a_table_with_or_without_header(names, table):
    path, _ = names
    table.to_csv(path / "labels.csv", index=False)
    assert_all_labelled(ImageDataBunch.from_csv(path, **COMMON))
    table[["kind", "name"]].to_csv(path / "bare.csv", index=False, header=False, sep=";")
    data = ImageDataBunch.from_csv(path, "bare.csv", header=None, delimiter=";", fn_col=1, label_col=0, **COMMON)
    assert_all_labelled(data)
    _, valid = seen(ImageDataBunch.from_csv(path, valid_col="is_valid", label_col="tags", label_delim=" ", **COMMON))
    assert valid[8] == ["wasp"] and valid[9] == ["ant", "small"]


def test_from_csv_keeps_names_that_look_like_numbers(tmp_path):
    for i in range(8):
        draw(tmp_path / f"000{i}.png", i)
    (tmp_path / "labels.csv").write_text("id,label\n" + "\n".join(f"000{i},{i % 2}" for i in range(8)))
    for fn_col in (0, "id"):
        data = ImageDataBunch.from_csv(tmp_path, fn_col=fn_col, suff=".png", valid_pct=0.25, **COMMON)
        assert_all_labelled(data, {i: i % 2 for i in range(8)})


# ---- pictures that cannot form a batch, cannot be read, or are random


def test_pictures_of_different_size_need_a_resize(tmp_path):
    for i in range(8):
        draw(tmp_path / KINDS[i % 2] / f"{i}.png", i, size=(10 + i, 10))
    for num_workers in (0, 1):
        data = ImageDataBunch.from_folder(tmp_path, valid_pct=0.5, **{**COMMON, "num_workers": num_workers})
        with pytest.raises(
            ItemError,
            match=r"^ImageBlock values of different sizes cannot form a batch: \(3, 10, 1\d\) for item \d of 4 "
            r"\(.*\.png\), \(3, 10, 1\d\) for item \d of 4 \(.*\.png\)\. Bring them to one size in item_tfms",
        ):
            list(data.train_dl)
    data = ImageDataBunch.from_folder(tmp_path, valid_pct=0.5, item_tfms=Resize(8), **COMMON)
    assert data.one_batch()[0].shape == (2, 3, 8, 8)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_damaged_file_is_named_with_and_without_workers(tmp_path, content, num_workers):
    files = [draw(tmp_path / KINDS[i % 2] / f"{i}.png", i) for i in range(8)]
    bad = files[3]
    bad.write_bytes(bad.read_bytes()[:45] if content is None else content)
    data = ImageDataBunch.from_folder(tmp_path, valid_pct=0.25, **{**COMMON, "num_workers": num_workers})
    with pytest.raises(ItemError) as error:
        for dl in (data.train_dl, data.valid_dl):
            list(dl)
    message = str(error.value)
    assert message.startswith("ImageBlock.encode failed on item ") and "bee/3.png" in message and "\n" not in message
    assert message.endswith("verify_images(files) finds all such files: remove them, or leave them out in get_items.")


def test_the_same_seed_gives_the_same_batches_with_any_number_of_workers(folders):
    tfms = [Resize(8), v2.RandomHorizontalFlip(), v2.ColorJitter(0.5, 0.5)]

    def batches(num_workers, seed):
        arguments = {**COMMON, "num_workers": num_workers, "seed": seed}
        data = ImageDataBunch.from_folder(folders, item_tfms=tfms, **arguments)
        return torch.cat([batch[0] for _ in range(2) for batch in data.train_dl])

    expected = batches(0, seed=1)
    assert torch.equal(batches(2, seed=1), expected)
    assert not torch.equal(batches(0, seed=2), expected)
    first, second = expected.chunk(2)
    assert not torch.equal(first, second)


def test_summary_walks_from_the_file_to_the_batch(folders, capsys):
    block = DataBlock((ImageBlock, CategoryBlock), get_image_files, get_y=folder_label, item_tfms=Resize(8))
    block.summary(folders / "train")
    printed = capsys.readouterr().out
    for line in (
        "ImageBlock.encode: Image (3, 10, 12) uint8",
        "item transform Resize: (Image (3, 8, 8) uint8, Tensor ()",
    ):
        assert line in printed
    assert "batch transform ToFloat: (Image (4, 3, 8, 8) float32, Tensor (4,) int64)" in printed


def test_a_cache_and_another_size_of_validation_batches_are_passed_on(folders):
    data = ImageDataBunch.from_folder(folders, valid="valid", cache="memory", val_bs=3, **COMMON)
    assert data.train_ds.cache is not None and (data.train_dl.bs, data.valid_dl.bs) == (2, 3)


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    for content in (b"", b"a,b\n1,2,3\n1,2,3,4\n", "a,b\nä.png,ü\n".encode("latin-1")):
        (tmp_path / "labels.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"labels.csv cannot be read as a table: .* to from_df"):
            ImageDataBunch.from_csv(tmp_path)


def test_rows_without_a_file_name_are_found_before_training(names):
    path, files = names
    df = pd.DataFrame({"file": [file.name for file in files], "kind": "ant"}, index=range(100, 112))
    df.loc[103, "file"] = np.nan
    with pytest.raises(ValueError, match=r"fn_col: column 'file' has no value in 1 of 12 rows \(index 103\): leave"):
        ImageDataBunch.from_df(df, path, **COMMON)
    with pytest.raises(KeyError, match=r"fn_col: there is no column 'fiel'"):
        ImageDataBunch.from_df(df, path, fn_col="fiel", **COMMON)
