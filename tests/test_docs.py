"""Pages that are made from the code are as the code is now."""

import importlib.util
from pathlib import Path

import warmstart
from warmstart import callbacks

DOCS = Path(warmstart.__file__).parent / "docs"


def callback_table():
    spec = importlib.util.spec_from_file_location("callback_table", DOCS / "callback_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_callbacks_is_as_the_code_is():
    written = (DOCS / "callbacks.md").read_text(encoding="utf-8")
    assert written == callback_table().page(), "make it anew: python docs/callback_table.py"


def test_the_table_of_callbacks_lists_every_one_that_can_be_imported():
    listed = {cb.__name__ for cb in callback_table().callbacks()}
    exported = {name for name in callbacks.__all__ if isinstance(getattr(callbacks, name), type)}
    exported = {name for name in exported if issubclass(getattr(callbacks, name), callbacks.Callback)}
    assert exported - {"Callback"} <= listed and len(listed) > 30
