"""Objects in words that stay the same from one process to the next: for a record of a run that others compare.

    >>> described(MixUp(alpha=0.4))
    {'class': 'MixUp', 'alpha': 0.4}
    >>> in_words(described(partial(top_k_accuracy, k=3)))
    'partial(top_k_accuracy, k=3)'

Nothing in it is an address, a time or the order of a set, and nothing that changes while an object is used. Unlike
`data.portable.describe` this takes any object, and cannot bring it back.
"""

import enum
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..data.fingerprint import content_hash
from .own_code import OWN_CODE, code_of, constants, is_own, own_code, used_names

__all__ = ["class_of", "described", "in_words", "layer_text"]

MANY = 50  # values of which a list or dict is told by its length and a hash
DEEP = 6  # how far in objects are looked for in objects
FRAMEWORK = {object, nn.Module, torch.optim.Optimizer}  # whose methods set no attribute that a description has
ARRAYS = (Tensor, np.ndarray, pd.DataFrame, pd.Series)


def described(value: Any, room: int = DEEP, objects: bool = True) -> Any:
    """`value` as JSON values: numbers and texts as they are, other objects as a dict that begins with what they are.

    - A function has its name and, if it is the user's own, a hash of its code and what it takes from around it.
    - A dataclass has its fields, a module its attributes and submodules, any other object its attributes, and those of
      them that are such objects in turn are told by their class. So are all without `objects`.
    - Attributes that begin with an underscore do not count, nor those that may be others after a fit: that a method
      other than `__init__` sets or `state_names` lists, or that can be changed in place and are no argument.
    - Tensors, arrays and tables, and what is long, have a hash.
    """
    again: Callable[[Any], Any] = lambda v: described(v, room - 1, objects)  # noqa: E731
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (np.generic, Tensor)) and value.ndim == 0:
        return described(value.item())
    if isinstance(value, (int, float)):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, (torch.dtype, torch.device, slice, range, complex, bytes)):
        return str(value).removeprefix("torch.")
    if isinstance(value, ARRAYS):
        return {"class": type(value).__name__, "shape": list(value.shape), "sha256": content_hash(value)}
    if room < 0:
        return {"class": type(value).__qualname__}
    if isinstance(value, (list, tuple, set, frozenset, Mapping)):
        return _described_many(value, again)
    if isinstance(value, partial):
        arguments = {**{str(i): v for i, v in enumerate(value.args)}, **value.keywords}
        return {"partial": again(value.func), **{name: again(v) for name, v in arguments.items()}}
    if inspect.isroutine(value) or hasattr(value, "__name__"):
        return _described_function(value, room)
    if is_dataclass(value):
        parts = {field.name: again(getattr(value, field.name)) for field in fields(value) if field.init}
    elif not objects:
        return {"class": type(value).__qualname__}
    elif isinstance(value, nn.Module):
        parts = {name: again(v) for name, v in [*_attributes(value), *value.named_children()]}
    else:
        parts = {name: described(v, room - 1, objects=False) for name, v in _attributes(value)}
    return {"class": type(value).__qualname__, **parts, **own_code(type(value))}


def _described_many(values: Any, again: Callable[[Any], Any]) -> Any:
    if len(values) > MANY:
        return {"class": type(values).__name__, "items": len(values), "sha256": content_hash(values)}
    if isinstance(values, Mapping):
        return {key if isinstance(key, str) else in_words(again(key)): again(value) for key, value in values.items()}
    parts = [again(part) for part in values]
    return sorted(parts, key=json.dumps) if isinstance(values, (set, frozenset)) else parts


def _described_function(function: Any, room: int) -> dict[str, Any]:
    """A function, a method with the object that it is of, or a class."""
    name = getattr(function, "__qualname__", "") if is_own(function) else ""
    found: dict[str, Any] = {"function": name or function.__name__, **own_code(function)}
    owner = getattr(function, "__self__", None)
    if owner is not None and not inspect.ismodule(owner) and not isinstance(owner, type):
        found["of"] = described(owner, room - 1, objects=False)
    if around := {} if isinstance(function, type) else constants(function):
        found["with"] = {name: described(value, room - 1, objects=False) for name, value in around.items()}
    return found


def _attributes(obj: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object that are after a fit as `__init__` has set them."""
    arguments = _arguments(type(obj))
    values = {name: value for name, value in getattr(obj, "__dict__", {}).items() if not name.startswith("_")}
    if isinstance(obj, nn.Module):
        values |= {name: value for name, value in obj.named_buffers(recurse=False) if name in arguments}
        values.pop("training", None)
    changing = {*_set_later(type(obj), set(values)), *getattr(obj, "state_names", ())}
    for name, value in values.items():
        is_kept = name in arguments or not isinstance(value, (list, set, dict, *ARRAYS))
        stands_for_method = callable(getattr(type(obj), name, None))  # as a scheduler puts one over an optimizer's step
        if is_kept and name not in changing and not stands_for_method:
            yield name, value


def _arguments(cls: type) -> set[str]:
    try:
        return set(inspect.signature(cls).parameters)
    except ValueError:  # a builtin does not tell
        return set()


def _set_later(cls: type, names: set[str]) -> Iterator[str]:
    """Those of `names` that a method other than `__init__` sets, of whatever object."""
    for base in cls.__mro__:
        for name, member in vars(base).items() if base not in FRAMEWORK else ():
            code = None if name in ("__init__", "__post_init__") else code_of(member)
            if code is not None:
                yield from used_names(code, ("STORE_ATTR",), names)


def layer_text(layer: nn.Module) -> str:
    """A layer by itself, as it prints, without addresses; one of the user's own with its attributes."""
    if is_own(class_of(layer)):
        parts = {name: described(value, objects=False) for name, value in _attributes(layer)}
        inside = ", ".join(f"{name}={in_words(part)}" for name, part in parts.items())
    else:
        inside = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(layer.extra_repr().split()))
    return f"{class_of(layer).__name__}({inside})"


def class_of(layer: nn.Module) -> type:
    """The class of a layer, as it is in one process: torch's FSDP puts one of its own in front."""
    cls = type(layer)
    is_parted = any(base.__name__ == "FSDPModule" for base in cls.__bases__)
    return cls.__bases__[-1] if is_parted else cls


def in_words(found: Any) -> str:
    """What `described` has made of an object, as a person writes it."""
    if isinstance(found, list):
        return f"[{', '.join(map(in_words, found))}]"
    if not isinstance(found, dict):
        return repr(found)
    shown = {
        key: in_words(v) for key, v in found.items() if key not in ("class", "function", "partial", "sha256", OWN_CODE)
    }
    arguments = ", ".join(value if name.isdigit() else f"{name}={value}" for name, value in shown.items())
    if "class" in found:
        return f"{found['class']}({arguments})"
    if "partial" in found:
        return f"partial({', '.join(filter(None, [in_words(found['partial']), arguments]))})"
    return found["function"] if "function" in found else f"{{{', '.join(f'{k}: {v}' for k, v in shown.items())}}}"
