"""The training loop, whole: fit → epochs → train and validate → batches → backward and step.

Every stage is announced to the callbacks before and after, and whatever the stage does can be cancelled by them. What
happens to one batch is one method per step – `forward, compute_loss, backward, step, zero_grad` – that a subclass may
override. Nothing here waits for the accelerator.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..callbacks import core
from ..data.batch import batch_size, split_batch
from ..data.bunch import DataBunch
from ..data.loaders import DeviceLoader

__all__ = ["Loop"]

CANCEL = {
    "fit": core.CancelFit,
    "epoch": core.CancelEpoch,
    "train": core.CancelTrain,
    "validate": core.CancelValidate,
    "batch": core.CancelBatch,
    "backward": core.CancelBackward,
    "step": core.CancelStep,
}
STAGES = {stage: (f"before_{stage}", f"after_{stage}", f"after_cancel_{stage}", cancel) for stage, cancel in CANCEL.items()}


class Loop:
    """Runs a model over data and tells `cbs` about it; `Learner` adds all that a person calls."""

    data: DataBunch
    model: nn.Module
    loss_func: Callable
    opt: Optimizer
    cbs: list[core.Callback]

    # where the loop is: for callbacks to read
    epoch = n_epoch = iter = train_iter = 0
    n_iter: int | None = None  # batches in this stage; None where the loader cannot know
    pct_train = 0.0  # batches done / batches in this fit
    epochs_done = 0  # over all fits; the randomness of an epoch follows from it
    training = False

    # the batch: for callbacks to read and change
    dl: Any = None
    xb: Any = ()
    yb: tuple = ()
    pred: Any = None
    loss: Any = None
    bs = 0

    def run_fit(self, n_epoch: int) -> None:
        """Train for `n_epoch` epochs with the optimizer as it is."""
        self.n_epoch, self.train_iter, self.pct_train = n_epoch, 0, 0.0
        self._handlers = core.handlers(self.cbs)
        self._begin(self.data.train_dl, training=True)
        self._run("fit", self._fit)

    def run_validation(self, dl: DeviceLoader) -> None:
        """One pass over `dl` without gradients, its events announced as a validation's."""
        self._handlers = core.handlers(self.cbs)
        self._begin(dl, training=False)
        self._run("validate", self._all_batches)

    def run_batch(self, xb: tuple) -> Any:
        """The model's output for one batch of inputs, outside any pass; its events are announced as a batch's."""
        self._handlers = core.handlers(self.cbs)
        self._begin((), training=False)
        with torch.no_grad():
            self._one_batch(xb, ())
        return self.pred

    def _fit(self) -> None:
        for self.epoch in range(self.n_epoch):
            self._run("epoch", self._epoch)

    def _epoch(self) -> None:
        self._begin(self.data.train_dl, training=True)
        self.data.train_dl.set_epoch(self.epochs_done)
        self._run("train", self._all_batches)
        self.epochs_done += 1
        if self.data.valid_dl is not None:
            self._begin(self.data.valid_dl, training=False)
            self._run("validate", self._all_batches)

    def _begin(self, dl: Any, training: bool) -> None:
        self.dl, self.training, self.iter = dl, training, 0
        self.n_iter = dl.n_batches if isinstance(dl, DeviceLoader) else None
        self.model.train(training)

    def _all_batches(self) -> None:
        with torch.set_grad_enabled(self.training):
            for self.iter, batch in enumerate(self.dl):
                self._one_batch(*split_batch(batch, self.data.n_inp))
                if self.training:
                    self.train_iter += 1
                    self.pct_train = self.train_iter / (self.n_epoch * self.n_iter) if self.n_iter else self.epoch / self.n_epoch

    def _one_batch(self, xb: tuple | dict, yb: tuple) -> None:
        self.xb, self.yb, self.bs = xb, yb, batch_size(xb)
        self._run("batch", self._batch)

    def _batch(self) -> None:
        self.pred = self.forward()
        self._emit("after_pred")
        if not self.yb and not self.training:
            return
        self.loss = self.compute_loss()
        self._emit("after_loss")
        if self.training:
            self._run("backward", self.backward)
            self._run("step", self._step)

    def _step(self) -> None:
        self.step()
        self.zero_grad()

    def _run(self, stage: str, work: Callable[[], None]) -> None:
        """Event, work, event; a stage that ends early – cancelled, interrupted, failed – says so first."""
        before, after, cancelled, cancel = STAGES[stage]
        try:
            self._emit(before)
            work()
        except BaseException as error:
            self._emit(cancelled)
            if not isinstance(error, cancel):
                raise
        self._emit(after)

    def _emit(self, event: str) -> None:
        for handler in self._handlers[event]:
            handler(self)

    # ---- the steps of one batch: override what is different for you

    def forward(self) -> Any:
        """The model's output for `self.xb`: positional inputs, or keyword arguments where the batch is a dict."""
        return self.model(**self.xb) if isinstance(self.xb, dict) else self.model(*self.xb)

    def compute_loss(self) -> Any:
        """The loss of `self.pred` against `self.yb`, a scalar tensor."""
        return self.loss_func(self.pred, *self.yb)

    def backward(self) -> None:
        self.loss.backward()

    def step(self) -> None:
        self.opt.step()

    def zero_grad(self) -> None:
        self.opt.zero_grad()


def as_loader(dl: Iterable, device: torch.device) -> DeviceLoader:
    """`dl` itself if it already delivers to a device, otherwise wrapped so that it does."""
    return dl if isinstance(dl, DeviceLoader) else DeviceLoader(dl, device)
