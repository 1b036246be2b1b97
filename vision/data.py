"""Image data in one call, from the layouts that people have: folders, names, lists, tables."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..data import (
    Block,
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
from ..data.getters import ItemName
from .image import ImageBlock

__all__ = ["ImageDataBunch"]


class ImageDataBunch(DataBunch):
    """Factories for image data: each describes a common layout with a `DataBlock` and builds its loaders.

    In all of them `valid_pct` (0–1) of the images validate at random under `seed`, which also governs order and augmentation;
    `item_tfms` must bring the images to one size (`Resize(224)`); `bs` is in images, `mode` one of 'L', 'RGB', 'RGBA'.
    """

    @classmethod
    def from_folder(cls, path: str | Path, train: str = "train", valid: str = "valid", valid_pct: float | None = None,
                    seed: int | None = None, vocab: list | None = None, item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64,
                    num_workers: int | None = None, mode: str = "RGB", device: torch.device | str | None = None) -> DataBunch:  # fmt: skip
        """A folder per class, `path/train/ants/1.jpg` – or, with `valid_pct`, `path/ants/1.jpg` split at random."""
        splitter = GrandparentSplitter(train, valid) if valid_pct is None else RandomSplitter(valid_pct, seed)
        block = DataBlock((ImageBlock(mode), CategoryBlock(vocab)), get_image_files, None, parent_label, splitter, None, item_tfms, batch_tfms)
        return block.databunch(path, path, bs, num_workers=num_workers, device=device, seed=seed)

    @classmethod
    def from_name_re(cls, path: str | Path, fnames: Sequence, pat: str, valid_pct: float = 0.2, seed: int | None = None,
                     item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64, num_workers: int | None = None, mode: str = "RGB",
                     device: torch.device | str | None = None) -> DataBunch:  # fmt: skip
        """The label is the first group of `pat` in the file's name, or in its whole path where `pat` has a slash."""
        label = RegexLabeller(pat) if "/" in pat else ItemName(RegexLabeller(pat))
        return cls._labelled(path, fnames, label, valid_pct, seed, item_tfms, batch_tfms, bs, num_workers, mode, device)

    @classmethod
    def from_name_func(cls, path: str | Path, fnames: Sequence, label_func: Callable, valid_pct: float = 0.2, seed: int | None = None,
                       item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64, num_workers: int | None = None, mode: str = "RGB",
                       device: torch.device | str | None = None) -> DataBunch:  # fmt: skip
        """The label is `label_func(name)` of the file's name."""
        label = ItemName(FuncLabeller(label_func))
        return cls._labelled(path, fnames, label, valid_pct, seed, item_tfms, batch_tfms, bs, num_workers, mode, device)

    @classmethod
    def from_path_func(cls, path: str | Path, fnames: Sequence, label_func: Callable, valid_pct: float = 0.2, seed: int | None = None,
                       item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64, num_workers: int | None = None, mode: str = "RGB",
                       device: torch.device | str | None = None) -> DataBunch:  # fmt: skip
        """The label is `label_func(path)` of the file's path."""
        return cls._labelled(path, fnames, label_func, valid_pct, seed, item_tfms, batch_tfms, bs, num_workers, mode, device)

    @classmethod
    def _labelled(cls, path: str | Path, fnames: Sequence, label: Callable, valid_pct: float, seed: int | None, item_tfms: Any,
                  batch_tfms: Any, bs: int, num_workers: int | None, mode: str, device: torch.device | str | None) -> DataBunch:  # fmt: skip
        splitter = RandomSplitter(valid_pct, seed)
        block = DataBlock((ImageBlock(mode), CategoryBlock), None, None, label, splitter, None, item_tfms, batch_tfms)
        return block.databunch([Path(f) for f in fnames], path, bs, num_workers=num_workers, device=device, seed=seed)

    @classmethod
    def from_lists(cls, path: str | Path, fnames: Sequence, labels: Sequence, valid_pct: float = 0.2, seed: int | None = None,
                   item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64, num_workers: int | None = None, mode: str = "RGB",
                   device: torch.device | str | None = None) -> DataBunch:  # fmt: skip
        """File names (below `path`) and their labels: classes, lists of classes (multi-label), or floats (regression)."""
        if len(fnames) != len(labels):
            raise ValueError(f"from_lists got {len(fnames)} file names and {len(labels)} labels: give one label for each.")
        df = pd.DataFrame({"name": [str(f) for f in fnames], "label": pd.Series(list(labels))})
        return cls.from_df(df, path, valid_pct=valid_pct, seed=seed, item_tfms=item_tfms, batch_tfms=batch_tfms, bs=bs,
                           num_workers=num_workers, mode=mode, device=device)  # fmt: skip

    @classmethod
    def from_df(cls, df: pd.DataFrame, path: str | Path = ".", folder: str | Path | None = None, fn_col: str | int = 0,
                label_col: str | int | Sequence[str | int] = 1, label_delim: str | None = None, valid_col: str | int | None = None,
                valid_pct: float = 0.2, seed: int | None = None, suff: str = "", item_tfms: Any = None, batch_tfms: Any = None,
                bs: int = 64, num_workers: int | None = None, mode: str = "RGB",
                device: torch.device | str | None = None) -> DataBunch:  # fmt: skip
        """A row per image: its file name (below `path/folder`, without the extension `suff`) and its label.

        `label_delim` parts the label into several; several `label_col` are several labels, or 0s and 1s by column; a column of
        floats is a regression. The rows where `valid_col` is true validate.
        """
        folder = Path(path) / folder if folder else Path(path)
        block = DataBlock(
            (ImageBlock(mode), _target_block(df, label_col, label_delim)),
            get_x=ColReader(fn_col, folder, suff),
            get_y=ColReader(label_col, label_delim=label_delim),
            splitter=ColSplitter(valid_col) if valid_col is not None else RandomSplitter(valid_pct, seed),
            item_tfms=item_tfms,
            batch_tfms=batch_tfms,
        )
        return block.databunch(df, path, bs, num_workers=num_workers, device=device, seed=seed)

    @classmethod
    def from_csv(cls, path: str | Path, csv_fname: str = "labels.csv", header: int | str | None = "infer", delimiter: str | None = None,
                 folder: str | Path | None = None, fn_col: str | int = 0, label_col: str | int | Sequence[str | int] = 1,
                 label_delim: str | None = None, valid_col: str | int | None = None, valid_pct: float = 0.2, seed: int | None = None,
                 suff: str = "", item_tfms: Any = None, batch_tfms: Any = None, bs: int = 64, num_workers: int | None = None,
                 mode: str = "RGB", device: torch.device | str | None = None) -> DataBunch:  # fmt: skip
        """The table `path/csv_fname`, read by pandas with `header` (None where it has none) and `delimiter`, as for `from_df`."""
        df = pd.read_csv(Path(path) / csv_fname, header=header, delimiter=delimiter)  # type: ignore[arg-type]
        return cls.from_df(df, path, folder, fn_col, label_col, label_delim, valid_col, valid_pct, seed, suff, item_tfms, batch_tfms, bs,
                           num_workers, mode, device)  # fmt: skip


def _target_block(df: pd.DataFrame, label_col: str | int | Sequence[str | int], label_delim: str | None) -> Block:
    """The block that fits the label columns' values."""
    if label_delim is not None:
        return MultiCategoryBlock()
    cols = [label_col] if isinstance(label_col, (str, int)) else list(label_col)
    labels = [df[col] if col in df.columns else df.iloc[:, col] for col in cols if col in df.columns or isinstance(col, int)]
    if len(labels) > 1:
        zero_one = all(set(values.unique()) <= {0, 1} for values in labels)
        numbers = all(pd.api.types.is_numeric_dtype(values) for values in labels)
        return MultiCategoryBlock(True, [str(values.name) for values in labels]) if zero_one else RegressionBlock() if numbers else MultiCategoryBlock()
    if labels and labels[0].map(lambda v: isinstance(v, (list, tuple, set))).any():
        return MultiCategoryBlock()
    return RegressionBlock() if labels and pd.api.types.is_float_dtype(labels[0]) else CategoryBlock()
