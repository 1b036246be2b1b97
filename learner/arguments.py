"""What a Learner is given, checked; and what it takes where nothing was given."""

from collections.abc import Callable
from typing import Any

from torch import nn

from ..data.bunch import DataBunch
from . import losses

__all__ = ["check_arguments", "check_data", "default_loss"]


def check_arguments(model: Any, loss_func: Any, opt_func: Any, metrics: Any, is_system: bool) -> None:
    """Raise TypeError for an argument of the wrong kind, and say what to pass."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {_kind(model)}, not a torch.nn.Module: pass an instance, not a class or a function.")
    if isinstance(loss_func, type):
        raise TypeError(f"loss_func is {_kind(loss_func)}: pass an instance, {loss_func.__name__}().")
    if loss_func is not None and not callable(loss_func):
        raise TypeError(f"loss_func is {_kind(loss_func)}: pass a function (pred, targ) -> scalar tensor, or a module.")
    if not callable(opt_func):
        raise TypeError(f"opt_func is {_kind(opt_func)}: pass a torch.optim class, or (params, lr) -> Optimizer.")
    if is_system and metrics:
        raise TypeError(
            f"{type(model).__name__} has a training_step and measures itself: call self.log(name, value) in its "
            "validation_step instead of passing metrics."
        )


def check_data(data: Any) -> None:
    """Raise TypeError for anything but a DataBunch."""
    if not isinstance(data, DataBunch):
        raise TypeError(f"data is {_kind(data)}, not a DataBunch: wrap loaders, DataBunch(train_dl, valid_dl).")


def _kind(obj: Any) -> str:
    return f"the class {obj.__name__}" if isinstance(obj, type) else type(obj).__name__


def default_loss(data: DataBunch) -> Callable:
    """The loss that the data's target block names."""
    names = [block.loss for block in data.targets if block.loss is not None]
    if len(names) != 1:
        raise ValueError(
            f"The data names {len(names) or 'no'} losses, so which one to use? Pass loss_func=, for example "
            "CrossEntropyLoss() or MSELoss()."
        )
    return getattr(losses, names[0])() if isinstance(names[0], str) else names[0]
