"""The Learner: model + data + loss + optimizer, and what a person does with them.

    learn = Learner(data, model, metrics=accuracy)
    learn.fit_one_cycle(5, 1e-2)

What happens in between is in `loop.py`, what it takes is written next to it: optimizers in `optim.py`, and so on.
"""

import math
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW

from ..callbacks.core import Callback, handlers
from ..callbacks.evaluate import Evaluate
from ..callbacks.lr_find import LRFinder, valley
from ..callbacks.progress import ProgressBar
from ..callbacks.recorder import Recorder
from ..callbacks.schedule import ParamScheduler, combined_cos, has_momentum, set_hyper
from ..data.bunch import DataBunch
from ..data.portable import Portable
from . import inference, losses, weights
from .export import export_learner
from .loop import Loop, as_loader
from .metrics import as_metric, metric_name
from .optim import batchnorm_params, create_optimizer, layer_groups, no_decay_params, per_group, trainable_params
from .random_state import kept_random_state
from .summary import Summary, summarize

__all__ = ["Learner"]

Rate = float | slice | Sequence[float]  # a learning rate: one for all layer groups, spread over them, or one each
Callbacks = Callback | Iterable[Callback] | None


class Learner(Loop):
    """Wraps data, a model, its loss and its optimizer; trains, evaluates, predicts, saves and exports.

    `loss_func` defaults to the loss of the data's target block. `opt_func` is a `torch.optim` class or `(params, lr) ->
    Optimizer`; its own defaults are kept. `lr` is the default of every fit (a number, a slice or a list over layer
    groups), `splitter(model)` parts the parameters into layer groups. `metrics`: functions `(pred, targ) -> scalar`, or
    objects with `update, compute, reset`. `wd` replaces the optimizer's weight decay, which spares biases and
    normalisation layers if `wd_bn_bias=False`. `moms` are the momenta of `fit_one_cycle`. With `train_bn` BatchNorm
    layers train in frozen groups too. `model_spec` describes how to build the model again from an exported file;
    recipes such as `vision_learner` give it.
    """

    def __init__(self, data: DataBunch, model: nn.Module, loss_func: Callable | None = None, opt_func: Callable = AdamW,
                 lr: Rate = 1e-3, splitter: Callable = trainable_params, cbs: Callbacks = None, metrics: Any = None,
                 path: str | Path | None = None, model_dir: str | Path = "models", wd: float | None = None,
                 moms: tuple[float, float, float] = (0.95, 0.85, 0.95), train_bn: bool = True, wd_bn_bias: bool = True,
                 model_spec: Portable | None = None):  # fmt: skip
        _check_arguments(model, loss_func, opt_func)
        self.model_spec = model_spec
        super().__init__(data, model, loss_func)
        self.model.to(data.device)
        self.loss_func = loss_func if loss_func is not None else _default_loss(data)
        self.opt_func, self.lr, self.splitter, self.wd, self.moms = opt_func, lr, splitter, wd, moms
        self.train_bn, self.wd_bn_bias = train_bn, wd_bn_bias
        self.path, self.model_dir = Path(path) if path is not None else data.path, Path(model_dir)
        self._params, self._groups = list(model.parameters()), layer_groups(splitter, model)
        self.recorder, self.evaluate, self.progress = Recorder(), Evaluate({}), ProgressBar()
        self.cbs = [self.evaluate, self.recorder, self.progress]
        self.metrics = metrics
        self.add_cbs(cbs)

    def __repr__(self) -> str:
        return (f"Learner({type(self.model).__name__}, {self.data!r}, loss={self.loss_func!r}, "
                f"metrics={list(self.evaluate.metrics)})")  # fmt: skip

    @property
    def data(self) -> DataBunch:
        """The data; assign other data at any time. A recipe's model has it prepared, say normalised, as it needs."""
        return self._data

    @data.setter
    def data(self, data: DataBunch) -> None:
        if not isinstance(data, DataBunch):
            raise TypeError(f"data is {_kind(data)}, not a DataBunch: wrap loaders, DataBunch(train_dl, valid_dl).")
        prepare = getattr(self.model_spec, "prepare", None)
        self._data = prepare(data) if prepare else data

    @property
    def metrics(self) -> list:
        """What is measured in validation; assign a metric or several at any time."""
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Any) -> None:
        self._metrics = _as_list(metrics)
        named = [(metric_name(metric), as_metric(metric)) for metric in self._metrics]
        names = ["epoch", "train_loss", "valid_loss", "time", *(name for name, _ in named)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two columns would be called {twice[0]!r}: give the metric another name=.")
        self.evaluate.metrics = dict(named)

    @property
    def groups(self) -> list[list[nn.Parameter]]:
        """The layer groups. Where the model has got other parameters, they are made anew, and so will the optimizer."""
        params = list(self.model.parameters())
        if [id(p) for p in params] != [id(p) for p in self._params]:
            self._params, self._groups, self.opt = params, layer_groups(self.splitter, self.model), None
        return self._groups

    # ---- callbacks

    def add_cb(self, cb: Callback) -> "Learner":
        """Add one callback; returns the learner. Raises TypeError for a class or another object."""
        if not isinstance(cb, Callback):
            hint = f"pass an instance, {cb.__name__}()" if isinstance(cb, type) else "derive your class from Callback"
            raise TypeError(f"{cb!r} is not a callback: {hint}.")
        self.cbs.append(cb)
        for handler in handlers([cb])["after_create"]:
            handler(self)
        return self

    def add_cbs(self, cbs: Callbacks) -> "Learner":
        """Add one callback or several."""
        for cb in _as_list(cbs):
            self.add_cb(cb)
        return self

    def remove_cb(self, cb: Callback | type[Callback]) -> "Learner":
        """Remove a callback, or all of a class. Raises ValueError where there is none."""
        kept = [other for other in self.cbs if not (isinstance(other, cb) if isinstance(cb, type) else other is cb)]
        if len(kept) == len(self.cbs):
            raise ValueError(f"this learner has no callback {cb!r}: it has {self.cbs}.")
        self.cbs = kept
        return self

    @contextmanager
    def added_cbs(self, cbs: Callbacks) -> Iterator["Learner"]:
        """Inside, the learner has these callbacks too."""
        added = _as_list(cbs)
        try:
            yield self.add_cbs(added)
        finally:
            self.cbs = [cb for cb in self.cbs if not any(cb is other for other in added)]

    @contextmanager
    def without_cbs(self, *cbs: Callback) -> Iterator["Learner"]:
        """Inside, the learner lacks these callbacks."""
        before, self.cbs = self.cbs, [cb for cb in self.cbs if not any(cb is other for other in cbs)]
        try:
            yield self
        finally:
            self.cbs = before

    def no_bar(self) -> AbstractContextManager:
        """A context without progress bars; each epoch still prints its line."""
        return _changed(self.progress, "bar", False)

    def no_logging(self) -> AbstractContextManager:
        """A context in which no epoch prints a line; together with `no_bar` all is silent."""
        return _changed(self.progress, "table", False)

    # ---- training

    def fit(self, n_epoch: int, lr: Rate | None = None, wd: float | None = None, cbs: Callbacks = None) -> None:
        """Train for `n_epoch` epochs at learning rate `lr` and weight decay `wd`, with `cbs`, for this fit only.

        May be called again and again: the optimizer keeps its state. Ctrl-C leaves a learner that can go on.
        """
        if not isinstance(n_epoch, Integral) or n_epoch < 0:
            raise ValueError(f"n_epoch={n_epoch}: the number of epochs is a whole number, 0 or more.")
        if self.data.train_dl.n_batches == 0:
            raise ValueError("There is no training batch: the training set is empty, or smaller than one batch.")
        self.metrics = self.metrics  # the list may have been changed in place
        self.prepare_optimizer(lr, wd)
        with self.added_cbs(cbs):
            self.run_fit(n_epoch)

    def prepare_optimizer(self, lr: Rate | None = None, wd: float | None = None) -> None:
        """Create the optimizer where there is none, move it with the model, and set learning rates and weight decay.

        Raises ValueError where no parameter requires gradients.
        """
        lrs = per_group(self.lr if lr is None else lr, len(self.groups))
        self.model.to(self.data.device)
        if not any(p.requires_grad for group in self.groups for p in group):
            raise ValueError("There is nothing to train: no parameter requires gradients. learn.unfreeze() thaws them.")
        if self.opt is None:
            no_decay = set() if self.wd_bn_bias else no_decay_params(self.model)
            self.opt = create_optimizer(self.opt_func, self.groups, lrs, no_decay)
        self.opt.load_state_dict(self.opt.state_dict())  # its state follows the parameters to their device
        set_hyper(self.opt, "lr", lrs)
        wds = [value for value in (wd, self.wd, self.opt.defaults.get("weight_decay")) if value is not None]
        if wds:
            set_hyper(self.opt, "wd", wds[:1])

    def fit_one_cycle(self, n_epoch: int, lr_max: Rate | None = None, div: float = 25.0, div_final: float = 1e5,
                      pct_start: float = 0.25, wd: float | None = None,
                      moms: tuple[float, float, float] | None = None, cbs: Callbacks = None) -> None:  # fmt: skip
        """Train with the one-cycle policy (Smith 2018, arXiv:1803.09820), both parts annealed by cosine.

        The learning rate goes from `lr_max/div` to `lr_max` over the first `pct_start` of all batches, then to
        `lr_max/div_final`; momentum goes through `moms` the same way, if the optimizer has one. Raises ValueError for a
        loader of unknown length.
        """
        if self.data.train_dl.n_batches is None:
            raise ValueError("fit_one_cycle needs the number of batches: give the loader a __len__, or use fit.")
        lrs = per_group(self.lr if lr_max is None else lr_max, len(self.groups), "lr_max")
        scheds: dict[str, Any] = {"lr": [combined_cos(pct_start, lr / div, lr, lr / div_final) for lr in lrs]}
        self.prepare_optimizer(lrs, wd)
        if has_momentum(self.opt):
            scheds["mom"] = combined_cos(pct_start, *(self.moms if moms is None else moms))
        self.fit(n_epoch, lrs, wd, [ParamScheduler(scheds), *_as_list(cbs)])

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

    def lr_find(self, start_lr: float = 1e-7, end_lr: float = 10, num_it: int = 100, stop_div: bool = True,
                show_plot: bool = True, suggest_funcs: Callable | Sequence[Callable] = (valley,)) -> tuple:  # fmt: skip
        """Train with growing learning rates to see which are good (Smith 2015, arXiv:1506.01186); nothing is changed.

        Weights, optimizer and random state are put back. Returns a named tuple `SuggestedLRs` with one learning rate
        for each of `suggest_funcs`; `learn.recorder.plot_lr_find()` draws the curve again. Raises ValueError where
        fewer than 5 steps ran.
        """
        finder, begun = LRFinder(start_lr, end_lr, num_it, stop_div), self.epochs_begun
        n_epoch = math.ceil(num_it / (self.data.train_dl.n_batches or 1))
        silent = self.without_cbs(self.recorder, self.evaluate)
        try:
            with self.kept_state(), kept_random_state(self.data.device), self.no_logging(), silent:
                self.fit(n_epoch, start_lr, cbs=finder)
        finally:
            self.epochs_begun = begun
        suggestions = finder.suggest(suggest_funcs)
        self.recorder.lr_finder = finder
        if show_plot:
            finder.plot()
        return namedtuple("SuggestedLRs", suggestions, rename=True)(*suggestions.values())  # type: ignore[misc]

    def kept_state(self) -> AbstractContextManager:
        """A context after which model and optimizer are as they were before it."""
        return weights.kept_state(self)

    # ---- evaluating and predicting

    def validate(self, dl: Iterable | None = None) -> dict[str, float]:
        """Loss and metrics by name over the validation set, or over `dl`: `{'valid_loss': …, 'accuracy': …}`."""
        dl = self.data.valid_dl if dl is None else dl
        if dl is None:
            raise ValueError("There is no validation set: pass a loader, validate(dl=…).")
        self.metrics = self.metrics  # the list may have been changed in place
        self.model.to(self.data.device)
        results = self.run_validation(as_loader(dl, self.data.device))
        if not results and self.evaluate in self.cbs:
            raise ValueError("There was nothing to validate on: no batch with targets came.")
        return results

    def get_preds(self, split: Literal["valid", "train"] = "valid", dl: Iterable | None = None,
                  with_input: bool = False, with_loss: bool = False, with_decoded: bool = False,
                  act: Callable | None = None, reorder: bool = True) -> tuple:  # fmt: skip
        """`([inputs,] preds, targs[, decoded][, losses])` on the CPU, in the order of the dataset.

        `preds` go through `act`, by default the loss's activation (probabilities for cross-entropy). `split` chooses
        the set, or `dl` any loader (`data.test_dl(items)`); targets are None where it has none. `with_decoded` adds
        what the loss makes of the raw output (class indices), `with_loss` a loss per item. `reorder=False` keeps the
        loader's order.
        """
        return inference.get_preds(self, split, dl, with_input, with_loss, with_decoded, act, reorder)

    def predict(self, item: Any) -> inference.Prediction:
        """`(decoded, index, probs)` for one raw item, such as a path: what it is, as what number or mask, and how sure.

        `probs` are the activated outputs `(n_out,)`; everything is on the CPU.
        """
        return inference.predict(self, item)

    def batch_predict(self, items: Sequence) -> list[inference.Prediction]:
        """`predict` for many raw items, in batches."""
        return inference.batch_predict(self, items)

    def show_results(self, max_n: int = 9) -> None:
        """Show validation samples with their targets and predictions, taken from all over the validation set."""
        inference.show_results(self, max_n)

    def loss_not_reduced(self):
        """A context in which `loss_func` gives a loss per target instead of their mean."""
        return inference.loss_not_reduced(self)

    def summary(self) -> Summary:
        """A table of layers: output shape, parameters, whether they train; then loss, optimizer and callbacks."""
        return summarize(self)

    # ---- files

    def save(self, name: str | Path, with_opt: bool = True) -> Path:
        """Write weights, and with `with_opt` the optimizer's state, to `path/model_dir/name.pth`; returns the file."""
        return weights.save(self, self.weights_file(name), with_opt)

    def load(self, name: str | Path, with_opt: bool = True) -> "Learner":
        """Read what `save` wrote, or a plain `state_dict` file. Returns the learner.

        Raises FileNotFoundError, FileError for a damaged or unsafe file, ValueError for another architecture's weights.
        """
        return weights.load(self, self.weights_file(name), with_opt)

    def weights_file(self, name: str | Path) -> Path:
        """Where `save(name)` writes."""
        file = self.path / self.model_dir / name
        return file if file.suffix == ".pth" else file.with_name(f"{file.name}.pth")

    def export(self, fname: str | Path = "export.pt") -> Path:
        """Write all that `load_learner` needs, weights and a description of model and data, to `path/fname`."""
        return export_learner(self, self.path / fname)


def _check_arguments(model: Any, loss_func: Any, opt_func: Any) -> None:
    """Raise TypeError for an argument of the wrong kind, and say what to pass."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {_kind(model)}, not a torch.nn.Module: pass an instance, not a class or a function.")
    if isinstance(loss_func, type):
        raise TypeError(f"loss_func is {_kind(loss_func)}: pass an instance, {loss_func.__name__}().")
    if loss_func is not None and not callable(loss_func):
        raise TypeError(f"loss_func is {_kind(loss_func)}: pass a function (pred, targ) -> scalar tensor, or a module.")
    if not callable(opt_func):
        raise TypeError(f"opt_func is {_kind(opt_func)}: pass a torch.optim class, or (params, lr) -> Optimizer.")


def _kind(obj: Any) -> str:
    return f"the class {obj.__name__}" if isinstance(obj, type) else type(obj).__name__


def _default_loss(data: DataBunch) -> Callable:
    """The loss that the data's target block names."""
    names = [block.loss for block in data.targets if block.loss is not None]
    if len(names) != 1:
        raise ValueError(
            f"The data names {len(names) or 'no'} losses, so which one to use? Pass loss_func=, for example "
            "CrossEntropyLoss() or MSELoss()."
        )
    return getattr(losses, names[0])() if isinstance(names[0], str) else names[0]


def _as_list(values: Any) -> list:
    return [] if values is None else list(values) if isinstance(values, (list, tuple)) else [values]


@contextmanager
def _changed(obj: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(obj, name)
    setattr(obj, name, value)
    try:
        yield
    finally:
        setattr(obj, name, before)
