"""Values as a file holds them that is read without running code: numbers, texts, tensors, and what contains these."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["plain"]

KINDS: tuple[Any, ...] = (bool, int, float, str, bytes)


def plain(value: Any, name: str) -> Any:
    """`value` in new lists, tuples and dicts, with Python's numbers for numpy's; tensors are those that came.

    Raises TypeError for anything else, saying where in `name` it is.
    """
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    for kind in KINDS:
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {plain(key, f"a key of {name}"): plain(part, f"{name}[{key!r}]") for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [plain(part, f"{name}[{number}]") for number, part in enumerate(value)]
        return tuple(parts) if isinstance(value, tuple) else parts
    raise TypeError(
        f"{name} cannot be saved, it is {value!r} of {type(value).__name__}. A state is made of numbers, texts, and "
        "tensors in lists, tuples and dicts: have state_dict return such, and load_state_dict make of it what you need."
    )
