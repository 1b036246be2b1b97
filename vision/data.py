"""Image data in one call, from the layouts that people have: folders, names, lists, tables."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..data import (
    Block,
    Cache,
    CategoryBlock,
    ColReader,
    ColSplitter,
    DataBlock,
    DataBunch,
    FuncLabeller,
    GrandparentSplitter,
    MultiCategoryBlock,
    RandomSplitter,
    RegexLabeller,
    RegressionBlock,
    get_image_files,
    parent_label,
)
from ..data.columns import Columns, check_filled, column, columns
from ..data.getters import ItemName
from .image import ImageBlock

__all__ = ["ImageDataBunch"]


class ImageDataBunch(DataBunch):
    """Factories for image data: each describes a common layout with a `DataBlock` and builds its loaders.

    In all of them `valid_pct` (0–1) of the images validate at random under `seed`, which also governs order and
    augmentation; `item_tfms` must bring the images to one size (`Resize(224)`); `bs` is in images, `mode` one of 'L',
    'RGB', 'RGBA'; `val_bs` and `cache` ("memory", "disk") as in `DataBlock.databunch`.
    """

    @classmethod
    def from_folder(cls, path: str | Path, train: str = "train", valid: str = "valid", valid_pct: float | None = None,
                    seed: int | None = None, vocab: list | None = None, item_tfms: Any = None, batch_tfms: Any = None,
                    bs: int = 64, num_workers: int | None = None, mode: str = "RGB",
                    device: torch.device | str | None = None, val_bs: int | None = None,
                    cache: str | Cache | None = None) -> DataBunch:  # fmt: skip
        """A folder per class, `path/train/ants/1.jpg` – or, with `valid_pct`, `path/ants/1.jpg` split at random."""
        block = DataBlock(
            (ImageBlock(mode), CategoryBlock(vocab)),
            get_items=get_image_files,
            get_y=parent_label,
            splitter=GrandparentSplitter(train, valid) if valid_pct is None else RandomSplitter(valid_pct, seed),
            item_tfms=item_tfms,
            batch_tfms=batch_tfms,
        )
        return block.databunch(path, path, bs, val_bs, num_workers, device, cache, seed=seed)

    @classmethod
    def from_name_re(cls, path: str | Path, fnames: Sequence, pat: str, valid_pct: float = 0.2,
                     seed: int | None = None, item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64,
                     num_workers: int | None = None, mode: str = "RGB",
                     device: torch.device | str | None = None, val_bs: int | None = None,
                     cache: str | Cache | None = None) -> DataBunch:  # fmt: skip
        """The label is the first group of `pat` in the file's name, or in its whole path where `pat` has a slash.

        A slash in `[^/]`, which says "not a slash", does not count.
        """
        of_path = "/" in pat.replace("[^/]", "")
        label = RegexLabeller(pat) if of_path else ItemName(RegexLabeller(pat))
        return cls.from_path_func(path, fnames, label, valid_pct, seed, item_tfms, batch_tfms, bs, num_workers, mode,
                                  device, val_bs, cache)  # fmt: skip

    @classmethod
    def from_name_func(cls, path: str | Path, fnames: Sequence, label_func: Callable, valid_pct: float = 0.2,
                       seed: int | None = None, item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64,
                       num_workers: int | None = None, mode: str = "RGB",
                       device: torch.device | str | None = None, val_bs: int | None = None,
                       cache: str | Cache | None = None) -> DataBunch:  # fmt: skip
        """The label is `label_func(name)` of the file's name."""
        label = ItemName(FuncLabeller(label_func))
        return cls.from_path_func(path, fnames, label, valid_pct, seed, item_tfms, batch_tfms, bs, num_workers, mode,
                                  device, val_bs, cache)  # fmt: skip

    @classmethod
    def from_path_func(cls, path: str | Path, fnames: Sequence, label_func: Callable, valid_pct: float = 0.2,
                       seed: int | None = None, item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64,
                       num_workers: int | None = None, mode: str = "RGB",
                       device: torch.device | str | None = None, val_bs: int | None = None,
                       cache: str | Cache | None = None) -> DataBunch:  # fmt: skip
        """The label is `label_func(path)` of the file's path, which it gets as a `Path`."""
        block = DataBlock(
            (ImageBlock(mode), CategoryBlock),
            get_y=label_func,
            splitter=RandomSplitter(valid_pct, seed),
            item_tfms=item_tfms,
            batch_tfms=batch_tfms,
        )
        files = [Path(fname) for fname in fnames]
        return block.databunch(files, path, bs, val_bs, num_workers, device, cache, seed=seed)

    @classmethod
    def from_lists(cls, path: str | Path, fnames: Sequence, labels: Sequence, valid_pct: float = 0.2,
                   seed: int | None = None, item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64,
                   num_workers: int | None = None, mode: str = "RGB",
                   device: torch.device | str | None = None, val_bs: int | None = None,
                   cache: str | Cache | None = None) -> DataBunch:  # fmt: skip
        """File names and their labels: classes, lists of classes (multi-label), or floats (regression).

        A name is below `path`, unless it is absolute or begins with `path` itself, as those of `get_image_files` do.
        """
        if len(fnames) != len(labels):
            raise ValueError(f"from_lists got {len(fnames)} file names and {len(labels)} labels: give one for each.")
        names = [fname.relative_to(path) if fname.is_relative_to(path) else fname for fname in map(Path, fnames)]
        df = pd.DataFrame({"name": [str(name) for name in names], "label": pd.Series(list(labels))})
        return cls.from_df(df, path, valid_pct=valid_pct, seed=seed, item_tfms=item_tfms, batch_tfms=batch_tfms, bs=bs,
                           num_workers=num_workers, mode=mode, device=device, val_bs=val_bs, cache=cache)  # fmt: skip

    @classmethod
    def from_df(cls, df: pd.DataFrame, path: str | Path = ".", folder: str | Path | None = None,
                fn_col: str | int = 0, label_col: Columns = 1, label_delim: str | None = None,
                valid_col: str | int | None = None, valid_pct: float = 0.2, seed: int | None = None, suff: str = "",
                item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64, num_workers: int | None = None,
                mode: str = "RGB", device: torch.device | str | None = None, val_bs: int | None = None,
                cache: str | Cache | None = None) -> DataBunch:  # fmt: skip
        """A row per image: its file name (below `path/folder`, without the extension `suff`) and its label.

        `label_delim` parts the label into several; several `label_col` are several labels, or 0s and 1s by column, or
        several numbers; a column of floats is a regression. The rows where `valid_col` is true validate.
        """
        check_filled(column(df, fn_col, "fn_col"), "fn_col")
        if isinstance(label_col, Sequence) and not isinstance(label_col, str) and len(label_col) == 1:
            label_col = label_col[0]
        block = DataBlock(
            (ImageBlock(mode), _target_block(df, label_col, label_delim)),
            get_x=ColReader(fn_col, Path(path) / (folder or ""), suff),
            get_y=ColReader(label_col, label_delim=label_delim),
            splitter=ColSplitter(valid_col) if valid_col is not None else RandomSplitter(valid_pct, seed),
            item_tfms=item_tfms,
            batch_tfms=batch_tfms,
        )
        return block.databunch(df, path, bs, val_bs, num_workers, device, cache, seed=seed)

    @classmethod
    def from_csv(cls, path: str | Path, csv_fname: str = "labels.csv", header: int | str | None = "infer",
                 delimiter: str | None = None, folder: str | Path | None = None, fn_col: str | int = 0,
                 label_col: Columns = 1, label_delim: str | None = None,
                 valid_col: str | int | None = None, valid_pct: float = 0.2, seed: int | None = None, suff: str = "",
                 item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64, num_workers: int | None = None,
                 mode: str = "RGB", device: torch.device | str | None = None, val_bs: int | None = None,
                 cache: str | Cache | None = None) -> DataBunch:  # fmt: skip
        """As `from_df`, from the table `path/csv_fname`; `header` and `delimiter` are those of `pd.read_csv`."""
        options: Any = {"header": header, "sep": delimiter or ",", "dtype": {fn_col: str}}  # the name 0001 is no number
        file = Path(path) / csv_fname
        try:
            df = pd.read_csv(file, **options)
        except ValueError as error:  # of an empty or ragged table, or another encoding
            raise ValueError(
                f"{file} cannot be read as a table: {str(error).strip()}. Is delimiter={delimiter or ','!r} right? "
                "What else pandas needs to know, as encoding=, give to pd.read_csv yourself, and its result to from_df."
            ) from error
        return cls.from_df(df, path, folder, fn_col, label_col, label_delim, valid_col, valid_pct, seed, suff,
                           item_tfms, batch_tfms, bs, num_workers, mode, device, val_bs, cache)  # fmt: skip


def _target_block(df: pd.DataFrame, label_col: Columns, label_delim: str | None) -> Block:
    """The block that fits the label columns' values."""
    if label_delim is not None:
        return MultiCategoryBlock()
    if isinstance(label_col, (str, int)):
        return _block_of_one(column(df, label_col, "label_col"))
    labels = columns(df, label_col, "label_col")
    if all(set(values.unique()) <= {0, 1} for values in labels):
        return MultiCategoryBlock(encoded=True, vocab=[str(values.name) for values in labels])
    return RegressionBlock() if all(map(pd.api.types.is_numeric_dtype, labels)) else MultiCategoryBlock()


def _block_of_one(values: pd.Series) -> Block:
    if pd.api.types.is_float_dtype(values):
        return RegressionBlock()
    several = any(isinstance(value, (list, tuple, set)) for value in values)
    return MultiCategoryBlock() if several else CategoryBlock()
