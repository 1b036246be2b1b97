"""Cleaning a set of images with the help of a model: what it is most wrong about is often labelled wrongly.

    cleaner = ImageCleaner.from_learner(learn)
    cleaner.show("ants")                             # in a notebook: thumbnails, each with a menu
    cleaner.to_csv("cleaning.csv")                   # or elsewhere: edit the columns `action` and `new_label`,
    cleaner = ImageCleaner.from_csv("cleaning.csv")  # and read it again
    data = ImageDataBunch.from_df(cleaner.cleaned(), valid_col="is_valid", item_tfms=Resize(224))

No file is ever deleted: that is up to you, `for i in cleaner.delete(): Path(cleaner.files[i]).unlink()`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..data.dataset import Dataset
from ..learner.files import save_text
from ..learner.interpretation_labels import ClassificationInterpretation
from .cleaning_widget import show_choices
from .duplicates import find_duplicates

__all__ = ["ImageCleaner"]

COLUMNS = ["file", "is_valid", "label", "predicted", "probability", "loss", "duplicate_of", "action", "new_label"]
ACTIONS = ["keep", "relabel", "delete"]


class ImageCleaner:
    """Images with what a model thinks of them, and what is to be done with each; make it with `from_learner`.

    `table` has a row for each image: its file, whether it validates, label, prediction and its probability, loss, the
    number of an earlier row that it duplicates (-1: none), `action` (keep, relabel or delete) and, to relabel, the
    `new_label`. The actions begin as suggestions: relabel where another class is predicted with a probability of at
    least `confident`, delete what is there twice, else keep. They may be changed in the table, in a notebook or in a
    CSV file.
    """

    def __init__(self, table: pd.DataFrame, vocab: Sequence[Any]):
        if missing := [name for name in COLUMNS if name not in table]:
            raise ValueError(f"the table lacks the columns {missing}; it has {list(table.columns)}.")
        self.table: Any = table[COLUMNS].copy()  # a DataFrame; pandas does not type what indexing gives
        self.vocab = list(vocab)
        self._check()

    @classmethod
    def from_learner(cls, learn: Any, split: Literal["train", "valid"] | None = None, confident: float = 0.9,
                     duplicates: float | None = 0.99) -> "ImageCleaner":  # fmt: skip
        """Of a classifier's training and validation set, or one of them.

        A model knows the images it was trained on by heart, and doubts wrong labels among them less than in the
        validation set. `duplicates` is the similarity from which two images count as one (see `find_duplicates`; they
        matter the most where one validates and the other trains), None: they are not looked for.
        """
        splits: list[Any] = [split] if split else ["train", *(["valid"] if learn.data.valid_dl is not None else [])]
        interps = [ClassificationInterpretation.from_learner(learn, name) for name in splits]
        rows = [_rows(interp, name == "valid") for interp, name in zip(interps, splits, strict=True)]
        table = _with_suggestions(pd.concat(rows, ignore_index=True), confident, duplicates)
        return cls(table, interps[0].vocab)

    @classmethod
    def from_interpretation(cls, interp: ClassificationInterpretation, confident: float = 0.9,
                            duplicates: float | None = 0.99) -> "ImageCleaner":  # fmt: skip
        """Of the items that were interpreted; see `from_learner`."""
        rows = _rows(interp, interp.dl is interp.learn.data.valid_dl)
        return cls(_with_suggestions(rows, confident, duplicates), interp.vocab)

    @classmethod
    def from_csv(cls, path: str | Path, vocab: Sequence[Any] | None = None) -> "ImageCleaner":
        """What `to_csv` wrote, edited by a person; a line that was taken out is an image that is left out.

        Labels are texts, or what is so written in `vocab`, which may also name classes that are new. Raises ValueError
        that names the line for an unknown action or label, and for missing columns.
        """
        text: Any = dict.fromkeys(["file", "label", "predicted", "action", "new_label"], str)
        table: Any = pd.read_csv(path, dtype=text, keep_default_na=False)
        if "item" not in table:
            raise ValueError(f"{path} lacks the column 'item', which numbers the images; it has {list(table.columns)}.")
        table = table.set_index("item").sort_index()
        if vocab is None and {"label", "predicted"} <= set(table):
            vocab = sorted({*table["label"], *table["predicted"]})
        by_text: dict[Any, Any] = {str(label): label for label in vocab or []}
        for name in ("label", "predicted", "new_label"):
            if name in table:
                table[name] = [by_text.get(label.strip(), label) for label in table[name]]
        return cls(table, vocab or [])

    @property
    def files(self) -> pd.Series:
        """The file of each row, by its number."""
        return self.table["file"]

    def worst(self, label: Any = None, n: int | None = None) -> pd.DataFrame:
        """The rows with the highest losses first, `n` of them at most, of all labels or of one."""
        if label is not None and label not in self.vocab:
            raise ValueError(f"label={label!r}: the labels are {self.vocab}.")
        table = self.table if label is None else self.table[self.table["label"] == label]
        return table.sort_values("loss", ascending=False, kind="stable").head(len(table) if n is None else n)

    def show(self, label: Any = None, n: int = 30) -> None:
        """In a notebook, the images of `worst(label, n)`, each with a menu of what is to be done with it.

        What is chosen is in the table at once. Raises ImportError where ipywidgets is not installed.
        """
        rows = self.worst(label, n)
        choices = [("keep", ""), ("delete", ""), *(("relabel", label) for label in self.vocab)]
        names = ["keep", "delete", *(f"relabel: {label}" for label in self.vocab)]
        chosen = [choices.index((row.action, row.new_label)) for row in _each(rows)]
        captions = [f"{r.predicted} / {r.label} / {r.loss:.2f} / {r.probability:.2f}" for r in _each(rows)]

        def choose(which: int, choice: int) -> None:
            self.table.loc[rows.index[which], ["action", "new_label"]] = choices[choice]

        show_choices(rows["file"].tolist(), captions, names, chosen, choose)

    def delete(self) -> list[int]:
        """The numbers of the rows to delete."""
        return self.table.index[self.table["action"] == "delete"].tolist()

    def change(self) -> list[tuple[int, Any]]:
        """The numbers of the rows to relabel, each with its new label."""
        rows = self.table[self.table["action"] == "relabel"]
        return list(zip(rows.index.tolist(), rows["new_label"].tolist(), strict=True))

    def to_csv(self, path: str | Path) -> Path:
        """Write the table, the highest losses first, for a person to edit and `from_csv` to read; returns the file."""
        return save_text(self.worst().to_csv(index_label="item", float_format="%.4f"), path)

    def cleaned(self) -> pd.DataFrame:
        """What is left, `file`, `label` and `is_valid`: for `ImageDataBunch.from_df(…, valid_col="is_valid")`."""
        self._check()
        kept = self.table[self.table["action"] != "delete"]
        labels = [row.new_label if row.action == "relabel" else row.label for row in _each(kept)]
        return pd.DataFrame({"file": kept["file"].tolist(), "label": labels, "is_valid": kept["is_valid"].tolist()})

    def _check(self) -> None:
        """Raise ValueError for an action or new label that is none."""
        for row in _each(self.table):
            if row.action not in ACTIONS:
                raise ValueError(f"item {row.Index} ({row.file}): action {row.action!r} is none of {ACTIONS}.")
            if row.action == "relabel" and row.new_label not in self.vocab:
                raise ValueError(
                    f"item {row.Index} ({row.file}): new_label {row.new_label!r} is none of the labels {self.vocab}. "
                    "Correct it, or give all labels as vocab=[…]."
                )


def _each(table: pd.DataFrame) -> Iterator[Any]:
    """The rows, with their columns as attributes."""
    return iter(table.itertuples())


def _rows(interp: ClassificationInterpretation, is_valid: bool) -> pd.DataFrame:
    """A row for each item that was interpreted."""
    probability, predicted = interp.preds.max(-1)
    columns = {
        "file": _files(interp.dl.dataset),
        "is_valid": is_valid,
        "label": [interp.vocab[number] for number in interp.targs.tolist()],
        "predicted": [interp.vocab[number] for number in predicted.tolist()],
        "probability": probability.tolist(),
        "loss": interp.losses.tolist(),
    }
    return pd.DataFrame(columns)


def _files(dataset: Any) -> list[str]:
    """The file of each item. Raises TypeError where images are not read from files."""
    sources = dataset.values(0) if isinstance(dataset, Dataset) else [None]
    other = next((source for source in sources if not isinstance(source, (str, Path))), None)
    if other is not None or not isinstance(dataset, Dataset):
        raise TypeError(f"ImageCleaner needs a DataBlock whose images are read from files, not {type(other).__name__}.")
    return [str(source) for source in sources]


def _with_suggestions(table: pd.DataFrame, confident: float, duplicates: float | None) -> pd.DataFrame:
    pairs = find_duplicates(table["file"].tolist(), duplicates) if duplicates else []
    first: dict[int, int] = {}
    for earlier, later, _ in pairs:
        first.setdefault(later, first.get(earlier, earlier))
    doubtful = (table["predicted"] != table["label"]) & (table["probability"] >= confident)
    table = table.assign(duplicate_of=[first.get(i, -1) for i in range(len(table))], action="keep", new_label="")
    table = table.astype({"new_label": object})
    table.loc[doubtful, "action"] = "relabel"
    table.loc[doubtful, "new_label"] = table["predicted"]
    table.loc[table["duplicate_of"] >= 0, ["action", "new_label"]] = ["delete", ""]
    return table
