"""The training loop, whole: fit → epochs → train and validate → batches → backward and step.

Every stage is announced to the callbacks before and after, and whatever the stage does can be cancelled by them. What
happens to one batch is one method per step – `forward, compute_loss, backward, step, zero_grad` – that a subclass may
override. Nothing here waits for the accelerator, but for one look at the targets when a pass begins.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..callbacks import core
from ..data.batch import batch_size, split_batch
from ..data.bunch import DataBunch
from ..data.loaders import DeviceLoader

__all__ = ["Loop", "as_loader"]

CANCEL = {
    "fit": core.CancelFit,
    "epoch": core.CancelEpoch,
    "train": core.CancelTrain,
    "validate": core.CancelValidate,
    "batch": core.CancelBatch,
    "backward": core.CancelBackward,
    "step": core.CancelStep,
}
PLACE = ("dl", "training", "iter", "n_iter", "pct_train", "xb", "yb", "pred", "loss", "results", "_heard", "_stages")


class Loop:
    """Runs a model over data and tells `cbs` about it; `Learner` adds all that a person calls."""

    # where the loop is: for callbacks to read
    fitting = training = False
    epoch = n_epoch = iter = train_iter = 0
    n_iter: int | None = None  # batches in this stage; None where the loader cannot know
    pct_train = 0.0  # batches done / batches in this fit
    epochs_begun = 0  # in all fits; the randomness of an epoch follows from its number

    # the batch: for callbacks to read and change
    dl: Any = ()
    xb: Any = ()
    yb: tuple = ()
    pred: Any = None
    loss: Any = None

    def __init__(self, data: DataBunch, model: nn.Module, loss_func: Any):
        self.data, self.model, self.loss_func = data, model, loss_func
        self.opt: Any = None
        self.cbs: list[core.Callback] = []
        self.results: dict[str, float] = {}  # what the last validation gave, by name
        self._resolve_handlers()

    @property
    def bs(self) -> int:
        """The number of samples in the batch."""
        first = self.xb[0] if isinstance(self.xb, tuple) and self.xb else None
        return first.shape[0] if isinstance(first, Tensor) and first.ndim else batch_size(self.xb)

    def run_fit(self, n_epoch: int) -> None:
        """Train for `n_epoch` epochs with the optimizer as it is."""
        if self.fitting:
            raise RuntimeError("fit was called within a fit. A callback may call validate or get_preds, but not train.")
        self.n_epoch, self.epoch, self.train_iter, self.fitting = n_epoch, 0, 0, True
        try:
            self._resolve_handlers()
            self._begin(self.data.train_dl, training=True)
            self.zero_grad()  # an interrupted fit may have left gradients
            self._run("fit", self._fit)
        finally:
            self.fitting = False
            self.dl, self.xb, self.yb, self.pred, self.loss = (), (), (), None, None  # and the memory that they hold

    def run_validation(self, dl: DeviceLoader) -> dict[str, float]:
        """One pass over `dl` without gradients, announced as a validation; its results. It may interrupt a fit."""
        with self._kept_place():
            self._begin(dl, training=False)
            self._run("validate", self._all_batches)
            return self.results

    def run_batch(self, xb: tuple) -> Any:
        """The model's output for one batch of inputs, outside any pass; its events are announced as a batch's."""
        with self._kept_place(), torch.no_grad():
            self._begin((), training=False)
            self.xb, self.yb = xb, ()
            self._run("batch", self._batch)
            return self.pred

    def _fit(self) -> None:
        for epoch in range(self.n_epoch):
            self.epoch = epoch
            self._begin(self.data.train_dl, training=True)
            self._run("epoch", self._epoch)

    def _epoch(self) -> None:
        self.data.train_dl.set_epoch(self.epochs_begun)
        self.epochs_begun += 1
        self._run("train", self._train)
        if self.data.valid_dl is not None:
            self._begin(self.data.valid_dl, training=False)
            self._run("validate", self._all_batches)

    def _train(self) -> None:
        before = self.train_iter
        self._all_batches()
        if self.train_iter == before:
            raise ValueError(
                f"The training loader gave no batch in epoch {self.epoch}. Can its data be read only once? A loader is "
                "read every epoch."
            )

    def _begin(self, dl: Any, training: bool) -> None:
        self.dl, self.training, self.iter, self.results = dl, training, 0, {}
        self.n_iter = dl.n_batches if isinstance(dl, DeviceLoader) else None
        if training:
            self.pct_train = self.epoch / self.n_epoch if self.n_epoch else 0.0
        self.model.train(training)

    def _all_batches(self) -> None:
        n_inp, n_iter = self.data.n_inp, self.n_iter
        with torch.set_grad_enabled(self.training):
            for number, batch in enumerate(self.dl):
                self.iter = number
                self.xb, self.yb = split_batch(batch, n_inp)
                self._run("batch", self._batch)
                if self.training:
                    self.train_iter += 1
                    if n_iter:  # and no more than 1, for a loader that understates its length
                        self.pct_train = min(1.0, (self.epoch * n_iter + number + 1) / (self.n_epoch * n_iter))

    def _batch(self) -> None:
        self.pred = self.forward()
        for handler in self._heard["after_pred"]:
            handler(self)
        if not self.yb and not self.training:
            return
        self.loss = self.compute_loss()
        for handler in self._heard["after_loss"]:
            handler(self)
        if self.training:
            self._run("backward", self.backward)
            if self._run("step", self.step):
                self.zero_grad()

    def _resolve_handlers(self) -> None:
        """Find out once who hears what, so that an event that nobody hears costs nothing."""
        heard = self._heard = core.handlers(self.cbs)
        self._stages = {
            stage: (heard[f"before_{stage}"], heard[f"after_{stage}"], heard[f"after_cancel_{stage}"], cancel)
            for stage, cancel in CANCEL.items()
        }

    def _run(self, stage: str, work: Callable[[], None]) -> bool:
        """Event, work, event; a stage that ends early – cancelled, interrupted, failed – says so first.

        Returns whether the work was done to its end.
        """
        before, after, after_cancel, cancel = self._stages[stage]
        complete = False
        try:
            for handler in before:
                handler(self)
            work()
            complete = True
        except BaseException as error:
            for handler in after_cancel:
                handler(self)
            if not isinstance(error, cancel):
                raise
        for handler in after:
            handler(self)
        return complete

    @contextmanager
    def _kept_place(self) -> Iterator[None]:
        """Inside, another pass may run, heard by the callbacks of now; afterwards the loop is where it was."""
        before = {name: getattr(self, name) for name in PLACE}
        training = {module: module.training for module in self.model.modules()}
        self._resolve_handlers()
        try:
            yield
        finally:
            vars(self).update(before)
            for module, was_training in training.items():
                module.training = was_training

    # ---- the steps of one batch: override what is different for you

    def forward(self) -> Any:
        """The model's output for `self.xb`: positional inputs, or keyword arguments where the batch is a dict."""
        return self.model(**self.xb) if isinstance(self.xb, dict) else self.model(*self.xb)

    def compute_loss(self) -> Any:
        """`loss_func(pred, *yb)`, a scalar tensor; the first of each pass is checked, and a failure is explained."""
        if self.iter == 0:
            self._check_targets()
        try:
            loss = self.loss_func(self.pred, *self.yb)
        except (IndexError, RuntimeError, TypeError, ValueError):
            self._check_targets()
            raise
        if self.iter == 0 and self.training:
            _check_loss(loss)
        return loss

    def _check_targets(self) -> None:
        """Raise ValueError where the batch has no targets, or ones that do not fit the loss."""
        if not self.yb:
            raise ValueError("The batch has no target to compare with: a training loader yields (inputs, targets).")
        if check := getattr(self.loss_func, "check", None):
            check(self.pred, *self.yb)

    def backward(self) -> None:
        self.loss.backward()

    def step(self) -> None:
        self.opt.step()

    def zero_grad(self) -> None:
        """Drop all gradients; done here, since `Optimizer.zero_grad` takes ten times as long for the same."""
        if type(self.opt).zero_grad is not Optimizer.zero_grad:  # it has something of its own to do
            return self.opt.zero_grad()
        for group in self.opt.param_groups:
            for param in group["params"]:
                param.grad = None


def _check_loss(loss: Any) -> None:
    """Raise ValueError for a loss that cannot be trained with."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss_func returned {what}, not one number: average it, as reduction='mean' does.")
    if not loss.requires_grad:
        raise ValueError("The loss does not depend on any parameter that trains: is it computed from the predictions?")


def as_loader(dl: Iterable, device: torch.device) -> DeviceLoader:
    """`dl` itself if it already delivers to a device, otherwise wrapped so that it does."""
    return dl if isinstance(dl, DeviceLoader) else DeviceLoader(dl, device)
