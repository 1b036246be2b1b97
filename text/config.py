"""Settings of a network, as `config=` takes them: those that deviate from the network's own.

checked_config(AWD_LSTM, "lm_config", {"n_layers": 2})     # all settings of a language model, with 2 layers
"""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["checked_config", "scaled", "without"]


def checked_config(arch: Any, kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `arch.<kind>` with those of `config` in their place.

    Raises TypeError for an `arch` without such settings, ValueError for a setting that it does not have.
    """
    defaults = getattr(arch, kind, None)
    if not isinstance(defaults, Mapping) or not callable(arch):
        raise TypeError(
            f"arch is AWD_LSTM, TransformerLM, or a class of your own with settings {kind}, not {arch!r}. A model of "
            "the hub, given by its name or path, is for text_classifier_learner."
        )
    if unknown := [name for name in config if name not in defaults]:
        raise ValueError(
            f"{arch.__name__} has no setting {', '.join(map(repr, unknown))} for config: it has {', '.join(defaults)}."
        )
    return {**defaults, **config}


def scaled(config: Mapping[str, Any], drop_mult: float) -> dict[str, Any]:
    """`config` with its dropouts, all that end in `_p`, multiplied. Raises ValueError for one that is no share then."""
    found = {name: value * drop_mult if name.endswith("_p") else value for name, value in config.items()}
    if wrong := {name: value for name, value in found.items() if name.endswith("_p") and not 0 <= value < 1}:
        shown = ", ".join(f"{name}={value:.3g}" for name, value in wrong.items())
        raise ValueError(f"drop_mult={drop_mult} makes dropouts of {shown}: each has to be 0 or more, and less than 1.")
    return found


def without(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`config` but for the settings called `names`."""
    return {name: value for name, value in config.items() if name not in names}
