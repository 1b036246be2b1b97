"""Parameter groups of a vision model, which train at different rates: early layers, late layers, head."""

from collections.abc import Iterable

from torch import nn

from ..data.portable import portable

__all__ = ["ParameterGroups", "split_body", "split_model"]

ParameterGroups = list[list[nn.Parameter]]


@portable
def split_model(model: nn.Module) -> ParameterGroups:
    """Three groups of a model (body, head): the body's first half, its second half, the head.

    Raises ValueError where `model` is not such a pair.
    """
    if not isinstance(model, nn.Sequential) or len(model) < 2:
        raise ValueError(
            f"Expected nn.Sequential(body, head), got a {type(model).__name__}: "
            "pass splitter=<function from your model to lists of parameters>."
        )
    body = list(model[0].parameters())
    return [group for group in [*split_body(model[0]), _without(model.parameters(), body)] if group]


@portable
def split_body(body: nn.Module) -> ParameterGroups:
    """The parameters of `body` in two halves by depth, cut between two stages, as after layer2 of a ResNet.

    Depth is counted in layers with weights, and the boundary nearest to the middle taken; where one stage holds most
    of the layers it is opened. Every parameter is in exactly one half; a body of a single layer has no first half.
    """
    stages = _stages(body)
    depths = [_n_layers(stage) for stage in stages]
    boundaries = [i for i in range(1, len(stages)) if _has_matrix(stages[i])]
    middle = min(boundaries, key=lambda i: (abs(2 * sum(depths[:i]) - sum(depths)), -i), default=0)
    second = [p for stage in stages[middle:] for p in stage.parameters()]
    first = _without(body.parameters(), second)
    return [first, _without(body.parameters(), first)]


def _stages(body: nn.Module) -> list[nn.Module]:
    """Consecutive parts of `body`, opened until none holds more than three quarters of the layers."""
    stages = [body]
    while True:
        largest = max(range(len(stages)), key=lambda i: _n_layers(stages[i]))
        children = list(stages[largest].children())
        if 4 * _n_layers(stages[largest]) <= 3 * sum(map(_n_layers, stages)) or not children:
            return stages
        stages[largest : largest + 1] = children


def _n_layers(module: nn.Module) -> int:
    """How many modules in `module` have parameters of their own."""
    return sum(any(True for _ in m.parameters(recurse=False)) for m in module.modules())


def _has_matrix(module: nn.Module) -> bool:
    """Whether `module` has weights of two dimensions or more: not so for a norm, which belongs to the layer before."""
    return any(p.ndim > 1 for p in module.parameters())


def _without(parameters: Iterable[nn.Parameter], others: list[nn.Parameter]) -> list[nn.Parameter]:
    excluded = set(map(id, others))
    return [p for p in parameters if id(p) not in excluded]
