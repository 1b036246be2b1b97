"""Systems: models that say themselves what a training step is, by the convention of Lightning's modules.

    class Autoencoder(nn.Module):
        def training_step(self, batch, batch_idx):
            x, _ = batch
            loss = F.mse_loss(self(x), x)
            self.log("reconstruction", loss)
            return loss

    Learner(data, Autoencoder()).fit_one_cycle(5)

A system may also have `validation_step(batch, batch_idx)`, `configure_optimizers()`, the hooks of `system_hooks.py`,
and set `automatic_optimization = False` to step its optimizers by itself. While it trains it is given what such a
module expects: `self.log, log_dict, optimizers, lr_schedulers, manual_backward, toggle_optimizer, untoggle_optimizer`
and a `self.trainer` to read from. It derives from `nn.Module`, or from `LightningModule`; nothing of Lightning is
imported here. docs/systems.md shows how systems of several models work.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..callbacks.core import Callback
from ..callbacks.evaluate import asking
from ..callbacks.plain import plain
from ..callbacks.torch_scheduler import TorchScheduler
from ..data.batch import join_batch
from .ranks import Ranks
from .system_hooks import TrainerView
from .system_optimizers import SteppedByHand, configured_optimizers

__all__ = ["System", "is_system"]

LENT = ("log", "log_dict", "optimizers", "lr_schedulers", "manual_backward", "toggle_optimizer",
        "untoggle_optimizer")  # to the model, by these names  # fmt: skip


def is_system(model: Any) -> bool:
    """Whether a model has a training step of its own."""
    return callable(getattr(model, "training_step", None))


class System(Callback):
    """Runs a system's steps in place of forward pass and loss, and collects what it logs.

    Logged values are averaged by sample over a pass, and end up in the epoch's results under their names.
    """

    order = -12  # after the validation's results are there, before they are recorded

    def __init__(self, learn: Any):
        self.learn = learn
        self.schedulers: list[TorchScheduler] = []
        self.rates: list[float] = []  # the learning rates that were configured, one per layer group
        self.toggled: dict[nn.Parameter, bool] = {}  # by parameter, whether it requires gradients otherwise
        self.logged: dict[str, Any] = {}  # by name: a metric object, or (total, samples)
        self.of_training: dict[str, Any] = {}

    # ---- what it does

    def forward(self) -> Any:
        """What `training_step` or `validation_step` returns for the batch."""
        learn = self.learn
        learn.loss = None
        step = learn.model.training_step if learn.training else learn.model.validation_step
        return step(join_batch(learn.xb, learn.yb, learn.batch), learn.iter)

    def loss(self) -> Tensor | None:
        """What the step returned, or its "loss"; else the loss of the last `manual_backward`; else None."""
        output = self.learn.pred
        loss = output.get("loss") if isinstance(output, dict) else output
        return loss if isinstance(loss, Tensor) and loss.numel() == 1 else self.learn.loss

    @property
    def automatic(self) -> bool:
        """Whether the loop goes backward and steps: a system may do that by itself."""
        return getattr(self.learn.model, "automatic_optimization", True)

    @property
    def validates(self) -> bool:
        return callable(getattr(self.learn.model, "validation_step", None))

    # ---- its optimizers

    @property
    def configures(self) -> bool:
        """Whether it makes its optimizers itself; what it has set there stays, unless something else is given."""
        return callable(getattr(self.learn.model, "configure_optimizers", None))

    def configure(self) -> Any:
        """The optimizer of `configure_optimizers`, or one that stands for several; None where it has none.

        Each of its parameter groups is a layer group, unless the model has numbered them (`layer_group`).
        """
        self.schedulers, self.rates = [], []
        if not self.configures:
            return None
        with self.attached():
            opt, self.schedulers = configured_optimizers(self.learn.model.configure_optimizers())
        groups = opt.param_groups if opt is not None else []
        for number, group in enumerate(groups):
            group.setdefault("layer_group", number)
        rates = {group["layer_group"]: group["lr"] for group in groups}
        self.rates = [rates[number] for number in sorted(rates)]
        return opt

    # ---- what a fit that resumes needs to know

    def state_dict(self) -> dict[str, Any]:
        of_training = self.logged if self.learn.training else self.of_training
        logged = {name: self._state_of(name, value) for name, value in of_training.items()}
        return {"schedulers": [cb.state_dict() for cb in self.schedulers], "logged": logged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for cb, own in zip(self.schedulers, state["schedulers"], strict=True):
            cb.load_state_dict(own)
        self.logged = {
            name: self._loaded_metric(value) if isinstance(value, dict) else value
            for name, value in state["logged"].items()
        }

    def _state_of(self, name: str, value: Any) -> Any:
        """A logged value as it is; of a metric and its parts where they are in the model, and what they have seen."""
        if isinstance(value, tuple):
            return plain(value, name)
        paths = [path for path, module in self.learn.model.named_modules() if module is value]
        if not paths or not hasattr(value, "metric_state"):
            raise TypeError(
                f"self.log({name!r}, {type(value).__name__}()): what this metric has seen cannot be saved within an "
                "epoch. Take one of torchmetrics that is an attribute of the model, or save after epochs only."
            )
        parts = {path: part for path, part in value.named_modules(prefix=paths[0]) if hasattr(part, "metric_state")}
        return {path: (plain(part.metric_state, path), part._update_count) for path, part in parts.items()}

    def _loaded_metric(self, state: Mapping[str, Any]) -> Any:
        parts: list[Any] = [self.learn.model.get_submodule(path) for path in state]
        for part, (values, n_updates) in zip(parts, state.values(), strict=True):
            for name, value in plain(values, name="metric_state").items():
                setattr(part, name, value)
            part._update_count, part._computed = n_updates, None
        return parts[0]

    # ---- lent to the model

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, the model has the methods of `LENT` and a `trainer`."""
        model = self.learn.model
        if "log" in vars(model):  # attached already: a validation within a fit
            yield
            return
        trainer = TrainerView(self.learn)
        try:
            vars(model).update({name: getattr(self, name) for name in LENT})
            model.trainer = trainer  # type: ignore[assignment]
            yield
        finally:
            self.untoggle_optimizer(None)  # after a step that failed
            for name in LENT:
                vars(model).pop(name, None)
            _forget_trainer(model)

    def log(self, name: str, value: Any, prog_bar: bool = False, logger: bool | None = None,
            on_step: bool | None = None, on_epoch: bool | None = None, reduce_fx: Any = "mean",
            enable_graph: bool = False, sync_dist: bool = False, sync_dist_group: Any = None,
            add_dataloader_idx: bool = True, batch_size: int | None = None, metric_attribute: str | None = None,
            rank_zero_only: bool = False) -> None:  # fmt: skip
        """Note `value`, a number or a torchmetrics object: its mean over the pass becomes a column of the history.

        Means are by sample, of the batch or of `batch_size`. The other arguments are there because Lightning has them:
        they say where and when it would show a value. Raises ValueError for another `reduce_fx` than the mean.
        """
        if reduce_fx not in ("mean", torch.mean):
            raise ValueError(
                f"self.log({name!r}, reduce_fx={reduce_fx!r}): what is logged is averaged. For another summary log a "
                "torchmetrics object, such as SumMetric()."
            )
        if hasattr(value, "compute"):
            self.logged[name] = value
            return
        if getattr(self.learn.dl, "spare", False):  # a batch that another process has counted
            return
        value = value.detach().float() if isinstance(value, Tensor) else float(value)
        total, n = self.logged.get(name, (0.0, 0))
        n_now = self.learn.bs if batch_size is None else batch_size
        self.logged[name] = (total + value * n_now, n + n_now)

    def log_dict(self, dictionary: Mapping[str, Any], prog_bar: bool = False, logger: bool | None = None,
                 on_step: bool | None = None, on_epoch: bool | None = None, reduce_fx: Any = "mean",
                 enable_graph: bool = False, sync_dist: bool = False, sync_dist_group: Any = None,
                 add_dataloader_idx: bool = True, batch_size: int | None = None,
                 rank_zero_only: bool = False) -> None:  # fmt: skip
        """`log` each item of a mapping."""
        for name, value in dictionary.items():
            self.log(name, value, reduce_fx=reduce_fx, batch_size=batch_size)

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """The optimizer, or a list of several, to be stepped by hand; their steps are announced to the callbacks."""
        found = [SteppedByHand(self.learn, opt) for opt in getattr(self.learn.opt, "optimizers", [self.learn.opt])]
        return found[0] if len(found) == 1 else found

    def lr_schedulers(self) -> Any:
        """The scheduler that was configured, a list of several, or None."""
        found = [cb.scheduler for cb in self.schedulers]
        return found[0] if len(found) == 1 else found or None

    def manual_backward(self, loss: Tensor, retain_graph: bool = False) -> None:
        """The backward pass of `loss`, announced to the callbacks; `retain_graph` for a second one through the same."""
        self.learn.run_backward(loss, retain_graph)

    def toggle_optimizer(self, optimizer: Optimizer) -> None:
        """Let only the parameters of `optimizer` require gradients; frozen ones stay so."""
        own = {p for group in optimizer.param_groups for p in group["params"]}
        for p in (p for group in self.learn.opt.param_groups for p in group["params"]):
            if p not in own:
                self.toggled.setdefault(p, p.requires_grad)
                p.requires_grad_(False)

    def untoggle_optimizer(self, optimizer: Optimizer | None) -> None:
        """Undo `toggle_optimizer`."""
        for p, required in self.toggled.items():
            p.requires_grad_(required)
        self.toggled = {}

    # ---- what it logged

    def before_train(self, learn: Any) -> None:
        self.logged = {}

    def before_validate(self, learn: Any) -> None:
        self.of_training, self.logged = self.logged, {}

    def after_validate(self, learn: Any) -> None:
        learn.results |= _means(self.logged, learn.ranks)
        self.logged = self.of_training

    def after_epoch(self, learn: Any) -> None:
        learn.results = _means(self.logged, learn.ranks) | learn.results
        self.logged, self.of_training = {}, {}


