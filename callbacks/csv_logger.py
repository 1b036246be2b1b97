"""The history of a run in plain files, for pandas or a spreadsheet."""

import json
from collections.abc import Mapping
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
    with `append` goes on with what they hold: then ValueError where the columns are others. A fit that resumes goes on
    where it was, in place of what has been written after that.
    """

    order = 85  # as other loggers
    real_runs_only = rank0_only = True
    state_names = ("rows", "fits", "n_steps", "steps_end")

    def __init__(self, fname: str | Path = "history.csv", append: bool = False, with_steps: bool = True):
        self.fname, self.append, self.with_steps = fname, append, with_steps
        self.recorder: Any = None  # of the learner whose history it is
        self.rows: list[dict[str, Any]] = []
        self.fits: list[dict[str, Any]] = []
        self.n_steps = 0  # of the recorder that have been written
        self.steps_end = 0  # bytes of the file of steps: what is behind them is to be written again
        self.resumes = False

    def before_fit(self, learn: Any) -> None:
        self.file = learn.path / self.fname
        self.steps_file, self.params_file = self.file.with_suffix(".steps.csv"), self.file.with_suffix(".json")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not self.resumes:
            if learn.recorder is not self.recorder:
                self._begin(learn)
            self.n_steps = len(learn.recorder.lrs)
            self.fits.append(run_params(learn))
        self.recorder = learn.recorder
        if self.with_steps:
            _write_whole(json.dumps(self.fits, indent=1, default=str), self.params_file)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.resumes = True

    def _begin(self, learn: Any) -> None:
        self.rows, self.fits, self.steps_end = [], [], 0
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
        self.steps_end = self.steps_file.stat().st_size if self.steps_file.exists() else 0

    def after_epoch(self, learn: Any) -> None:
        lrs = learn.recorder.lrs
        self.rows.append({**learn.recorder.rows[-1], "lr": lrs[-1] if lrs else float("nan")})
        _write_whole(_as_csv(self.rows), self.file)
        self._write_steps(learn)

    def after_fit(self, learn: Any) -> None:
        if self.resumes:  # perhaps to be told at once that the fit had been done before
            self.resumes, self.recorder = False, learn.recorder

    def after_cancel_fit(self, learn: Any) -> None:
        if learn.recorder is self.recorder:  # or the fit was cancelled before we heard of it
            self._write_steps(learn)
        self.after_fit(learn)

    def _write_steps(self, learn: Any) -> None:
        rows = step_rows(learn.recorder, self.n_steps) if self.with_steps else []
        if rows:
            with self.steps_file.open("ab") as file:
                end = min(self.steps_end, file.tell())
                file.truncate(end)
                file.seek(end)
                file.write(_as_csv(rows, header=end == 0).encode())
                self.n_steps, self.steps_end = self.n_steps + len(rows), file.tell()


def _as_csv(rows: list[dict[str, Any]], header: bool = True) -> str:
    return pd.DataFrame(rows).to_csv(index=False, header=header, na_rep="nan", lineterminator="\n")


def _write_whole(text: str, file: Path) -> None:
    """Write it under a temporary name, then rename it, so that the file is never half there."""
    temporary = file.with_name(f".{file.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
