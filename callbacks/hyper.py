"""Hyper-parameters of an optimizer by the names that schedules use, whatever the optimizer calls them."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer, RMSprop

__all__ = ["group_key", "has_momentum", "hyper_key", "set_group_hyper", "set_hyper"]

ALIASES = {"mom": "momentum", "wd": "weight_decay"}


def set_hyper(opt: Optimizer, name: str, values: Sequence[float]) -> None:
    """Set a hyper-parameter of `opt`, one value for each layer group (a single one serves all).

    `name` is 'lr', 'mom' (momentum, or betas[0]), 'beta2', 'wd' (weight decay; groups without decay stay so), or any
    key of the optimizer's parameter groups. Raises KeyError for a name that the optimizer does not have.
    """
    hyper_key(opt, name)
    for group in opt.param_groups:
        set_group_hyper(group, name, values[group.get("layer_group", 0)] if len(values) > 1 else values[0])


def set_group_hyper(group: dict[str, Any], name: str, value: float) -> None:
    """Set a hyper-parameter of one parameter group."""
    if name == "lr":
        group["lr"] = value
    elif name == "mom" and "betas" in group:
        group["betas"] = (value, group["betas"][1])
    elif name == "beta2":
        group["betas"] = (group["betas"][0], value)
    elif name != "wd" or group.get("decay", True):
        group[ALIASES.get(name, name)] = value


def hyper_key(opt: Optimizer, name: str) -> str:
    """The key of the parameter groups that holds `name`. Raises KeyError where there is none."""
    group = opt.param_groups[0]
    key = group_key(group, name)
    if key not in group:
        known = [k for k in group if k not in ("params", "layer_group", "decay")]
        raise KeyError(f"{type(opt).__name__} has no {name!r}: its hyper-parameters are {', '.join(known)}")
    return key


def group_key(group: dict[str, Any], name: str) -> str:
    """The key by which a parameter group would hold `name`."""
    return "betas" if name in ("mom", "beta2") and "betas" in group else ALIASES.get(name, name)


def has_momentum(opt: Optimizer) -> bool:
    """Whether 'mom' can be scheduled. RMSprop cannot start with a momentum once it has stepped without."""
    group, inner = opt.param_groups[0], getattr(opt, "opt", opt)  # that of Lookahead
    return "betas" in group or (group.get("momentum", 0) > 0 if isinstance(inner, RMSprop) else "momentum" in group)
