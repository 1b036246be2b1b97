"""Runs for TensorBoard.

    learn.fit_one_cycle(5, cbs=TensorBoardLogger())        # then, in a terminal: tensorboard --logdir runs

It comes with `pip install "warmstart[track]"` and is imported where it is used.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch

from .evaluating import evaluating
from .run_logger import LogPreds, RunLogger

__all__ = ["TensorBoardLogger"]


class TensorBoardLogger(RunLogger):
    """Logs fits for TensorBoard: scalars by step, hyper-parameters as a text, predictions as images; see `RunLogger`.

    Each fit gets a folder of its own, `runs/<time>` in `learn.path`. Or they all go to `log_dir` (relative to
    `learn.path`), which is for the fits of one learner: a learner that begins anew there hides what an earlier one has
    logged. `log_graph` adds the model as a graph. A fit that resumes goes on in its folder.
    """

    def __init__(self, log_dir: str | Path | None = None, log_preds: LogPreds = True, n_preds: int = 9,
                 every: int = 50, log_graph: bool = False):  # fmt: skip
        super().__init__(log_preds, n_preds, every=every)
        self.log_dir, self.log_graph, self.graph_is_due = log_dir, log_graph, False
        self.writer_class = _summary_writer()
        self.writer: Any = None

    def open(self, learn: Any) -> None:
        resumes, runs = bool(self.run_id), learn.path / "runs"
        n_before = self.n_logged if resumes else len(learn.recorder.lrs)
        if not resumes:
            self.run_id = _new_name(runs) if self.log_dir is None else str(self.log_dir)
        folder = runs / self.run_id if self.log_dir is None else learn.path / self.log_dir
        self.writer = self.writer_class(folder, purge_step=n_before + 1 if n_before else 0)
        self.graph_is_due = self.log_graph and not resumes

    def log_params(self, params: Mapping[str, Any]) -> None:
        lines = [f"| {name} | {value} |" for name, value in params.items()]
        self.writer.add_text("hyper-parameters", "\n".join(["| name | value |", "|-|-|", *lines]), self.n_logged)

    def log_rows(self, rows: Sequence[Mapping[str, float]]) -> None:
        for row in rows:
            for name in row.keys() - {"step"}:
                self.writer.add_scalar(name, row[name], row["step"])
        self.writer.flush()

    def log_figure(self, name: str, figure: Any, step: int) -> None:
        self.writer.add_figure(name, figure, step, close=False)

    def close(self, failed: bool) -> None:
        self.writer.close()

    def after_batch(self, learn: Any) -> None:
        super().after_batch(learn)
        if self.graph_is_due:
            self.graph_is_due = False
            self._log_graph(learn)

    def _log_graph(self, learn: Any) -> None:
        """Trace the model as it is in evaluation, so that neither statistics nor random numbers change."""
        try:
            with evaluating(learn.model), torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of torch, about its own tracing
                self.writer.add_graph(learn.model, learn.xb)
        except Exception as error:
            warnings.warn(f"The model cannot be traced, so TensorBoard gets no graph: {error}", stacklevel=2)


def _summary_writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError('TensorBoardLogger needs TensorBoard: `pip install "warmstart[track]"`.') from error
    return SummaryWriter


def _new_name(parent: Path) -> str:
    """The time, as the name of a folder that does not exist yet."""
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    names = (name if number == 1 else f"{name}_{number}" for number in count(1))
    return next(name for name in names if not (parent / name).exists())
