"""Saving, loading and keeping the weights of a learner."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..callbacks.parted import like
from .files import FileError, load_file, one_line, save_file
from .shards import whole

__all__ = ["check_weights", "kept_state", "load", "load_optimizer", "load_weights", "save"]

KIND = "warmstart weights"


def save(learn: Any, path: Path, with_opt: bool, vocab: list[str] | None = None) -> Path:
    """Write the model's state dict and, `with_opt`, the optimizer's if there is one, and how many epochs were begun.

    `vocab` are the words by number that the weights are of.
    """
    content: dict[str, Any] = {"kind": KIND, "model": learn.model.state_dict(), "opt": None, "vocab": vocab}
    if with_opt and learn.opt is not None:
        content |= {
            "opt": learn.opt.state_dict(),
            "opt_name": type(learn.opt).__name__,
            "epochs_begun": learn.epochs_begun,
        }
    content = whole(content)
    return learn.ranks.from_first(lambda: save_file(content, path))


def load(learn: Any, path: Path, with_opt: bool, check_vocab: Callable[[Any], None] | None = None) -> Any:
    """Read a file of `save`, or a plain state dict, into the learner's model and optimizer.

    `check_vocab` is called with the words that the file has, or None, and raises ValueError where they do not fit.
    """
    content = learn.ranks.from_first(lambda: load_file(path))
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        content = {"kind": KIND, "model": content, "opt": None}
    if not isinstance(content, Mapping) or content.get("kind") != KIND:
        raise FileError(f"{path} holds no weights of learn.save() and is no state dict: {_what(content)}.")
    _check_parts(content, path)
    if check_vocab is not None:
        check_vocab(content.get("vocab"))
    before = learn.opt
    if with_opt and content["opt"] is not None:
        learn.prepare_optimizer()
        _check_optimizer(learn.opt, content, path)
    load_weights(learn.model, content["model"], str(path))
    if with_opt and content["opt"] is not None:
        load_optimizer(learn.opt, content["opt"], path)
        learn.epochs_begun = content["epochs_begun"]
    elif with_opt and before is not None:
        warnings.warn(
            f"{path} has no optimizer state: the optimizer starts afresh. Pass with_opt=False to keep the present one.",
            stacklevel=3,
        )
        learn.opt = None
    return learn


def _what(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}"
    if "warmstart export" in content:
        return "it is an exported learner, which load_learner() reads"
    held = one_line(list(content)[:5])
    return f"it holds {held}. If the weights are one of these, save that part alone with torch.save()"


def _check_parts(content: Mapping, path: Path) -> None:
    """Raise FileError where a file of `save` lacks a part, or has another in its place."""
    is_whole = isinstance(content.get("model"), Mapping) and "opt" in content
    if is_whole and content["opt"] is not None:
        is_whole = _is_optimizer_state(content["opt"]) and isinstance(content.get("epochs_begun"), int)
    if not is_whole:
        raise FileError(f"{path} is damaged: weights or optimizer state are not as learn.save() writes them.")


def _is_optimizer_state(opt: Any) -> bool:
    if isinstance(opt, Mapping) and isinstance(opt.get("optimizers"), list):  # of several
        return all(map(_is_optimizer_state, opt["optimizers"]))
    groups = opt.get("param_groups") if isinstance(opt, Mapping) and isinstance(opt.get("state"), Mapping) else None
    return isinstance(groups, list) and all(map(_is_group, groups))


def _is_group(group: Any) -> bool:
    return isinstance(group, Mapping) and isinstance(group.get("params"), list)


def _check_optimizer(opt: Any, content: Mapping, path: Path) -> None:
    """Raise ValueError where the file's optimizer is another than the learner's."""
    name, sizes = content.get("opt_name"), [len(group["params"]) for group in content["opt"]["param_groups"]]
    own_sizes = [len(group["params"]) for group in opt.param_groups]
    if name != type(opt).__name__ or sizes != own_sizes:
        raise ValueError(
            f"{path} holds the state of {one_line(name, 40)} over groups of {one_line(sizes)} parameters, and this "
            f"learner's optimizer is {type(opt).__name__} over {own_sizes}. Make the learner with the same opt_func "
            "and splitter, or pass with_opt=False to load the weights alone."
        )


def load_optimizer(opt: Any, state: Mapping, path: Path) -> None:
    try:
        opt.load_state_dict(_parted(state, opt))
    except Exception as error:  # what a stranger's file holds can be wrong in any way
        raise FileError(
            f"{path} holds an optimizer state that cannot be loaded: {one_line(error, 300)}. Pass with_opt=False to "
            "load the weights alone."
        ) from error


def _parted(state: Mapping[str, Any], opt: Any) -> dict[str, Any]:
    """An optimizer's state with its tensors parted as the parameters are that they belong to."""
    if "state" not in state:  # of several optimizers, which have one each
        return dict(state)
    params = [p for group in opt.param_groups for p in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    values = {
        number: {name: like(value, p) if _shape(value) == _shape(p) else value for name, value in of_one.items()}
        for number, p in zip(numbers, params, strict=False)
        if (of_one := state["state"].get(number)) is not None
    }
    return {**state, "state": values}


def load_weights(model: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Load a state dict, all of it.

    Raises ValueError that names what differs where it is of another architecture, FileError for what cannot be copied.
    """
    check_weights(model, state, source)
    try:
        own = model.state_dict()
        model.load_state_dict({name: like(value, own[name]) for name, value in state.items()})
    except Exception as error:  # a tensor can be of a kind without values, and what belongs to a state dict be no dict
        raise FileError(f"{source} holds weights that cannot be loaded: {one_line(error, 300)}") from error


def check_weights(model: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Raise ValueError that names what differs, where a state dict is of another architecture than `model`."""
    own = model.state_dict()
    differs = {
        "are missing": [key for key in own if key not in state],
        "are unknown here": [key for key in state if key not in own],
        "have another shape": [
            _shapes(k, state[k], own[k]) for k in own if k in state and _shape(state[k]) != _shape(own[k])
        ],
    }
    if any(differs.values()):
        facts = "; ".join(f"{len(names)} {what} ({_first(names)})" for what, names in differs.items() if names)
        raise ValueError(
            f"{source} holds weights of another architecture. Of {len(own)} parameters and buffers "
            f"{one_line(facts, 300)}. Build the model as it was when they were saved."
        )


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else None  # a module's extra state may be anything


def _shapes(name: str, there: Any, here: Any) -> str:
    return f"{name}: {_shape(there)} there, {_shape(here)} here"


def _first(names: list, n: int = 3) -> str:
    return ", ".join(map(str, names[:n])) + (", …" if len(names) > n else "")


@contextmanager
def kept_state(learn: Any) -> Iterator[None]:
    """A context after which model and optimizer are as they were before it."""
    weights = copy.deepcopy(learn.model.state_dict())
    opt, opt_state = learn.opt, copy.deepcopy(learn.opt.state_dict()) if learn.opt is not None else None
    training = learn.model.training
    try:
        yield
    finally:
        learn.model.load_state_dict(weights)
        learn.model.train(training)
        learn.opt = opt
        if opt is not None:
            opt.load_state_dict(opt_state)
