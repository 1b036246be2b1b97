"""The table of all callbacks, `docs/callbacks.md`, made from the code.

python docs/callback_table.py
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import warmstart
from warmstart.callbacks.core import EVENTS, Callback

ROOT = Path(warmstart.__file__).parent
FOLDERS = ("callbacks", "learner", "vision", "text")
HEAD = """# Callbacks

Every callback of the library, in the order in which they hear an event (`order`, smaller first; 0 for yours, unless you
say otherwise). [The source](../callbacks/core.py) explains events; each callback is meant to be read.

This page is made from the code: `python docs/callback_table.py`.

| callback | what it does | order | events |
|---|---|---|---|
"""


def callbacks() -> list[type[Callback]]:
    """All public callback classes of the package, by order and name."""
    found = {cb for module in modules() for cb in vars(module).values() if is_callback(cb)}
    return sorted(found, key=lambda cb: (cb.order, cb.__name__))


def modules() -> Iterator:
    for folder in FOLDERS:
        package = importlib.import_module(f"warmstart.{folder}")
        for info in pkgutil.walk_packages(package.__path__, f"warmstart.{folder}."):
            yield importlib.import_module(info.name)


def is_callback(value: object) -> bool:
    is_class = inspect.isclass(value) and issubclass(value, Callback) and value is not Callback
    return is_class and not value.__name__.startswith("_")  # type: ignore[attr-defined]


def row(cb: type[Callback]) -> str:
    file = Path(inspect.getsourcefile(cb) or "").relative_to(ROOT).as_posix()
    summary = " ".join((inspect.getdoc(cb) or "").partition("\n\n")[0].split())
    heard = [event for event in EVENTS if getattr(cb, event, None) is not None]
    return f"| [`{cb.__name__}`](../{file}) | {summary} | {cb.order} | {', '.join(f'`{e}`' for e in heard)} |\n"


def page() -> str:
    return HEAD + "".join(map(row, callbacks()))


if __name__ == "__main__":
    (ROOT / "docs/callbacks.md").write_text(page(), encoding="utf-8")
