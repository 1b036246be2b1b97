"""Training, as a person calls it: fits with their schedules, freezing, precision, the learning rate finder."""

import math
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import nn

from ..callbacks.distributed import DistributedTraining
from ..callbacks.evaluate import Evaluate
from ..callbacks.gradients import GradientAccumulation
from ..callbacks.hyper import has_momentum, set_hyper
from ..callbacks.limits import LimitBatches, OverfitBatches, StopAfter, ValidateEvery
from ..callbacks.lr_find import LRFinder, valley
from ..callbacks.precision import ChannelsLast, MixedPrecision
from ..callbacks.progress import ProgressBar
from ..callbacks.recorder import Recorder
from ..callbacks.schedule import ParamScheduler, Schedule, combined_cos, flat_cos, sgdr
from . import distributed, weights
from .fsdp import ShardedTraining, shard_model
from .loop import Loop
from .metrics import as_metric, metric_name
from .optim import batchnorm_params, create_optimizer, layer_groups, leave_out, no_decay_params, per_group
from .random_state import kept_random_state
from .ranks import join
from .stages import Callbacks, as_list, changed

__all__ = ["Rate", "Trainer"]

T = TypeVar("T", bound="Trainer")
Rate = float | slice | Sequence[float]  # a learning rate: one for all layer groups, spread over them, or one each


