"""Checks of what a transform is given: where the mistake is made, and in words that say what to give instead."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

__all__ = ["check_float", "check_option", "check_probabilities", "check_range"]


def check_option(name: str, value: str, options: Sequence[str]) -> None:
    """Raise ValueError, listing the `options`, if `value` is none of them."""
    if value not in options:
        raise ValueError(f"{name} is one of {', '.join(map(repr, options))}, not {value!r}.")


def check_float(image: Tensor, step: str) -> None:
    """Raise TypeError if `image` holds integers, which `step` cannot work with."""
    if not image.is_floating_point():
        raise TypeError(f"{step} needs float images in [0, 1], not {image.dtype}: let ToFloat() come before it.")


def check_range(name: str, value: Any, is_inside: bool, expected: str) -> None:
    """Raise ValueError, saying what is `expected`, unless `is_inside`."""
    if not is_inside:
        raise ValueError(f"{name} is {expected}, not {value!r}.")


def check_probabilities(transform: Any, *names: str) -> None:
    """Raise ValueError unless these fields are probabilities, or None, where another one holds."""
    for name in names:
        value = getattr(transform, name)
        check_range(name, value, value is None or 0 <= value <= 1, "a probability, 0 to 1")
