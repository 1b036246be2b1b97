"""The training loop, whole: fit → epochs → train and validate → batches → backward and step.

Every stage is announced to the callbacks before and after, and whatever the stage does can be cancelled by them. What
happens to one batch is one method per step – `forward, compute_loss, backward, step, zero_grad` – that a subclass may
override. Nothing here waits for the accelerator, but for one look at the targets when a pass begins.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..data.batch import batch_size, split_batch
from ..data.bunch import DataBunch
from ..data.loaders import DeviceLoader
from ..data.sharding import Shard
from ..data.workers import WORKER_LOST, is_of_lost_worker
from .stages import Stages, changed, failed_handler

__all__ = ["Loop", "as_loader"]

PLACE = ("dl", "training", "iter", "n_iter", "pct_train", "batch", "xb", "yb", "pred", "loss", "results", "system",
         "_heard", "_stages")  # fmt: skip


class Loop(Stages):
    """Runs a model over data and tells `cbs` about it; `Learner` adds all that a person calls."""

    # where the loop is: for callbacks to read
    fitting = training = False
    epoch = n_epoch = iter = train_iter = 0
    n_iter: int | None = None  # batches in this stage; None where the loader cannot know
    n_steps = 0  # of the optimizer, in this fit
    max_steps: int | None = None  # where this fit is to end, if its epochs do not end before
    pct_train = 0.0  # batches done / batches in this fit, or steps / max_steps where that is more
    epochs_begun = 0  # in all fits; the randomness of an epoch follows from its number
    fits_done = 0
    restore: Callable[[], None] | None = None  # sets what a fit that goes on in another process has had there
    first_epoch = first_batch = 0  # that it goes on with

    # the batch: for callbacks to read and change
    dl: Any = ()
    batch: Any = None  # as the loader gave it
    xb: Any = ()
    yb: tuple = ()
    pred: Any = None
    loss: Any = None
    precision: Callable[[], AbstractContextManager] = nullcontext  # what forward pass and loss run in
    run_through: Callable | None = None  # what a training step's forward pass is called by, such as DDP
    bs_elsewhere = 0  # samples of the batch that other processes have
    own_loss: Any = None  # of this process's samples, where `loss` is that of all
    keeps_step = False  # whether they have to have as many batches as each other in evaluation, too
    system: Any = None  # takes the place of forward pass and loss, for a model with a training step of its own

    def __init__(self, data: DataBunch, model: nn.Module, loss_func: Any):
        super().__init__()
        self.data, self.model, self.loss_func = data, model, loss_func
        self.opt: Any = None
        self.results: dict[str, float] = {}  # what the last validation gave, by name

    @property
    def bs(self) -> int:
        """The number of samples in the batch."""
        first = self.xb[0] if isinstance(self.xb, tuple) and self.xb else None
        return first.shape[0] if isinstance(first, Tensor) and first.ndim else batch_size(self.xb)

    @property
    def n_samples(self) -> int:
        """The number of samples in the batch of a training step, over all processes."""
        return self.bs + self.bs_elsewhere

    def run_fit(self, n_epoch: int) -> None:
        """Train for `n_epoch` epochs with the optimizer as it is."""
        if self.fitting:
            raise RuntimeError("fit was called within a fit. A callback may call validate or get_preds, but not train.")
        self.n_epoch, self.epoch, self.train_iter, self.n_steps, self.fitting = n_epoch, 0, 0, 0, True
        try:
            self._resolve_handlers()
            self._begin(self.data.train_dl, training=True)
            self.zero_grad()  # an interrupted fit may have left gradients
            with self.ranks.watched():
                self._run("fit", self._fit)
            self.fits_done += 1
        except Exception as error:
            _add_hints(error)
            raise
        finally:
            self.fitting, self.max_steps = False, None
            self.restore, self.first_epoch, self.first_batch = None, 0, 0
            self.dl, self.xb, self.yb, self.pred, self.loss = (), (), (), None, None  # and the memory that they hold
            self.batch = None

    def run_validation(self, dl: DeviceLoader) -> dict[str, float]:
        """One pass over `dl` without gradients, announced as a validation; its results. It may interrupt a fit."""
        with self._kept_place():
            self._begin(self.own_part(dl), training=False)
            self._run("validate", self._all_batches)
            return self.results

    def run_batch(self, xb: tuple) -> Any:
        """The model's output for one batch of inputs, outside any pass; its events are announced as a batch's."""
        with self._kept_place(), torch.no_grad():
            self._begin((), training=False)
            self.xb, self.yb, self.system = xb, (), None
            self._run("batch", self._batch)
            return self.pred

    def own_part(self, dl: DeviceLoader) -> DeviceLoader:
        """What this process has of a loader that is read for evaluation."""
        if self.ranks.n == 1 or dl.shard.n > 1:
            return dl
        seed = self.ranks.gather(torch.initial_seed() if dl.seed is None else dl.seed)[0]
        return dl.sharded(Shard(self.ranks.rank, self.ranks.n, even=self.keeps_step), seed)

    def run_forward(self, dl: DeviceLoader) -> None:
        """The forward pass alone over `dl`, without gradients, in silence: for layers that gather statistics there.

        Of a system that steps by itself it is the model's own.
        """
        with torch.no_grad(), changed(self, "system", self.system if self.automatic else None):
            for self.iter, self.batch in enumerate(dl):
                self.xb, self.yb = split_batch(self.batch, self.data.n_inp)
                self.forward()

    def _fit(self) -> None:
        if self.restore:
            self.restore()
            self.restore = self.restore if self.first_batch else None
        for epoch in range(self.first_epoch, self.n_epoch):
            self.epoch = epoch
            self._begin(self.data.train_dl, training=True)
            self._run("epoch", self._epoch)

    def _epoch(self) -> None:
        self.data.train_dl.set_epoch(self.epochs_begun)
        self.epochs_begun += 1
        self._run("train", self._train)
        if self.data.valid_dl is not None and (self.system is None or self.system.validates):
            self._begin(self.data.valid_dl, training=False)
            self._run("validate", self._all_batches)

    def _train(self) -> None:
        begin = self.first_batch
        if begin and self.restore:
            self.restore()
            self.restore, self.first_batch, self.dl.begin = None, 0, begin
            self._note_progress(begin)
        before = self.train_iter
        self._all_batches(begin)
        if self.train_iter == before and not begin:
            raise ValueError(
                f"The training loader gave no batch in epoch {self.epoch}. Can its data be read only once? A loader is "
                "read every epoch."
            )

    def _begin(self, dl: Any, training: bool) -> None:
        self.dl, self.training, self.iter, self.results = dl, training, 0, {}
        self.n_iter = dl.n_batches if isinstance(dl, DeviceLoader) else None
        if training:
            self._note_progress(0)
        self.model.train(training)

    def _note_progress(self, batches_done: int) -> None:
        """Set `pct_train`, where it can be known: to no more than 1, for a loader that understates its length."""
        if self.n_iter:
            by_epochs = (self.epoch * self.n_iter + batches_done) / (self.n_epoch * self.n_iter or 1)
        else:
            by_epochs = self.epoch / self.n_epoch if self.n_epoch else 0.0
        by_steps = self.n_steps / self.max_steps if self.max_steps else 0.0
        self.pct_train = min(1.0, max(by_epochs, by_steps))

    def _all_batches(self, begin: int = 0) -> None:
        n_inp = self.data.n_inp
        with torch.set_grad_enabled(self.training):
            for number, batch in enumerate(self.dl, begin):
                self.iter, self.batch = number, batch
                self.xb, self.yb = split_batch(batch, n_inp)
                if not self.training and getattr(self.dl, "spare", False):
                    self.forward()  # in step with other processes, and unheard
                    continue
                self._run("batch", self._batch)
                if self.training:
                    self.train_iter += 1
                    self._note_progress(number + 1)

    def _batch(self) -> None:
        with self.precision():
            self.pred = self.run_through(self.forward) if self.training and self.run_through else self.forward()
            for handler in self._heard["after_pred"]:
                handler(self)
            if not self.yb and not self.training and self.system is None:
                return
            self.loss = self.compute_loss()
            if self.loss is None:
                return
            for handler in self._heard["after_loss"]:
                handler(self)
        if self.training and self.automatic:
            self.run_backward(self.loss)
            if self.run_step():
                self.zero_grad()

    @property
    def automatic(self) -> bool:
        """Whether the loop goes backward and steps, and not the model by itself."""
        return self.system is None or self.system.automatic

    def run_backward(self, loss: Tensor, retain_graph: bool = False) -> None:
        """The backward pass of `loss`, announced. (A `backward` of one's own does not see `retain_graph`.)"""
        self.loss = loss
        self._run("backward", self._backward_retaining if retain_graph else self.backward)
        self.loss = loss  # callbacks may have scaled it for the backward pass

    def _backward_retaining(self) -> None:
        self.loss.backward(retain_graph=True)

    def run_step(self) -> bool:
        """A step of the optimizer, announced; whether it was taken."""
        return self._run("step", self._step)

    def _step(self) -> None:
        self.step()
        self.n_steps += 1

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
        """The model's output for `self.xb`: positional inputs, or keyword arguments where the batch is a dict.

        For a model with a training step, what that returns.
        """
        if self.system is not None:
            return self.system.forward()
        return self.model(**self.xb) if isinstance(self.xb, dict) else self.model(*self.xb)

    def compute_loss(self) -> Any:
        """`loss_func(pred, *yb)`, a scalar tensor; the first of each pass is checked, and a failure is explained.

        None where there is no loss: a model with a training step may return none.
        """
        if self.system is not None or self.loss_func is None:
            return self.system.loss() if self.system is not None else None
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


def _add_hints(error: Exception) -> None:
    """Say with an error where in the callbacks it came from, and what helps against a lack of memory."""
    notes = []
    if place := failed_handler(error.__traceback__):
        notes.append(f"This happened in the callback's {place}.")
    if isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error):
        notes.append(
            "The device's memory was too small for a batch. Take a smaller bs, with GradientAccumulation to step as "
            "seldom as before; to_bf16() or to_fp16(); or GradientCheckpointing. The learner can go on."
        )
    if isinstance(error, TypeError) and "forward() missing" in str(error):
        notes.append(
            "The model gets all values of a batch but the last, the target, as arguments: for forward(a, b) a loader "
            "yields (a, b, y), not ((a, b), y), or a dict with the arguments' names."
        )
    if is_of_lost_worker(error):
        notes.append(WORKER_LOST)
    for note in notes:
        if hasattr(error, "add_note"):  # from Python 3.11 on
            error.add_note(note)


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
