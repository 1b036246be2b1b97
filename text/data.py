"""Text data in one call, from tables and folders, for classifiers and for language models."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..data import (
    CategoryBlock,
    ColReader,
    ColSplitter,
    DataBlock,
    DataBunch,
    Dataset,
    DeviceLoader,
    RandomSplitter,
    parent_label,
)
from ..data.columns import Columns
from ..data.items import as_items, each, kind, short
from ..data.splitters import GrandparentSplitter
from .blocks import TextBlock
from .columns import check_cells
from .files import FolderSplitter, get_text_files
from .label_columns import label_block

__all__ = ["TextDataBunch"]


class TextDataBunch(DataBunch):
    """Loaders of texts: of a classifier's with their labels, or with `is_lm=True` of a language model's windows.

    A classifier's batches are texts `(bs, n)` int64, padded at the end with `xxpad`, and labels. Texts of similar
    length are together; those of validation come in order of length, and `get_preds` gives them back in order of the
    dataset. A language model's are `(x, y)`, int64 `(bs, seq_len)` each, see `text/lm_data.py`.

    Of all factories: `valid_pct` (0–1) of the texts validate at random under `seed`, which also governs their order;
    `tokenizer`, `vocab`, `seq_len`, `min_freq`, `max_vocab` and `backwards` are those of `TextBlock`, `bs` and `val_bs`
    texts or rows in a batch. `num_workers` processes tokenise (by default one for each core), and read the batches of
    a classifier. Raise ItemError for a text that is missing, empty or no text, and for a label that is missing. (To
    predict, a text may be empty.)
    """

    @classmethod
    def from_df(cls, df: pd.DataFrame, path: str | Path = ".", text_col: Columns = "text",
                label_col: Columns = "label", is_lm: bool = False, valid_col: str | int | None = None,
                valid_pct: float = 0.2, seed: int | None = None, tokenizer: Any = None,
                vocab: list[str] | None = None, seq_len: int = 72, bs: int = 64, val_bs: int | None = None,
                label_delim: str | None = None, min_freq: int = 3, max_vocab: int = 60_000, backwards: bool = False,
                num_workers: int | None = None,
                device: torch.device | str | None = None) -> "TextDataBunch":  # fmt: skip
        """A row for each text; several `text_col` become one text, in which each is marked.

        `label_delim` parts a label into several; several `label_col` are 0s and 1s, or else several numbers; a column
        of floats is a regression. The rows where `valid_col` is true validate. A language model has no labels.
        Errors name rows by their index.
        """
        check_cells(df, text_col, None if is_lm or label_delim is not None else label_col)
        text = TextBlock.from_df(text_col, tokenizer, vocab, is_lm, seq_len, min_freq, max_vocab, backwards)
        splitter = RandomSplitter(valid_pct, seed) if valid_col is None else ColSplitter(valid_col)
        if is_lm:
            block = DataBlock(text, splitter=splitter)
        else:
            label = ColReader(label_col, label_delim=label_delim)
            block = DataBlock((text, label_block(df, label_col, label_delim)), get_y=label, splitter=splitter)
        return cls.from_block(block, df, path, bs, val_bs, num_workers, device, seed)

    @classmethod
    def from_csv(cls, path: str | Path, csv_fname: str = "labels.csv", text_col: Columns = "text",
                 label_col: Columns = "label", is_lm: bool = False, valid_col: str | int | None = None,
                 valid_pct: float = 0.2, seed: int | None = None, tokenizer: Any = None,
                 vocab: list[str] | None = None, seq_len: int = 72, bs: int = 64, val_bs: int | None = None,
                 label_delim: str | None = None, min_freq: int = 3, max_vocab: int = 60_000, backwards: bool = False,
                 header: int | str | None = "infer", delimiter: str | None = None, encoding: str = "utf-8",
                 num_workers: int | None = None,
                 device: torch.device | str | None = None) -> "TextDataBunch":  # fmt: skip
        """As `from_df`, from the table `path/csv_fname`; `header` and `delimiter` are those of `pd.read_csv`."""
        file = Path(path) / csv_fname
        options: Any = {"header": header, "sep": delimiter or ",", "encoding": encoding}
        try:
            df = pd.read_csv(file, **options)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file} is not {encoding}: it holds the byte 0x{error.object[error.start]:02x}. Say which encoding it "
                "has (encoding='latin-1', say), or write it anew in UTF-8."
            ) from None
        return cls.from_df(df, path, text_col, label_col, is_lm, valid_col, valid_pct, seed, tokenizer, vocab, seq_len,
                           bs, val_bs, label_delim, min_freq, max_vocab, backwards, num_workers, device)  # fmt: skip

    @classmethod
    def from_folder(cls, path: str | Path, train: str = "train", valid: str = "valid", valid_pct: float | None = None,
                    is_lm: bool = False, seed: int | None = None, tokenizer: Any = None,
                    vocab: list[str] | None = None, seq_len: int = 72, bs: int = 64, val_bs: int | None = None,
                    min_freq: int = 3, max_vocab: int = 60_000, backwards: bool = False, encoding: str = "utf-8",
                    num_workers: int | None = None,
                    device: torch.device | str | None = None) -> "TextDataBunch":  # fmt: skip
        """A `.txt` file for each text, in a folder for each class: `path/train/pos/1.txt`.

        With `valid_pct`, `path/pos/1.txt`, split at random. A language model takes files at any depth.
        """
        text = TextBlock.from_folder(path, tokenizer, vocab, is_lm, seq_len, min_freq, max_vocab, backwards, encoding)
        if valid_pct is not None:
            get_items, splitter = get_text_files, RandomSplitter(valid_pct, seed)
        else:
            get_items = partial(get_text_files, folders=[train, valid])
            splitter = FolderSplitter(Path(path), train, valid) if is_lm else GrandparentSplitter(train, valid)
        blocks = text if is_lm else (text, CategoryBlock())
        block = DataBlock(blocks, get_items, get_y=None if is_lm else parent_label, splitter=splitter)
        return cls.from_block(block, path, path, bs, val_bs, num_workers, device, seed)

    @classmethod
    def from_block(cls, block: DataBlock, source: Any, path: str | Path = ".", bs: int = 64, val_bs: int | None = None,
                   num_workers: int | None = None, device: torch.device | str | None = None,
                   seed: int | None = None) -> "TextDataBunch":  # fmt: skip
        """From your own `DataBlock`, whose first block is a `TextBlock`."""
        if not isinstance(block.blocks[0], TextBlock):
            raise TypeError(f"The first block is a {type(block.blocks[0]).__name__}: TextDataBunch needs a TextBlock.")
        data = block.databunch(source, path, bs, val_bs, num_workers, device, seed=seed)
        _check_labels(data.train_ds)
        return cls(data.train_dl, data.valid_dl, path=path)

    def test_dl(self, items: Any, with_labels: bool = False) -> DeviceLoader:
        """A loader over new texts – a list, rows or files, as the data came – in their order.

        A language model's windows for one. Raises TypeError for a path, ValueError for texts that name files.
        """
        if isinstance(items, (str, Path)):
            raise TypeError(
                f"test_dl takes a list of texts, got the {kind(items)} {short(items)}: test_dl([text]) is of one text, "
                "test_dl(get_text_files(path)) of the files in a folder."
            )
        items = as_items(items)
        _check_no_file_names(items)
        return super().test_dl(items, with_labels)


def _check_labels(train: Dataset) -> None:
    """Raise ValueError where there is a single class, and nothing to learn."""
    block = train.blocks[-1]
    vocab = block.vocab or [] if isinstance(block, CategoryBlock) else []
    if len(vocab) == 1:
        raise ValueError(
            f"All {len(train)} training texts have the label {vocab[0]!r}: a classifier needs two or more. Is it the "
            "right column or folder, and does the splitter mix the classes?"
        )


def _check_no_file_names(items: Any) -> None:
    """Raise ValueError where the first of the texts is the name of a file."""
    first = next(iter(each(items)), None)
    if isinstance(first, str) and len(first) < 250 and "\n" not in first and Path(first).is_file():
        raise ValueError(f"{first!r} is a file: a text is read as it is, a file by its path, test_dl([Path(…), …]).")
