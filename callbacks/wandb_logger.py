"""Runs for Weights & Biases.

    learn.fit_one_cycle(5, cbs=WandbLogger(project="pets"))

    with wandb.init(project="pets"):                       # one run of several fits
        learn.fine_tune(5, cbs=WandbLogger())

It comes with `pip install "warmstart[track]"` and is imported where it is used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from .run_logger import LogPreds, RunLogger, new_names

__all__ = ["WandbLogger"]


class WandbLogger(RunLogger):
    """Logs fits to Weights & Biases: config, history over `step`, predictions as images; see `RunLogger`.

    The run that is open when a fit begins is used, and left open. Where there is none, each fit starts one of its own
    in `project` by the name `name` and finishes it. `mode`: "online", "offline" (`wandb sync` uploads it later),
    "disabled", or what the environment says (`WANDB_MODE`). `log_model` keeps the weights as an artifact. A fit that
    resumes goes on with its run; what that has been told of later steps stays there, too.
    """

    def __init__(self, project: str | None = None, name: str | None = None,
                 mode: Literal["online", "offline", "disabled"] | None = None, log_preds: LogPreds = True,
                 n_preds: int = 9, log_model: bool = False, every: int = 50):  # fmt: skip
        super().__init__(log_preds, n_preds, log_model, every)
        self.project, self.name, self.mode = project, name, mode
        self.wandb = _wandb()
        self.run: Any = None
        self.is_own = False  # whether the run is
        self.known_names: set[str] = set()

    def open(self, learn: Any) -> None:
        self.is_own = self.wandb.run is None
        self.run = self.wandb.run or self._start()
        self.run_id = self.run.id
        self.known_names = {"step"}  # whose axis is known

    def _start(self) -> Any:
        run_id = self.run_id or None
        resume = "allow" if run_id else None
        return self.wandb.init(project=self.project, name=self.name, mode=self.mode, id=run_id, resume=resume)

    def log_params(self, params: Mapping[str, Any]) -> None:
        self.run.config.update(new_names(params, self.run.config.keys()))

    def log_rows(self, rows: Sequence[Mapping[str, float]]) -> None:
        for row in rows:
            self._log(dict(row))

    def log_figure(self, name: str, figure: Any, step: int) -> None:
        self._log({"step": step, name: self.wandb.Image(figure)})

    def _log(self, row: dict[str, Any]) -> None:
        for name in row.keys() - self.known_names:
            self.run.define_metric(name, step_metric="step")
        self.known_names |= row.keys()
        self.run.log(row)

    def log_file(self, file: Path) -> None:
        artifact = self.wandb.Artifact(f"{file.stem}-{self.run.id}", type="model")
        artifact.add_file(str(file))
        self.run.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        if self.is_own:
            self.run.finish(exit_code=int(failed))
        self.run = None


def _wandb() -> ModuleType:
    try:
        import wandb
    except ImportError as error:
        raise ImportError('WandbLogger needs Weights & Biases: `pip install "warmstart[track]"`.') from error
    return wandb
