"""The optimizers and schedulers that a system configures for itself, in all the forms that are usual."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..callbacks.torch_scheduler import TorchScheduler
from .stages import changed

__all__ = ["SeveralOptimizers", "SteppedByHand", "configured_optimizers"]

FORMS = (
    "an optimizer, a list of them, two lists (optimizers, schedulers), or a dict with 'optimizer' and perhaps "
    "'lr_scheduler', or a list of such dicts"
)


def configured_optimizers(result: Any) -> tuple[Any, list[TorchScheduler]]:
    """What `configure_optimizers` returned as one optimizer (None for none), and callbacks for its schedulers.

    Raises TypeError for anything but the forms that Lightning documents.
    """
    if result is None:
        return None, []
    optimizers, schedulers = _parts(result)
    if not optimizers or not all(isinstance(opt, Optimizer) for opt in optimizers):
        raise TypeError(f"configure_optimizers returned {result!r}. It returns {FORMS}.")
    opt = optimizers[0] if len(optimizers) == 1 else SeveralOptimizers(optimizers)
    return opt, [_scheduler_cb(scheduler) for scheduler in schedulers]


def _parts(result: Any) -> tuple[list, list]:
    """Its optimizers and schedulers."""
    if isinstance(result, dict):
        scheduler = result.get("lr_scheduler")
        return [result.get("optimizer")], [] if scheduler is None else [_with_monitor(scheduler, result.get("monitor"))]
    if not isinstance(result, (list, tuple)):
        return [result], []
    if len(result) == 2 and all(isinstance(part, (list, tuple)) for part in result):
        return list(result[0]), list(result[1])
    if all(isinstance(part, dict) for part in result):
        parts = [_parts(part) for part in result]
        return [opt for opts, _ in parts for opt in opts], [s for _, schedulers in parts for s in schedulers]
    return list(result), []


def _with_monitor(scheduler: Any, monitor: str | None) -> Any:
    if monitor is None:
        return scheduler
    return {"monitor": monitor, **(scheduler if isinstance(scheduler, dict) else {"scheduler": scheduler})}


def _scheduler_cb(config: Any) -> TorchScheduler:
    """A callback for a scheduler, or for a dict of it, its interval ('epoch' or 'step'), frequency and monitor."""
    config = config if isinstance(config, dict) else {"scheduler": config}
    per = "batch" if config.get("interval", "epoch") == "step" else "epoch"
    scheduler = config["scheduler"]
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"configure_optimizers gave {scheduler!r} as a scheduler, which is no LRScheduler of torch.")
    return TorchScheduler(scheduler, per, config.get("monitor") or "valid_loss", config.get("frequency", 1))


class SeveralOptimizers:
    """Several optimizers as one: their parameter groups in a row, stepped one after the other."""

    def __init__(self, optimizers: list[Optimizer]):
        self.optimizers = optimizers
        self.defaults = optimizers[0].defaults

    def __repr__(self) -> str:
        return f"SeveralOptimizers({', '.join(type(opt).__name__ for opt in self.optimizers)})"

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for opt in self.optimizers for group in opt.param_groups]

    def step(self) -> None:
        for opt in self.optimizers:
            opt.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for opt in self.optimizers:
            opt.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        states = [opt.state_dict() for opt in self.optimizers]
        return {"optimizers": states, "param_groups": [group for state in states for group in state["param_groups"]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for opt, own in zip(self.optimizers, state["optimizers"], strict=True):
            opt.load_state_dict(own)


class SteppedByHand(Optimizer):
    """An optimizer as a system sees it that steps by itself: each step is announced to the callbacks.

    It is `opt` in all but `step`: what it has, groups and state and hooks, is shared.
    """

    def __init__(self, learn: Any, opt: Optimizer):
        vars(self).update({name: value for name, value in vars(opt).items() if name != "step"})
        self.learn, self.optimizer = learn, opt

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """A step; `closure`, where there is one, is called before it to make the gradients."""
        if closure is not None:
            closure()
        with changed(self.learn, "opt", self.optimizer):
            self.learn.run_step()