def _means(logged: Mapping[str, Any], ranks: Ranks) -> dict[str, float]:
    """The means over all processes, also of what this one has logged nothing for."""
    own: dict[str, Any] = {name: value if isinstance(value, tuple) else None for name, value in logged.items()}
    shares = ranks.gather(own)
    found = {name: [share[name] for share in shares if name in share] for share in shares for name in share}
    metrics = [name for name, values in found.items() if None in values]
    if any(name not in share for name in metrics for share in shares):  # all have to compute, so one lends it
        lent = ranks.gather({name: _emptied(logged[name]) for name in metrics if name in logged})
        logged = {name: metric for share in lent for name, metric in share.items()} | dict(logged)
    return {
        name: _computed(logged[name], ranks) if name in metrics else _mean(values) for name, values in found.items()
    }


def _mean(shares: list[tuple[Any, int]]) -> float:
    return sum(float(total) for total, _ in shares) / sum(n for _, n in shares)


def _computed(metric: Any, ranks: Ranks) -> float:
    if hasattr(metric, "sync_from"):  # one of this library
        metric.sync_from(ranks.gather)
    with asking(ranks, metric):
        result = float(metric.compute())
    metric.reset()
    return result


def _emptied(metric: Any) -> Any:
    other = copy.deepcopy(metric)
    other.reset()
    return other


def _forget_trainer(model: nn.Module) -> None:
    if "trainer" in vars(model):
        del model.trainer
    else:
        model.trainer = None  # type: ignore[assignment]  # a property of Lightning's modules
