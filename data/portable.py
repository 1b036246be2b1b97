"""Objects that are data: they print, compare, and travel as JSON.

A block, a getter, a transform or a model's description is a small dataclass deriving from `Portable`. `describe(obj)`
turns it into plain JSON values and `restore(spec)` builds it again. Only classes of this library, transforms of
`torchvision.transforms.v2` and objects that the caller hands in by name can ever come out of `restore`: a file
describes what to build, it never brings code.

    >>> restore(describe(CategoryBlock(vocab=["ant", "bee"])))
    CategoryBlock(vocab=['ant', 'bee'], sort=True, add_na=False)
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchvision.transforms import InterpolationMode, v2

__all__ = ["Portable", "portable", "describe", "restore", "portable_name"]

PACKAGE = __name__.split(".")[0]
_REGISTERED: dict[str, Any] = {}  # "data.getters.parent_label" -> object: all that a description of ours may name


class Portable:
    """Base of dataclasses that `describe` writes and `restore` builds again; every field is plain data or `Portable`."""

    def __init_subclass__(cls):
        portable(cls)


def portable(obj: Any) -> Any:
    """Let descriptions name `obj`, a class or function of this library (a decorator)."""
    _REGISTERED[_library_name(obj)] = obj
    return obj


def _library_name(obj: Any) -> str:
    return f"{obj.__module__}.{obj.__qualname__}".removeprefix(f"{PACKAGE}.")


def portable_name(obj: Any) -> str:
    """The name under which the user's own function, class or object is asked for again."""
    name = getattr(obj, "__name__", None) or type(obj).__name__
    if name == "<lambda>":
        raise ValueError(
            "A lambda cannot be exported: it has no name to ask for again. Write it as `def my_function(...)` in your "
            "code, then `load_learner(path, custom={'my_function': my_function})` brings it back."
        )
    return name


def describe(obj: Any) -> Any:
    """`obj` as JSON values. What is the user's own is described by its name alone.

    Raises ValueError for a lambda, which has no name.
    """
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    if isinstance(obj, (list, tuple)):
        return {type(obj).__name__ if type(obj) is list else "tuple": [describe(o) for o in obj]}
    if isinstance(obj, dict):
        return {"dict": [[describe(k), describe(v)] for k, v in obj.items()]}
    if isinstance(obj, Path):
        return {"path": str(obj)}
    if isinstance(obj, InterpolationMode):
        return {"interpolation": obj.value}
    if hasattr(obj, "item") and hasattr(obj, "ndim") and obj.ndim == 0:  # a numpy or torch scalar, as a label may be
        return obj.item()
    if isinstance(obj, Portable) and _library_name(type(obj)) in _REGISTERED and type(obj).__module__.startswith(PACKAGE):
        fields = {f.name: describe(getattr(obj, f.name)) for f in dataclasses.fields(obj) if f.init}  # type: ignore[arg-type]
        return {"class": _library_name(type(obj)), "fields": fields}
    if callable(obj) and _REGISTERED.get(_library_name(obj) if hasattr(obj, "__qualname__") else "") is obj:
        return {"function": _library_name(obj)}
    if isinstance(obj, v2.Transform) and (fields := _v2_fields(obj)) is not None:
        return {"v2": type(obj).__name__, "fields": {k: describe(v) for k, v in fields.items()}}
    return {"custom": portable_name(obj)}


def _v2_fields(transform: v2.Transform) -> dict[str, Any] | None:
    """A v2 transform's constructor arguments, read from its attributes of the same names; None where it keeps no such record."""
    if getattr(v2, type(transform).__name__, None) is not type(transform):
        return None
    names = inspect.signature(type(transform)).parameters
    if not all(hasattr(transform, name) for name in names):
        return None
    return {name: getattr(transform, name) for name in names}


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
        case {"interpolation": value}:
            return InterpolationMode(value)
        case {"class": name, "fields": fields}:
            return _registered(name)(**{k: again(v) for k, v in fields.items()})
        case {"function": name}:
            return _registered(name)
        case {"v2": name, "fields": fields} if isinstance(getattr(v2, name, None), type) and issubclass(getattr(v2, name), v2.Transform):
            return getattr(v2, name)(**{k: again(v) for k, v in fields.items()})
        case {"custom": name}:
            return (custom or {})[name]
    raise ValueError(f"unknown description {str(spec)[:80]!r}: was the file written by another version?")


def _registered(name: str) -> Any:
    """The library's object of that name, importing its module first: modules of this package only."""
    module = name.rsplit(".", 1)[0]
    if name not in _REGISTERED and all(part.isidentifier() for part in name.split(".")):
        try:
            importlib.import_module(f"{PACKAGE}.{module}")
        except ModuleNotFoundError:
            pass  # reported below, as any other unknown name
    if name not in _REGISTERED:
        raise ValueError(f"this version of {PACKAGE} has no {name!r}: was the file written by another version?")
    return _REGISTERED[name]
