"""Telling a tracking tool about a run: what is told, and when. How it is told is up to a logger for each tool.

    class PrintLogger(RunLogger):
        def open(self, learn): print("a fit begins")
        def log_params(self, params): print(params)
        def log_rows(self, rows): print(rows)
        def log_figure(self, name, figure, step): figure.savefig(f"{name}-{step}.png")
        def close(self, failed): print("it failed" if failed else "it is done")

Those of TensorBoard, Weights & Biases and MLflow are in modules of their own.
"""

import sys
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal

from .core import Callback, CancelFit
from .parted import own_class

__all__ = ["LogPreds", "RunLogger", "new_names", "run_params", "step_rows"]

LogPreds = bool | Literal["epoch"]  # sample predictions when a fit ends, or after each epoch


class RunLogger(Callback, ABC):
    """Tells a tool of hyper-parameters, loss and learning rate of every step, results of validations, predictions.

    Steps are counted as `learn.recorder` does, from 1 over all fits of the learner. They are told in blocks of `every`,
    so that nobody waits for the device in between; a fit that is interrupted tells what it has. Predictions are a
    picture of `n_preds` validation items by `learn.show_results`, where the data has pictures: when a fit ends, or
    after each epoch with `log_preds="epoch"`. `log_model` adds the weights in the end.

    A fit that resumes tells again what came after the point where it does. Where `open` sets `run_id`, it finds there
    what it was, and can go on with that run; then hyper-parameters are not told again.
    """

    order = 85  # when SaveModel has loaded the best weights and ValidateEvery validated, and before EarlyStopping
    real_runs_only = rank0_only = True
    state_names = ("run_id", "n_logged", "n_validations")

    def __init__(self, log_preds: LogPreds = True, n_preds: int = 9, log_model: bool = False, every: int = 50):
        if log_preds not in (True, False, "epoch"):
            raise ValueError(f"log_preds={log_preds!r}: True for predictions when a fit ends, 'epoch', or False.")
        if every < 1:
            raise ValueError(f"every={every}: the number of steps that are told together, at least 1.")
        self.log_preds, self.n_preds, self.log_model, self.every = log_preds, n_preds, log_model, every
        self.is_open = False
        self.recorder: Any = None  # of the learner, while the run is open
        self.run_id = ""  # of the run that is open, where the tool has such; before `open`, of one to go on with
        self.n_logged, self.n_validations = 0, 0  # of the recorder's steps, and validations within an epoch

    # ---- how it is told

    @abstractmethod
    def open(self, learn: Any) -> None:
        """A fit begins: start a run for it, or go on with one."""

    @abstractmethod
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Note the hyper-parameters of a fit by name: numbers, texts and lists of them."""

    @abstractmethod
    def log_rows(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Note numbers by name; each row has its `step`."""

    @abstractmethod
    def log_figure(self, name: str, figure: Any, step: int) -> None:
        """Note a figure of matplotlib."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """The fit has ended, or it has failed or been interrupted."""

    def log_file(self, file: Path) -> None:
        """Keep a copy of a file, where the tool can."""

    # ---- when it is told

    def before_fit(self, learn: Any) -> None:
        before, self.recorder = self.run_id, learn.recorder
        self.open(learn)
        self.is_open, self.n_logged, self.n_validations = True, len(learn.recorder.lrs), len(learn.recorder.step_rows)
        if not before or self.run_id != before:
            self.log_params(run_params(learn))

    def state_dict(self) -> dict[str, Any]:
        """Tells all that has been recorded, so that a fit that resumes here need not tell it once more."""
        if self.is_open:
            self._log_steps(self.recorder)
        return super().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({**state, "run_id": self.run_id} if self.is_open else state)

    def after_batch(self, learn: Any) -> None:
        if not learn.training:
            return
        validations = learn.recorder.step_rows[self.n_validations :]
        if validations or len(learn.recorder.lrs) >= self.n_logged + self.every:
            self._log_steps(learn.recorder)
        if validations:
            self.log_rows([row | {"step": self.n_logged} for row in validations])
            self.n_validations += len(validations)

    def after_epoch(self, learn: Any) -> None:
        self._log_steps(learn.recorder)
        self.log_rows([{"step": self.n_logged, **learn.recorder.rows[-1]}])
        if self.log_preds == "epoch":
            self._log_preds(learn)

    def after_fit(self, learn: Any) -> None:
        if self.is_open:
            with self._closing(failed=False):
                self._log_end(learn)

    def after_cancel_fit(self, learn: Any) -> None:
        if isinstance(sys.exc_info()[1], CancelFit):
            return  # after_fit follows
        if self.is_open:
            with self._closing(failed=True):
                self._log_steps(learn.recorder)

    @contextmanager
    def _closing(self, failed: bool) -> Iterator[None]:
        try:
            yield
        finally:
            self.is_open = False
            self.close(failed)
            self.run_id, self.recorder = "", None

    def _log_steps(self, recorder: Any) -> None:
        if rows := step_rows(recorder, self.n_logged):
            self.log_rows(rows)
            self.n_logged += len(rows)

    def _log_end(self, learn: Any) -> None:
        self._log_steps(learn.recorder)
        if self.log_preds is True:
            self._log_preds(learn)
        if self.log_model:
            with tempfile.TemporaryDirectory() as folder:
                self.log_file(learn.save(Path(folder) / "model", with_opt=False))

    def _log_preds(self, learn: Any) -> None:
        """Predictions are no reason for a fit to fail, whatever the model gives: then there is a warning."""
        if learn.data.valid_dl is None or not any(block.is_picture for block in learn.data.blocks):
            return
        try:
            with _drawn(lambda: learn.show_results(self.n_preds)) as figures:
                for figure in figures:
                    self.log_figure("predictions", figure, self.n_logged)
        except Exception as error:
            warnings.warn(f"{type(self).__name__} logged no predictions: show_results failed. {error}", stacklevel=2)


@contextmanager
def _drawn(draw: Callable[[], None]) -> Iterator[list[Any]]:
    """Inside, the figures that `draw` makes with pyplot; nobody sees them, and in the end they are closed."""
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    try:
        with plt.ioff():
            draw()
        yield [plt.figure(number) for number in plt.get_fignums() if number not in before]
    finally:
        for number in set(plt.get_fignums()).difference(before):
            plt.close(number)


def step_rows(recorder: Any, begin: int) -> list[dict[str, float]]:
    """`step, loss, lr, mom` of every step that the recorder has seen after the first `begin`."""
    columns = (recorder.losses[begin:], recorder.lrs[begin:], recorder.moms[begin:])
    steps = enumerate(zip(*columns, strict=True), begin + 1)
    return [{"step": step, "loss": loss, "lr": lr, "mom": mom} for step, (loss, lr, mom) in steps]


def run_params(learn: Any) -> dict[str, Any]:
    """What a fit that begins is run with, by name: numbers, texts and lists of them; what is not known is left out."""
    model, loss, groups, sampler = learn.model, learn.loss_func, learn.opt.param_groups, learn.data.train_dl.sampler
    lrs = list({group.get("layer_group", i): group["lr"] for i, group in enumerate(groups)}.values())
    params = {
        "n_epoch": learn.n_epoch,
        "lr": lrs[0] if len(set(lrs)) == 1 else lrs,  # of each layer group; what a schedule makes of it is told by step
        "wd": max((group.get("weight_decay", 0.0) for group in groups), default=0.0),
        "bs": learn.data.bs,
        "seed": sampler.seed if sampler else None,
        "opt": type(learn.opt).__name__,
        "loss": None if loss is None else getattr(loss, "__name__", type(loss).__name__),
        "model": own_class(model).__name__,
        "arch": getattr(getattr(learn.model_spec, "arch", None), "name", None),
        "n_params": sum(p.numel() for p in model.parameters()),
        "n_trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "metrics": list(learn.evaluate.metrics),
        "callbacks": [repr(cb) for cb in learn.cbs if cb not in (learn.evaluate, learn.recorder, learn.progress)],
        "device": str(learn.data.device),
    }
    return {name: value for name, value in params.items() if value is not None}


def new_names(params: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """`params` under names that are not in `known`: those of a run's second fit become `fit2/lr` and so on."""
    prefixes = ("" if number == 1 else f"fit{number}/" for number in count(1))
    prefix = next(prefix for prefix in prefixes if not any(prefix + name in known for name in params))
    return {prefix + name: value for name, value in params.items()}