class Trainer(Loop):
    """The part of a `Learner` that trains."""

    opt_func: Callable
    lr: Rate
    splitter: Callable
    wd: float | None
    moms: tuple[float, float, float]
    train_bn: bool
    wd_bn_bias: bool
    recorder: Recorder
    evaluate: Evaluate
    progress: ProgressBar

    # ---- fits

    @property
    def metrics(self) -> list:
        """What is measured in validation; assign a metric or several at any time."""
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Any) -> None:
        self._metrics = as_list(metrics)
        named = [(metric_name(metric), as_metric(metric)) for metric in self._metrics]
        names = ["epoch", "train_loss", "valid_loss", "time", *(name for name, _ in named)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two columns would be called {twice[0]!r}: give the metric another name=.")
        self.evaluate.metrics = dict(named)

    def fit(self, n_epoch: int, lr: Rate | None = None, wd: float | None = None, cbs: Callbacks = None, *,
            max_steps: int | None = None, n_batches: int | None = None, validate_every: int | None = None,
            overfit_batches: int | None = None, fast_dev_run: bool = False) -> None:  # fmt: skip
        """Train for `n_epoch` epochs at learning rate `lr` and weight decay `wd`, with `cbs`, for this fit only.

        May be called again and again: the optimizer keeps its state. Ctrl-C leaves a learner that can go on.

        `max_steps` ends it earlier (`StopAfter`), `n_batches` shortens each epoch's training and validation
        (`LimitBatches`), `validate_every` so many steps validates too (`ValidateEvery`), `overfit_batches` trains on so
        many batches alone (`OverfitBatches`): these callbacks go with any schedule. `fast_dev_run` tries everything out
        on one batch of each kind; nothing is kept of it.
        """
        self._check_fit(n_epoch)
        limits = [StopAfter(max_steps)] if max_steps is not None else []
        limits += [LimitBatches(n_batches, n_batches)] if n_batches is not None else []
        limits += [ValidateEvery(validate_every)] if validate_every is not None else []
        limits += [OverfitBatches(overfit_batches)] if overfit_batches is not None else []
        with self.trying_out() if fast_dev_run else nullcontext():
            self.prepare_optimizer(lr, wd)
            own = self.system.schedulers if self.system and self.automatic and lr is None else []
            cbs = [*own, *limits, *as_list(cbs)]
            if fast_dev_run:
                kept = [cb for cb in cbs if not getattr(cb, "real_runs_only", False)]
                n_epoch, cbs = min(1, n_epoch), [LimitBatches(1, 1), *kept]
            with self.added_cbs(cbs), self._attached_system():
                self.run_fit(n_epoch)

    def _check_fit(self, n_epoch: Any) -> None:
        if not isinstance(n_epoch, Integral) or n_epoch < 0:
            raise ValueError(f"n_epoch={n_epoch}: the number of epochs is a whole number, 0 or more.")
        if self.data.train_dl.n_batches == 0:
            n, bs = self.ranks.n, self.data.bs
            size = f" of {n * bs} items, {bs} for each of {n} processes" if n > 1 and bs else ""
            raise ValueError(f"There is no training batch: the training set is empty, or smaller than one batch{size}.")
        self.n_epoch = n_epoch
        self.metrics = self.metrics  # the list may have been changed in place

    def _attached_system(self) -> AbstractContextManager:
        """A context in which a model with a training step has what it expects of its surroundings."""
        return self.system.attached() if self.system else nullcontext()

    def fit_one_cycle(self, n_epoch: int, lr_max: Rate | None = None, div: float = 25.0, div_final: float = 1e5,
                      pct_start: float = 0.25, wd: float | None = None,
                      moms: tuple[float, float, float] | None = None, cbs: Callbacks = None) -> None:  # fmt: skip
        """Train with the one-cycle policy (Smith 2018, arXiv:1803.09820), both parts annealed by cosine.

        The learning rate goes from `lr_max/div` to `lr_max` over the first `pct_start` of all batches, then to
        `lr_max/div_final`; momentum goes through `moms` the same way, if the optimizer has one. A system that makes its
        optimizers itself keeps its peak rates and momentum, where none are given. Raises ValueError for a loader of
        unknown length.
        """
        own = self.system is not None and self.system.configures
        moms = self.moms if moms is None and not own else moms
        cycle = None if moms is None else {"mom": combined_cos(pct_start, *moms)}
        self._fit_scheduled(n_epoch, lr_max, lambda lr: combined_cos(pct_start, lr / div, lr, lr / div_final), wd, cbs,
                            cycle)  # fmt: skip

    def fit_flat_cos(self, n_epoch: int, lr: Rate | None = None, div_final: float = 1e5, pct_start: float = 0.75,
                     wd: float | None = None, cbs: Callbacks = None) -> None:  # fmt: skip
        """Train at `lr` for the first `pct_start` of all batches, then anneal it by cosine to `lr/div_final`.

        Raises ValueError for a loader of unknown length.
        """
        self._fit_scheduled(n_epoch, lr, lambda lr: flat_cos(pct_start, lr, lr / div_final), wd, cbs)

    def fit_sgdr(self, n_cycles: int, cycle_len: int, lr_max: Rate | None = None, cycle_mult: int = 2,
                 cbs: Callbacks = None, wd: float | None = None) -> None:  # fmt: skip
        """Train `n_cycles` cosines from `lr_max` to 0, of `cycle_len` epochs and then `cycle_mult` times as many.

        Stochastic gradient descent with warm restarts (Loshchilov & Hutter 2017, arXiv:1608.03983). Raises ValueError
        for a loader of unknown length.
        """
        n_epoch = sum(cycle_len * cycle_mult**i for i in range(n_cycles))
        self._fit_scheduled(n_epoch, lr_max, lambda lr: sgdr(n_cycles, cycle_mult, lr), wd, cbs)

    def _fit_scheduled(self, n_epoch: int, lr: Rate | None, sched: Callable[[float], Schedule], wd: float | None,
                       cbs: Callbacks, momentum: dict[str, Schedule] | None = None) -> None:  # fmt: skip
        """Train with `sched(rate)` for each layer group's learning rate, and a schedule of momentum if there is one."""
        self._check_fit(n_epoch)
        if self.data.train_dl.n_batches is None:
            raise ValueError(
                "A schedule needs the number of batches: give the loader a __len__, limit it with "
                "data.train_dl.limit = n, or use fit."
            )
        lrs = self.prepare_optimizer(lr, wd, "lr_max")
        scheds = {"lr": [sched(rate) for rate in lrs], **(momentum if momentum and has_momentum(self.opt) else {})}
        self.fit(n_epoch, lrs, wd, [ParamScheduler(scheds), *as_list(cbs)])

    def fine_tune(self, epochs: int, base_lr: float = 2e-3, freeze_epochs: int = 1, lr_mult: float = 100,
                  pct_start: float = 0.3, div: float = 5.0, cbs: Callbacks = None) -> None:  # fmt: skip
        """Fine-tune a pretrained model: first its last layer group alone, then all of them.

        That is `freeze_epochs` at `base_lr` (a tenth of it for the BatchNorms below), then `epochs` at half of it for
        the last group, down to `1/lr_mult` of that for the first.

        Raises ValueError where the model has one layer group: there is nothing to freeze.
        """
        if len(self.groups) < 2:
            raise ValueError(
                "fine_tune freezes all layer groups but the last, and this model has one. Give the Learner a splitter "
                "that returns several lists of parameters, or use fit_one_cycle."
            )
        self.freeze()
        self.fit_one_cycle(freeze_epochs, slice(base_lr), pct_start=0.99, cbs=cbs)
        self.unfreeze()
        self.fit_one_cycle(epochs, slice(base_lr / 2 / lr_mult, base_lr / 2), div, pct_start=pct_start, cbs=cbs)

    # ---- parameters and their optimizer

    @property
    def groups(self) -> list[list[nn.Parameter]]:
        """The layer groups. Where the model has got other parameters, they are made anew, and so will the optimizer."""
        params = list(self.model.parameters())
        if [id(p) for p in params] != [id(p) for p in self._params]:
            self._make_groups()
        return self._groups

    def _make_groups(self) -> None:
        """Part the parameters into layer groups, by which the optimizer will be made: unless a system makes its own."""
        self._params, self._groups = list(self.model.parameters()), layer_groups(self.splitter, self.model)
        self.opt = None
        if not (self.system and self.system.configures):
            leave_out(self.splitter, self.model, self._groups)

    def prepare_optimizer(self, lr: Rate | None = None, wd: float | None = None, name: str = "lr") -> list[float]:
        """Create the optimizer where there is none, move it with the model, and set learning rates and weight decay.

        A system's own optimizers keep their own, where none are given; each of their parameter groups is a layer group.
        Returns the learning rate of each layer group. Raises ValueError where no parameter requires gradients, and for
        an `lr` (errors call it `name`) that does not fit the layer groups or is negative; TypeError for no number.
        """
        self.model.to(self.data.device)
        if not any(p.requires_grad for group in self.groups for p in group):
            raise ValueError("There is nothing to train: no parameter requires gradients. learn.unfreeze() thaws them.")
        if self.opt is None and self.system:
            self.opt = self.system.configure()
        own = self.system.rates if self.system else []
        given = self.lr if lr is None else lr
        lrs = [*own] if own and lr is None else per_group(given, len(own) or len(self.groups), name)
        if self.opt is None:
            no_decay = set() if self.wd_bn_bias else no_decay_params(self.model)
            self.opt = create_optimizer(self.opt_func, self.groups, lrs, no_decay)
        self.opt.load_state_dict(self.opt.state_dict())  # its state follows the parameters to their device
        if lr is not None or not (self.system and self.system.schedulers):  # which have them in hand
            set_hyper(self.opt, "lr", lrs)
        wds = [wd, self.wd, None if own else self.opt.defaults.get("weight_decay")]
        if wds := [value for value in wds if value is not None]:
            set_hyper(self.opt, "wd", wds[:1])
        return lrs

    def freeze_to(self, n: int) -> None:
        """Train layer groups from `n` on (negative: counted from the end), in the others BatchNorm where `train_bn`."""
        if not -len(self.groups) <= n <= len(self.groups):
            raise ValueError(f"freeze_to({n}): this model has {len(self.groups)} layer groups.")
        cut = n if n >= 0 else len(self.groups) + n
        norms = batchnorm_params(self.model) if self.train_bn else set()
        for number, group in enumerate(self.groups):
            for p in group:
                p.requires_grad_(number >= cut or id(p) in norms)

    def freeze(self) -> None:
        """Train the last layer group alone."""
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Train all layer groups."""
        self.freeze_to(0)

    # ---- precision and speed

    def to_fp16(self: T) -> T:
        """Compute in float16 with a scaled loss, see `MixedPrecision`; returns the learner."""
        return self.to_fp32().add_cb(MixedPrecision(torch.float16))

    def to_bf16(self: T) -> T:
        """Compute in bfloat16, see `MixedPrecision`; returns the learner. Slow on a CPU without the instructions."""
        return self.to_fp32().add_cb(MixedPrecision(torch.bfloat16))

    def to_fp32(self: T) -> T:
        """Compute in float32 again; returns the learner."""
        self.cbs = [cb for cb in self.cbs if not isinstance(cb, MixedPrecision)]
        return self

    def to_channels_last(self: T) -> T:
        """Keep images with the channels innermost, see `ChannelsLast`; returns the learner."""
        return self if any(isinstance(cb, ChannelsLast) for cb in self.cbs) else self.add_cb(ChannelsLast())

    def compile(self: T, mode: str | None = None, dynamic: bool | None = None, fullgraph: bool = False,
                backend: str = "inductor") -> T:  # fmt: skip
        """Let `torch.compile` translate the model, at its first batch; returns the learner.

        Parameters and their names stay as they are, so files and layer groups do too. The arguments are torch's.
        """
        self.model.compile(mode=mode, dynamic=dynamic, fullgraph=fullgraph, backend=backend)
        return self

    # ---- several processes

    def to_distributed(self: T, sync_bn: bool = False, find_unused_parameters: bool = False,
                       timeout: float | None = None) -> T:  # fmt: skip
        """Train with all processes that were started together, each on its share of every batch; returns the learner.

        The same script runs by `python`, where this changes nothing, by `torchrun` on one machine or several, under
        SLURM's `srun`, in Ray Train and in `launch`. `bs` is that of a process, so a step sees `bs` times their number.
        Every rank gets the same losses, metrics and predictions, over all of the data; files and what is shown are rank
        0's alone. `sync_bn` lets BatchNorm use statistics over all processes (on GPUs). `find_unused_parameters` and
        what else happens: see `DistributedTraining`. After `timeout` seconds (30 minutes) a process that others wait
        for is taken for lost.

        Raises ValueError where the processes have different data: give seeds, or call `set_seed` first.
        """
        self._join(timeout, sync_bn)
        if self.ranks.n > 1:
            self.add_cb(DistributedTraining(find_unused_parameters))
        return self

    def to_fsdp(self: T, modules: Iterable[nn.Module] | None = None, timeout: float | None = None) -> T:
        """Train with all processes as `to_distributed` does, each with a part of the model; returns the learner.

        For models whose parameters and optimizer need more than one device holds; torch's FSDP2. The model is made
        whole, then parted. `modules` are put together one at a time, by default the blocks that
        `GradientCheckpointing` takes; what is outside of them stays together until the backward pass. Callbacks and
        optimizers of this library work on parts, but for `SAM`; of torch's optimizers Adafactor and Rprop do not.
        Evaluation and prediction need all ranks, too. `save` and `export` write whole tensors; a `Checkpoint` has a
        file of each rank's part, and can go on with another number of them. In one process nothing changes.

        Raises ValueError for `modules` that share parameters with the rest of the model, and for a parameter without
        axes.
        """
        self.keeps_step = True
        self._join(timeout)
        if self.ranks.n > 1:
            self.model.to(self.data.device)
            shard_model(self.model, modules, self.ranks, self.data.device)
            self.add_cb(ShardedTraining())
        return self

    def _join(self, timeout: float | None, sync_bn: bool = False) -> None:
        if any(isinstance(cb, DistributedTraining) for cb in self.cbs):
            raise ValueError("This learner is distributed already.")
        ranks = join(timeout)
        if ranks.n > 1:
            model = distributed.with_synced_batchnorm(self.model, self.data.device) if sync_bn else self.model
            part = distributed.own_part(self.data, ranks, self.keeps_step)
            distributed.agree_on(model.to(part.device), ranks)
            self.ranks, self.model, self.data = ranks, model, part

    # ---- trying out

    def lr_find(self, start_lr: float = 1e-7, end_lr: float = 10, num_it: int = 100, stop_div: bool = True,
                show_plot: bool = True, suggest_funcs: Callable | Sequence[Callable] = (valley,)) -> tuple:  # fmt: skip
        """Train with growing learning rates to see which are good (Smith 2015, arXiv:1506.01186); nothing is changed.

        Weights, optimizer and random state are put back. Returns a named tuple `SuggestedLRs` with one learning rate
        for each of `suggest_funcs`; `learn.recorder.plot_lr_find()` draws the curve again. Raises ValueError where
        fewer than 5 steps ran.
        """
        finder = LRFinder(start_lr, end_lr, num_it, stop_div)
        accumulates = any(isinstance(cb, GradientAccumulation) for cb in self.cbs)
        steps = 1 if accumulates else self.data.train_dl.n_batches or 1  # in an epoch, at least
        with self.trying_out(), self.no_logging():
            self.fit(math.ceil(num_it / steps), start_lr, cbs=finder)
        suggestions = finder.suggest(suggest_funcs)
        self.recorder.lr_finder = finder
        if show_plot and self.ranks.rank == 0:
            finder.plot()
        return namedtuple("SuggestedLRs", suggestions, rename=True)(*suggestions.values())  # type: ignore[misc]

    @contextmanager
    def trying_out(self) -> Iterator[None]:
        """Inside, nothing is recorded or decided; afterwards weights, optimizer and random state are as before."""
        begun, kept_out = (self.fits_done, self.epochs_begun), [cb for cb in self.cbs if cb.real_runs_only]
        try:
            with self.kept_state(), kept_random_state(self.data.device), self.without_cbs(*kept_out):
                yield
        finally:
            self.fits_done, self.epochs_begun = begun

    def kept_state(self) -> AbstractContextManager:
        """A context after which model and optimizer are as they were before it."""
        return weights.kept_state(self)

    def no_bar(self) -> AbstractContextManager:
        """A context without progress bars; each epoch still prints its line."""
        return changed(self.progress, "bar", False)

    def no_logging(self) -> AbstractContextManager:
        """A context in which no epoch prints a line; together with `no_bar` all is silent."""
        return changed(self.progress, "table", False)
