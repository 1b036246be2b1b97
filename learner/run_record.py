"""What a fit is: its recipe, its data, its seed and its surroundings, to be kept next to the weights.

    record = run_record(learn)                    # within a fit
    save_record(record, "models/run.json")
    differences(earlier, record)                  # [] where the fit is the same, see `differences.py`

The same script gives the same recipe, data and seed, whatever process runs it and on whatever machine.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..callbacks.core import Callback
from ..data.bunch import DataBunch
from ..data.fingerprint import fingerprint
from ..data.randomness import kept_generators
from .described import described
from .environment import environment
from .files import save_text
from .recipe import recipe

__all__ = ["run_record", "save_record"]


def run_record(learn: Any, without: Iterable[Callback] = ()) -> dict[str, Any]:
    """What the fit that begins is, as JSON values in four parts.

    - `recipe`: what has to be equal for a fit to be the same, see `recipe.py`; callbacks in `without` do not count.
    - `data`: fingerprints of the training and validation set, over all processes, and the vocabularies.
    - `seed`: that of the data, and torch's. Where a script sets none, each run has another one of the data.
    - `environment`: versions, device, threads, the command, git and the time.

    Nothing is changed, and no item or batch read.
    """
    with kept_generators():  # functions of the user's own may draw from them
        return {
            "recipe": recipe(learn, [*without]),
            "data": _data(learn.data),
            "seed": {"data": learn.data.train_dl.seed, "torch": _torch_seed()},
            "environment": environment(learn.data.device, learn.ranks.n),
        }


def save_record(record: Mapping[str, Any], file: str | Path) -> Path:
    """Write a record as JSON, see `save_text`."""
    return save_text(json.dumps(record, indent=1, allow_nan=False) + "\n", file)


def _torch_seed() -> int | None:
    """What torch was seeded with; None where nobody has: then it has drawn a number of 64 bits itself."""
    seed = torch.initial_seed()
    return seed if seed < 2**32 else None


def _data(data: DataBunch) -> dict[str, Any]:
    vocabs = [described(list(vocab)) for block in data.blocks if (vocab := getattr(block, "vocab", None)) is not None]
    valid = None if data.valid_dl is None else fingerprint(data.valid_ds)
    return {"train": fingerprint(data.train_ds), "valid": valid, "vocab": vocabs}
