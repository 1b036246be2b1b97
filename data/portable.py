"""Objects that are data: they print, compare, and travel as JSON.

A block, a getter, a transform or a model's description is a small dataclass deriving from `Portable`. `describe(obj)`
turns it into plain JSON values and `restore(spec)` builds it again. Only classes of this library, transforms of
`torchvision.transforms.v2` and objects that the caller hands in by name can ever come out of `restore`: a file
describes what to build, it never brings code. Of a dataclass of the user's own the fields travel, and the class is
handed in.

    >>> restore(describe(CategoryBlock(vocab=["ant", "bee"])))
    CategoryBlock(vocab=['ant', 'bee'], sort=True, add_na=False)
"""

import contextlib
import dataclasses
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms import InterpolationMode, v2

__all__ = ["Portable", "describe", "portable", "portable_name", "restore"]

PACKAGE = __name__.split(".")[0]
FOLDERS = ("callbacks", "data", "learner", "text", "vision")  # of this package, whose modules a description may name
_REGISTERED: dict[str, Any] = {}  # "data.getters.parent_label" -> object: all that a description of ours may name
_ENUMS = {enum.__name__: enum for enum in (InterpolationMode, v2.AutoAugmentPolicy)}  # arguments of v2 transforms


class Portable:
    """Base of dataclasses that `describe` writes and `restore` builds again; fields are plain data or `Portable`."""

    def __init_subclass__(cls):
        if _is_ours(cls.__module__):
            portable(cls)


def portable(obj: Any) -> Any:
    """Let descriptions name `obj`, a class or function of this library (a decorator)."""
    _REGISTERED[_library_name(obj)] = obj
    return obj


def _is_ours(module: str) -> bool:
    return module.startswith(tuple(f"{PACKAGE}.{folder}." for folder in FOLDERS))


def _library_name(obj: Any) -> str:
    module = getattr(obj, "__module__", None)  # which a method of a type of Python's does not have
    return f"{module}.{obj.__qualname__}".removeprefix(f"{PACKAGE}.")


def portable_name(obj: Any) -> str:
    """The name under which the user's own function, class or object is asked for again.

    Raises ValueError for a lambda, or a `functools.partial`, which have none.
    """
    name = getattr(obj, "__name__", None) or type(obj).__name__
    if name in ("<lambda>", "partial"):
        raise ValueError(
            f"A {name.strip('<>')} cannot be exported: it has no name to ask for again. Write it as `def "
            "my_function(...)`, then `load_learner(path, custom={'my_function': my_function})` brings it back."
        )
    return name


def describe(obj: Any, own: dict[str, Any] | None = None) -> Any:
    """`obj` as JSON values. What is the user's own is described by its name, a dataclass by its fields as well.

    `own` collects the user's objects by name. Raises ValueError for what has no name, for two objects of one name, and
    for a value that is neither plain nor callable (a date, an array).
    """
    own = {} if own is None else own
    again: Callable[[Any], Any] = lambda o: describe(o, own)  # noqa: E731
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    if isinstance(obj, (list, tuple)):
        return {"list" if isinstance(obj, list) else "tuple": [again(o) for o in obj]}
    if isinstance(obj, dict):
        return {"dict": [[again(k), again(v)] for k, v in obj.items()]}
    if isinstance(obj, Path):
        return {"path": str(obj)}
    if isinstance(obj, tuple(_ENUMS.values())):
        return {"enum": type(obj).__name__, "value": obj.value}
    if isinstance(obj, torch.dtype):
        return {"dtype": str(obj).removeprefix("torch.")}
    if isinstance(obj, (np.generic, torch.Tensor)) and obj.ndim == 0:  # as a label may be
        return obj.item()
    if _REGISTERED.get(_library_name(type(obj))) is type(obj):
        return {"class": _library_name(type(obj)), "fields": {k: again(v) for k, v in (_fields(obj) or {}).items()}}
    if hasattr(obj, "__qualname__") and _REGISTERED.get(_library_name(obj)) is obj:
        return {"function": _library_name(obj)}
    if isinstance(obj, v2.Transform) and (fields := _v2_fields(obj)) is not None:
        return {"v2": type(obj).__name__, "fields": {k: again(v) for k, v in fields.items()}}
    return _describe_own(obj, own)


