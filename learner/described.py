"""Objects in words that stay the same from one process to the next: for a record of a run that others compare.

>>> described(MixUp(alpha=0.4))
{'class': 'MixUp', 'alpha': 0.4}
>>> in_words(described(partial(top_k_accuracy, k=3)))
'partial(top_k_accuracy, k=3)'
"""

import enum
import hashlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import PurePath
from types import CodeType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.fingerprint import content_hash

__all__ = ["CODE", "described", "in_words"]

CODE = "own code"  # the key that holds the hash of a function's code; no argument has such a name
MANY = 50  # values of which a list or dict is told by its length and a hash
DEEP = 5  # how far in objects are looked for in objects
LIBRARIES = {__name__.partition(".")[0], *sys.stdlib_module_names}


def described(value: Any, room: int = DEEP) -> Any:
    """`value` as JSON values: numbers and texts as they are, other objects as a dict that begins with what they are.

    - An object has its class's name and the arguments of its constructor that it keeps as attributes of these names.
    - A function has its name and, if it is the user's own, a hash of its code.
    - A tensor, array or table has its shape and a hash, and what is long its length and a hash.
    """
    again: Callable[[Any], Any] = lambda v: described(v, room - 1)  # noqa: E731
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, (np.generic, Tensor)) and value.ndim == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (PurePath, torch.dtype, torch.device, slice, range, complex, bytes)):
        return str(value).removeprefix("torch.")
    if room < 0:
        return {"class": type(value).__qualname__}
    if isinstance(value, (Tensor, np.ndarray, pd.DataFrame, pd.Series)):
        return {"class": type(value).__name__, "shape": list(value.shape), "sha256": content_hash(value)}
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=repr)
    if isinstance(value, (list, tuple, Mapping)) and len(value) > MANY:
        return {"class": type(value).__name__, "items": len(value), "sha256": content_hash(value)}
    if isinstance(value, (list, tuple)):
        return [again(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): again(part) for key, part in value.items()}
    if isinstance(value, partial):
        arguments = {**{str(i): arg for i, arg in enumerate(value.args)}, **value.keywords}
        return {"partial": again(value.func), **{name: again(arg) for name, arg in arguments.items()}}
    if hasattr(value, "__name__"):
        return {"function": getattr(value, "__qualname__", value.__name__), **_code(value)}
    return {"class": type(value).__qualname__, **{name: again(part) for name, part in _arguments(value).items()}}


def _arguments(obj: Any) -> dict[str, Any]:
    """The arguments of its constructor that an object keeps as attributes, of a module as buffers or submodules."""
    if is_dataclass(obj):
        return {field.name: getattr(obj, field.name) for field in fields(obj) if field.init}
    try:
        names = inspect.signature(type(obj)).parameters
    except (TypeError, ValueError):  # a builtin does not tell
        return {}
    kept: dict[str, Any] = {}
    for where in ("__dict__", "_buffers", "_modules"):
        kept |= getattr(obj, where, {})
    return {name: kept[name] for name in names if name in kept}


def _code(function: Any) -> dict[str, str]:
    """A hash of the byte code of a function of the user's own, after the version of Python that has made it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    is_own = (getattr(function, "__module__", None) or "").partition(".")[0] not in LIBRARIES
    if code is None or not is_own or re.search(r"[\\/](site|dist)-packages[\\/]", code.co_filename):
        return {}
    digest = hashlib.sha256(repr(_parts(code, function.__doc__)).encode("utf-8", "surrogatepass"))
    return {CODE: f"{sys.version_info.major}.{sys.version_info.minor}:{digest.hexdigest()[:12]}"}


def _parts(code: CodeType, doc: str | None = None) -> list:
    """What a piece of code does, without where it stands and what its documentation says."""
    parts = [_parts(value) if isinstance(value, CodeType) else value for value in code.co_consts if value != doc]
    return [code.co_code, code.co_names, [sorted(map(repr, p)) if isinstance(p, frozenset) else p for p in parts]]


def in_words(found: Any) -> str:
    """What `described` has made of an object, as a person writes it."""
    if isinstance(found, list):
        return f"[{', '.join(map(in_words, found))}]"
    if not isinstance(found, dict):
        return repr(found)
    kind = next((key for key in ("class", "partial", "function") if key in found), None)
    shown = {key: in_words(value) for key, value in found.items() if key not in (kind, "sha256", CODE)}
    if kind is None:
        return f"{{{', '.join(f'{key}: {value}' for key, value in shown.items())}}}"
    if kind == "function":
        return found["function"]
    arguments = [value if key.isdigit() else f"{key}={value}" for key, value in shown.items()]
    if kind == "partial":
        return f"partial({', '.join([in_words(found['partial']), *arguments])})"
    return f"{found['class']}({', '.join(arguments)})"
