"""Runs for MLflow.

    learn.fit_one_cycle(5, cbs=MLflowLogger("pets"))       # then, in a terminal: mlflow ui

    with mlflow.start_run():                               # one run of several fits
        learn.fine_tune(5, cbs=MLflowLogger())

It comes with `pip install "warmstart[track]"` and is imported where it is used.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from .run_logger import LogPreds, RunLogger, new_names

__all__ = ["MLflowLogger"]

MAX_METRICS = 1000  # in one message to MLflow
MAX_LENGTH = 500  # of a parameter's value in every version of MLflow


class MLflowLogger(RunLogger):
    """Logs fits to MLflow: parameters, metrics by step, predictions and weights as artifacts; see `RunLogger`.

    The run that is active when a fit begins is used, and left active. Where there is none, each fit starts one of its
    own, called `run_name`, in `experiment` of the store at `tracking_uri` (a server, a database "sqlite:///runs.db"),
    and ends it; both arguments set what `mlflow.set_experiment` and `mlflow.set_tracking_uri` set. A fit that resumes
    goes on with its run; what that has been told of later steps stays there, too.
    """

    def __init__(self, experiment: str | None = None, run_name: str | None = None,
                 tracking_uri: str | Path | None = None, log_preds: LogPreds = True, n_preds: int = 9,
                 log_model: bool = False, every: int = 50):  # fmt: skip
        super().__init__(log_preds, n_preds, log_model, every)
        self.experiment, self.run_name, self.tracking_uri = experiment, run_name, tracking_uri
        self.mlflow = _mlflow()
        self.client: Any = None
        self.is_own = False  # whether the run is

    def open(self, learn: Any) -> None:
        run = self.mlflow.active_run()
        self.is_own = run is None
        self.run_id = (run or self._start()).info.run_id
        self.client = self.mlflow.MlflowClient()

    def _start(self) -> Any:
        if self.tracking_uri is not None:
            self.mlflow.set_tracking_uri(self.tracking_uri)
        if self.experiment is not None:
            self.mlflow.set_experiment(self.experiment)
        return self.mlflow.start_run(self.run_id or None, run_name=self.run_name)

    def log_params(self, params: Mapping[str, Any]) -> None:
        named = new_names(params, self.client.get_run(self.run_id).data.params)
        make = self.mlflow.entities.Param
        entries = [make(name, str(value)[:MAX_LENGTH]) for name, value in named.items()]
        self.client.log_batch(self.run_id, params=entries)

    def log_rows(self, rows: Sequence[Mapping[str, float]]) -> None:
        make, now = self.mlflow.entities.Metric, int(time.time() * 1000)
        entries = [make(name, row[name], now, int(row["step"])) for row in rows for name in row if name != "step"]
        for begin in range(0, len(entries), MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=entries[begin : begin + MAX_METRICS])

    def log_figure(self, name: str, figure: Any, step: int) -> None:
        self.client.log_figure(self.run_id, figure, f"{name}/step-{step:06}.png")

    def log_file(self, file: Path) -> None:
        self.client.log_artifact(self.run_id, str(file))

    def close(self, failed: bool) -> None:
        if self.is_own:
            self.mlflow.end_run("FAILED" if failed else "FINISHED")
        self.client = None


def _mlflow() -> ModuleType:
    try:
        import mlflow
    except ImportError as error:
        raise ImportError('MLflowLogger needs MLflow: `pip install "warmstart[track]"`.') from error
    return mlflow