def _describe_own(obj: Any, own: dict[str, Any]) -> dict:
    """The user's function or class by its name; an object by its class's name and, of a dataclass, its fields."""
    if inspect.isroutine(obj) or isinstance(obj, type):
        return {"custom": _claim_name(obj, obj, own)}
    fields = _fields(obj)
    if fields is None and not callable(obj):
        raise ValueError(
            f"{str(obj)[:60]!r} cannot be exported: a {type(obj).__name__} is neither plain data nor a function."
        )
    name = _claim_name(obj, obj if fields is None else type(obj), own)
    return {"custom": name, "fields": {k: describe(v, own) for k, v in (fields or {}).items()}}


def _claim_name(obj: Any, meant: Any, own: dict[str, Any]) -> str:
    """The name of `obj`, under which `meant` will be handed in. Raises ValueError where it is taken."""
    name = portable_name(obj)
    if own.setdefault(name, meant) is not meant:
        raise ValueError(
            f"Two different objects are called {name!r}, and a file could not tell them apart: rename one function, or "
            "make the class of the objects a dataclass, whose fields are written."
        )
    return name


def _fields(obj: Any) -> dict[str, Any] | None:
    """The arguments that make a dataclass's object again; None for other objects."""
    if not dataclasses.is_dataclass(obj):
        return None
    fields = {f.name: getattr(obj, f.name) for f in dataclasses.fields(obj) if f.init}
    return fields if set(fields) == set(inspect.signature(type(obj)).parameters) else None


def _v2_fields(transform: v2.Transform) -> dict[str, Any] | None:
    """A v2 transform's arguments, read from its attributes of the same names; None where these do not make it again."""
    if getattr(v2, type(transform).__name__, None) is not type(transform):
        return None
    arguments = inspect.signature(type(transform)).parameters.values()
    if not all(hasattr(transform, a.name) and a.kind is not a.VAR_POSITIONAL for a in arguments):
        return None
    fields = {a.name: getattr(transform, a.name) for a in arguments}
    try:
        type(transform)(**fields)  # RandomErasing(value="random") remembers None, and does not take it
    except (TypeError, ValueError):
        return None
    return fields


def restore(spec: Any, custom: dict[str, Any] | None = None) -> Any:
    """What `describe` described; `custom` maps names to the caller's own objects.

    Raises KeyError for a name that `custom` lacks, ValueError for a description that this version does not know.
    """
    if not isinstance(spec, dict):
        return spec
    again: Callable[[Any], Any] = lambda s: restore(s, custom)  # noqa: E731
    match spec:
        case {"list": values}:
            return [again(v) for v in values]
        case {"tuple": values}:
            return tuple(again(v) for v in values)
        case {"dict": pairs}:
            return {again(k): again(v) for k, v in pairs}
        case {"path": text}:
            return Path(text)
        case {"enum": name, "value": value} if name in _ENUMS:
            return _ENUMS[name](value)
        case {"dtype": name} if isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        case {"class": name, "fields": fields} if isinstance(_registered(name), type):
            return _registered(name)(**{k: again(v) for k, v in fields.items()})
        case {"function": name}:
            return _registered(name)
        case {"v2": name, "fields": fields} if _is_v2(getattr(v2, name, None)):
            return getattr(v2, name)(**{k: again(v) for k, v in fields.items()})
        case {"custom": name}:  # an object with fields may be handed in itself, or its class
            given = (custom or {})[name]
            of_class = "fields" in spec and isinstance(given, type)
            return given(**{k: again(v) for k, v in spec["fields"].items()}) if of_class else given
    raise ValueError(f"unknown description {str(spec)[:80]!r}: was the file written by another version?")


def _is_v2(obj: Any) -> bool:
    return isinstance(obj, type) and issubclass(obj, v2.Transform)


def _registered(name: str) -> Any:
    """The library's object of that name; its module is imported first if it is one of ours."""
    module = f"{PACKAGE}.{name.rpartition('.')[0]}"
    if name not in _REGISTERED and _is_ours(module) and all(part.isidentifier() for part in name.split(".")):
        with contextlib.suppress(ModuleNotFoundError):  # reported below, as any other unknown name
            importlib.import_module(module)
    if name not in _REGISTERED:
        raise ValueError(f"this version of {PACKAGE} has no {name!r}: was the file written by another version?")
    return _REGISTERED[name]
