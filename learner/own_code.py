"""Functions and classes of the user's own by a hash of their code, so that a run can tell that one has changed.

Their name alone does not say what `loss` or `<lambda>` does. What comes from a library is told by its version.
"""

import dis
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any

__all__ = ["OWN_CODE", "code_of", "constants", "is_own", "own_code", "used_names"]

OWN_CODE = "own code"  # the key of a description that holds the hash; no argument or attribute has such a name
LIBRARIES = {__name__.partition(".")[0], *sys.stdlib_module_names}
SCALARS = (bool, int, float, str)


def is_own(obj: Any) -> bool:
    """Whether a function or class was written for this run: in a script, a notebook, or a module that is no library."""
    name = getattr(obj, "__module__", None) or "builtins"
    if name == "__main__":
        return True
    if name.partition(".")[0] in LIBRARIES:
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is None or not any(f"{os.sep}{name}{os.sep}" in file for name in ("site-packages", "dist-packages"))


def own_code(obj: Any) -> dict[str, str]:
    """The hash of a function's code, or of that of a class and the classes above it; nothing for those of libraries.

    It is of the byte code, so that layout, comments and the words of docstrings do not count, and begins with the
    version of Python, since others compile to other code. What a function calls is not looked at.
    """
    classes = [base for base in getattr(obj, "__mro__", ()) if is_own(base)]
    members = [(name, member) for base in classes for name, member in sorted(vars(base).items())]
    if not isinstance(obj, type):
        members = [(obj.__name__, obj)] if is_own(obj) else []
    texts = [text for name, member in members if (text := _text(name, member))]
    if not texts:
        return {}
    digest = hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    return {OWN_CODE: f"{sys.version_info.major}.{sys.version_info.minor}:{digest[:16]}"}


def _text(name: str, member: Any) -> str | None:
    if code := code_of(member):
        return f"{name} {_parts(code, member.__doc__)}"
    return f"{name} {member!r}" if isinstance(member, SCALARS) and not name.startswith("__") else None


def _parts(code: CodeType, doc: str | None = None) -> list:
    """What a piece of code does, without where it stands."""
    return [code.co_code, code.co_names, [None if value == doc else _constant(value) for value in code.co_consts]]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _parts(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value


def code_of(member: Any) -> CodeType | None:
    """The code of a function, a method or a property, of a decorated one as it was written."""
    member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    return getattr(inspect.unwrap(member) if callable(member) else member, "__code__", None)


def used_names(code: CodeType, operations: Iterable[str], among: set[str] | None = None) -> Iterator[str]:
    """The names on which a piece of code, and what is defined in it, does one of these operations of Python's.

    With `among` only these names of attributes and globals are looked for, which is faster.
    """
    if among is None or not among.isdisjoint(code.co_names):
        found = (step.argval for step in dis.get_instructions(code) if step.opname in operations)
        yield from found if among is None else among.intersection(found)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from used_names(inner, operations, among)


def constants(function: Callable) -> dict[str, Any]:
    """What a function of the user's own takes from around it: defaults, enclosing variables, numbers and texts.

    Left out are variables that it sets itself, and enclosing lists, sets and dicts, which may be there to be filled.
    """
    function, code = inspect.unwrap(getattr(function, "__func__", function)), code_of(function)
    if code is None or not is_own(function):
        return {}
    changing = set(used_names(code, ("STORE_DEREF", "STORE_GLOBAL")))
    cells = zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=True)
    found = {name: cell.cell_contents for name, cell in cells if _is_filled(cell) and name != "__class__"}
    found = {name: value for name, value in found.items() if not isinstance(value, (list, set, dict))}
    around = getattr(function, "__globals__", {})
    names = sorted(set(used_names(code, ("LOAD_GLOBAL",))))
    found |= {name: around[name] for name in names if isinstance(around.get(name), SCALARS)}
    found = {name: value for name, value in found.items() if name not in changing and not name.startswith("__")}
    defaults = [
        *(getattr(function, "__defaults__", None) or ()),
        *(getattr(function, "__kwdefaults__", None) or {}).items(),
    ]
    return {**found, **({"defaults": defaults} if defaults else {})}


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
