"""Exporting a learner for use elsewhere, without pickle: weights, and a JSON description of everything around them.

The description names classes of this library and carries their parameters. What is your own – a function, a transform, a
model class – is described by its name alone, and handed in again when the file is loaded.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .. import __version__
from ..data.bunch import DataBunch
from ..data.dataset import Dataset
from ..data.loaders import DeviceLoader, make_loader
from ..data.portable import describe, portable_name, restore
from . import losses
from .files import FileError, load_file, save_file
from .optim import trainable_params
from .weights import load_weights

__all__ = ["export_learner", "load_learner"]

KEY = "warmstart export"
FORMAT = 1  # raised when an older version could not read what this one writes


def export_learner(learn: Any, path: Path) -> Path:
    """See `Learner.export`. Raises ValueError for a lambda in the pipeline, which has no name to ask for again."""
    description = {
        "format": FORMAT,
        "version": __version__,
        "torch": torch.__version__,
        "model": describe(learn.model_spec) if learn.model_spec is not None else {"custom": portable_name(learn.model)},
        "splitter": _optional(learn.splitter) if learn.model_spec is not None else None,
        "loss": describe(_portable_loss(learn.loss_func)),
        "data": _describe_data(learn.data),
    }
    weights = {name: tensor.cpu() for name, tensor in learn.model.state_dict().items()}
    return save_file({KEY: json.dumps(description), "weights": weights}, path)


def _describe_data(data: DataBunch) -> dict | None:
    if not data.blocks:
        return None
    ds = data.train_ds
    return {
        "blocks": describe(list(data.blocks)),
        "n_inp": ds.n_inp,
        "get_x": describe(ds.getters[: ds.n_inp]),
        "get_y": [_optional(getter) for getter in ds.getters[ds.n_inp :]],
        "item_tfms": describe(ds.item_tfms),
        "batch_tfms": describe(data.batch_tfms),
        "bs": data.bs,
    }


def _portable_loss(loss: Any) -> Any:
    """A loss of PyTorch as ours of the same meaning, since only ours describe themselves; any other as it is."""
    if isinstance(loss, nn.CrossEntropyLoss):
        return losses.CrossEntropyLoss(loss.weight, loss.ignore_index, loss.reduction, loss.label_smoothing, axis=1)
    ours = {
        F.cross_entropy: losses.CrossEntropyLoss(axis=1),
        nn.MSELoss: losses.MSELoss(),
        F.mse_loss: losses.MSELoss(),
        nn.L1Loss: losses.L1Loss(),
        F.l1_loss: losses.L1Loss(),
        nn.BCEWithLogitsLoss: losses.BCEWithLogitsLoss(),
        F.binary_cross_entropy_with_logits: losses.BCEWithLogitsLoss(),
    }
    return ours.get(type(loss) if isinstance(loss, nn.Module) else loss, loss) if getattr(loss, "__hash__", None) else loss


def _optional(obj: Any) -> Any:
    """A description of what prediction can do without; None where there is none."""
    try:
        return describe(obj)
    except ValueError:
        return None


def load_learner(fname: str | Path, device: torch.device | str = "cpu", custom: dict[str, Any] | None = None) -> Any:
    """The learner that `export` wrote: it can predict, and be unfrozen and trained with new data (`learn.data = …`).

    `custom` hands in what was your own by name: functions, transforms, and for a model of your own its class (called without
    arguments), a function that makes one, or an instance. Nothing in the file is ever run.
    Raises FileNotFoundError; FileError for a file that is damaged, not an export, or of a newer version; KeyError that lists
    the names missing from `custom`.
    """
    content = load_file(fname, device)
    if not isinstance(content, dict) or not isinstance(content.get(KEY), str):
        raise FileError(f"{fname} is not an exported learner: write one with learn.export(); weights of learn.save() go into learn.load().")
    description = json.loads(content[KEY])
    if description.get("format") != FORMAT:
        raise FileError(
            f"{fname} was written in format {description.get('format')} by version {description.get('version')}; this is version "
            f"{__version__}, which reads format {FORMAT}. Install the version that wrote it: pip install warmstart=={description.get('version')}."
        )
    _check_custom(fname, description, custom or {})
    try:
        return _build(description, content["weights"], torch.device(device), custom or {}, str(fname))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise FileError(f"{fname} cannot be built by version {__version__} (it was written by {description.get('version')}): {error}") from error


def _check_custom(fname: str | Path, description: dict, custom: dict[str, Any]) -> None:
    needed = {key: description[key] for key in ("model", "loss", "data")}
    data = needed["data"] or {}
    needed["data"] = {key: value for key, value in data.items() if key != "get_y"}
    missing = {name: where for where, part in needed.items() for name in _custom_names(part) if name not in custom}
    if missing:
        listed = ", ".join(f"{name!r} (of the {where})" for name, where in missing.items())
        pattern = ", ".join(f"{name!r}: {name}" for name in missing)
        raise KeyError(f"{fname} uses objects of your own: {listed}. Hand them in: load_learner({str(fname)!r}, custom={{{pattern}}}).")


def _custom_names(spec: Any) -> Iterator[str]:
    if isinstance(spec, dict) and set(spec) == {"custom"}:
        yield spec["custom"]
        return
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ():
        yield from _custom_names(part)


def _build(description: dict, weights: dict, device: torch.device, custom: dict[str, Any], source: str) -> Any:
    from .learner import Learner

    spec = restore(description["model"], custom)
    model = _make_model(spec)
    load_weights(model, weights, source)
    splitter = restore(description["splitter"], custom) if not set(_custom_names(description["splitter"])) - set(custom) else None
    learn = Learner(
        _restore_data(description["data"], device, custom),
        model,
        restore(description["loss"], custom),
        splitter=splitter or trainable_params,
        model_spec=spec if hasattr(spec, "build") else None,
    )
    learn.model.eval()
    return learn


def _make_model(spec: Any) -> nn.Module:
    model = spec if isinstance(spec, nn.Module) else spec.build(pretrained=False) if hasattr(spec, "build") else spec()
    if not isinstance(model, nn.Module):
        raise TypeError(f"custom gave {type(model).__name__} for the model, not a torch.nn.Module")
    return model


def _restore_data(spec: dict | None, device: torch.device, custom: dict[str, Any]) -> DataBunch:
    """A DataBunch without items, whose `test_dl` knows the pipeline."""
    if spec is None:
        return DataBunch([], device=device)
    blocks = restore(spec["blocks"], custom)
    getters = [*restore(spec["get_x"], custom), *(_label_getter(getter, custom) for getter in spec["get_y"])]
    empty = Dataset([], blocks, getters, restore(spec["item_tfms"], custom), spec["n_inp"])
    dl = DeviceLoader(make_loader(empty, spec["bs"] or 64, 0, device), device, restore(spec["batch_tfms"], custom), blocks)
    return DataBunch(dl, dl, device=device)


def _label_getter(spec: Any, custom: dict[str, Any]) -> Callable:
    names = set(_custom_names(spec)) - set(custom)
    if spec is None or names:
        return _Absent(", ".join(names) or "a lambda")
    return restore(spec, custom)


class _Absent:
    """A label getter that did not come with the file: not needed to predict."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, item: Any) -> Any:
        raise LookupError(f"labels were read by {self.name}, which is not in the file: load_learner(..., custom={{name: function}}) brings it")
