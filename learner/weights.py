"""Saving, loading and keeping the weights of a learner."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .files import FileError, load_file, save_file

__all__ = ["kept_state", "load", "load_weights", "save"]

KIND = "warmstart weights"


def save(learn: Any, path: Path, with_opt: bool) -> Path:
    """Write the model's state dict and – where there is one and `with_opt` – the optimizer's."""
    opt = learn.opt.state_dict() if with_opt and learn.opt is not None else None
    return save_file({"kind": KIND, "model": learn.model.state_dict(), "opt": opt}, path)


def load(learn: Any, path: Path, with_opt: bool) -> Any:
    """Read a file of `save`, or a plain state dict, into the learner's model and optimizer."""
    content = load_file(path, learn.data.device)
    if not isinstance(content, Mapping) or not (content.get("kind") == KIND or all(isinstance(v, Tensor) for v in content.values())):
        raise FileError(f"{path} holds no weights: it is {content.get('kind', 'of another kind') if isinstance(content, Mapping) else type(content).__name__!r}.")
    load_weights(learn.model, content["model"] if content.get("kind") == KIND else content, str(path))
    opt_state = content.get("opt") if content.get("kind") == KIND else None
    if with_opt and opt_state is not None:
        learn.prepare_optimizer()
        learn.opt.load_state_dict(opt_state)
    elif with_opt and learn.opt is not None:
        warnings.warn(f"{path} has no optimizer state: the optimizer starts afresh. Pass with_opt=False if that is meant.", stacklevel=3)
        learn.opt = None
    return learn


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict, all of it. Raises ValueError that names what differs where it is of another architecture."""
    own = model.state_dict()
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    differ = [f"{k} is {tuple(state[k].shape)} there and {tuple(own[k].shape)} here" for k in own if k in state and state[k].shape != own[k].shape]
    if missing or extra or differ:
        facts = [f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" for what, names in
                 (("parameters are missing", missing), ("are unknown here", extra), ("have another shape", differ)) if names]  # fmt: skip
        raise ValueError(f"{source} holds weights of another architecture: {'; '.join(facts)}. Build the model as it was when they were saved.")
    model.load_state_dict(state)


@contextmanager
def kept_state(learn: Any) -> Iterator[None]:
    """A context after which model and optimizer are as they were before it."""
    weights = copy.deepcopy(learn.model.state_dict())
    opt = copy.deepcopy(learn.opt.state_dict()) if learn.opt is not None else None
    training = learn.model.training
    try:
        yield
    finally:
        learn.model.load_state_dict(weights)
        learn.model.train(training)
        if opt is None:
            learn.opt = None
        else:
            learn.opt.load_state_dict(opt)
