"""The history of a run in plain files, for pandas or a spreadsheet."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from .core import Callback
from .monitor import result_names
from .run_logger import run_params, step_rows

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
    """Writes a row per epoch to `fname` in `learn.path`: `epoch, train_loss, valid_loss`, the metrics, `time, lr`.

    Numbers are in full precision, `lr` is that of the epoch's last step. The file is complete after each epoch,
    whatever happens next. `with_steps` writes two more beside it: `history.steps.csv` with `step, loss, lr, mom` of
    every training step, at each epoch's end, and `history.json` with the hyper-parameters of each fit.

    All fits of a learner with this callback go into the same files. Another callback or learner begins them anew, or
    with `append` goes on with what they hold: then ValueError where the columns are others.
    """

    order = 85  # as other loggers
    real_runs_only = True

    def __init__(self, fname: str | Path = "history.csv", append: bool = False, with_steps: bool = True):
        self.fname, self.append, self.with_steps = fname, append, with_steps
        self.recorder: Any = None  # of the learner whose history it is
        self.rows: list[dict[str, Any]] = []
        self.fits: list[dict[str, Any]] = []
        self.n_steps = 0  # of the recorder that have been written

    def before_fit(self, learn: Any) -> None:
        if learn.recorder is not self.recorder:
            self._begin(learn)
        self.recorder, self.n_steps = learn.recorder, len(learn.recorder.lrs)
        self.fits.append(run_params(learn))
        if self.with_steps:
            _write_whole(json.dumps(self.fits, indent=1, default=str), self.params_file)

    def _begin(self, learn: Any) -> None:
        self.rows, self.fits = [], []
        self.file = learn.path / self.fname
        self.steps_file, self.params_file = self.file.with_suffix(".steps.csv"), self.file.with_suffix(".json")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.append and self.file.exists():
            self._go_on(result_names(learn))
        else:
            for file in (self.file, self.steps_file, self.params_file):
                file.unlink(missing_ok=True)

    def _go_on(self, names: list[str] | None) -> None:
        """Read what the files hold. Raises ValueError where this fit will have other columns."""
        found = pd.read_csv(self.file, dtype=str, keep_default_na=False)  # to be written again as it is
        expected = list(found) if names is None else ["epoch", *names, "time", "lr"]
        if set(found) != set(expected):
            raise ValueError(
                f"{self.file} has the columns {', '.join(found)}; this fit has {', '.join(expected)}. Give it another "
                "fname, or begin the file anew with append=False."
            )
        self.rows = found.to_dict("records")
        self.fits = json.loads(self.params_file.read_text("utf-8")) if self.params_file.exists() else []

    def after_epoch(self, learn: Any) -> None:
        lrs = learn.recorder.lrs
        self.rows.append({**learn.recorder.rows[-1], "lr": lrs[-1] if lrs else float("nan")})
        _write_whole(_as_csv(self.rows), self.file)
        self._write_steps(learn)

    def after_cancel_fit(self, learn: Any) -> None:
        if learn.recorder is self.recorder:  # or the fit was cancelled before we heard of it
            self._write_steps(learn)

    def _write_steps(self, learn: Any) -> None:
        rows = step_rows(learn.recorder, self.n_steps) if self.with_steps else []
        if rows:
            with self.steps_file.open("a", encoding="utf-8") as file:
                file.write(_as_csv(rows, header=file.tell() == 0))
            self.n_steps += len(rows)


def _as_csv(rows: list[dict[str, Any]], header: bool = True) -> str:
    return pd.DataFrame(rows).to_csv(index=False, header=header, na_rep="nan", lineterminator="\n")


def _write_whole(text: str, file: Path) -> None:
    """Write it under a temporary name, then rename it, so that the file is never half there."""
    temporary = file.with_name(f".{file.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
