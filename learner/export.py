"""Exporting a learner for use elsewhere, without pickle: weights, and a JSON description of everything around them.

The description names classes of this library and carries their parameters. What is your own – a function, a transform,
a model class – is described by its name (a dataclass by its fields, too), and handed in again when the file is loaded.

    learn.export("pets.pt")
    learn = load_learner("pets.pt", custom={"breed_of": breed_of})
    learn.predict("cat.jpg")
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import __version__
from ..callbacks.parted import own_class
from ..data.bunch import DataBunch
from ..data.dataset import Dataset
from ..data.loaders import DeviceLoader, make_loader
from ..data.portable import describe, portable_name, restore
from . import losses
from .files import FileError, load_file, one_line, save_file
from .optim import trainable_params
from .shards import whole
from .weights import check_weights, load_weights

__all__ = ["export_learner", "load_learner"]

KEY = "warmstart export"
FORMAT = 1  # raised when an older version could not read what this one writes
ABSENT = {"absent": "it has no name"}  # stands for what has no description
MANY = 6  # names that an error lists


def export_learner(learn: Any, path: Path) -> Path:
    """See `Learner.export`. Raises ValueError for what has no name to ask for again, such as a lambda."""
    own: dict[str, Any] = {}  # the user's objects by name
    description = {
        "format": FORMAT,
        "version": __version__,
        "torch": torch.__version__,
        "model": _describe_model(learn, own),
        "loss": _describe("loss_func", _portable_loss(learn.loss_func), own),
        "data": _describe_data(learn.data, own) if learn.data.blocks else None,
        "splitter": _describe_if_possible(learn.splitter, own),
    }
    state = whole(learn.model.state_dict())
    weights = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in state.items()}
    content = {KEY: json.dumps(description), "weights": weights}
    return learn.ranks.from_first(lambda: save_file(content, path))


def _describe(what: str, obj: Any, own: dict[str, Any]) -> Any:
    """`describe(obj)`; its error says which part of the learner cannot be exported."""
    try:
        return describe(obj, own)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _describe_if_possible(obj: Any, own: dict[str, Any]) -> Any:
    """A description of what prediction can do without."""
    try:
        return describe(obj, own)
    except ValueError:
        return ABSENT


def _describe_model(learn: Any, own: dict[str, Any]) -> Any:
    if learn.model_spec is not None:
        return _describe("the model", learn.model_spec, own)
    name = portable_name(own_class(learn.model))
    own[name] = learn.model
    return {"custom": name} | ({"takes_arguments": True} if _takes_arguments(own_class(learn.model)) else {})


def _takes_arguments(kind: type) -> bool:
    """Whether a class makes no model of use without arguments, as `nn.Sequential` makes none."""
    if kind.__module__.startswith("torch."):
        return True
    try:
        inspect.signature(kind).bind()
    except TypeError:
        return True
    return False


def _describe_data(data: DataBunch, own: dict[str, Any]) -> dict:
    ds = data.train_ds
    return {
        "blocks": _describe("blocks", list(data.blocks), own),
        "n_inp": ds.n_inp,
        "get_x": _describe("get_x", ds.getters[: ds.n_inp], own),
        "item_tfms": _describe("item_tfms", ds.item_tfms, own),
        "batch_tfms": _describe("batch_tfms", data.batch_tfms, own),
        "bs": data.bs,
        "get_y": [_describe_if_possible(getter, own) for getter in ds.getters[ds.n_inp :]],
    }


def _portable_loss(loss: Any) -> Any:
    """A loss of PyTorch as ours of the same meaning, since ours describe themselves; any other as it is."""
    if isinstance(loss, nn.Module):
        if type(loss) is nn.CrossEntropyLoss:
            return losses.CrossEntropyLoss(loss.weight, loss.ignore_index, loss.reduction, loss.label_smoothing, axis=1)
        if type(loss) is nn.BCEWithLogitsLoss:
            return losses.BCEWithLogitsLoss(reduction=loss.reduction, pos_weight=loss.pos_weight, weight=loss.weight)
        ours = {nn.MSELoss: losses.MSELoss, nn.L1Loss: losses.L1Loss}.get(type(loss))
        return ours(loss.reduction) if ours else loss
    functions = {
        F.cross_entropy: partial(losses.CrossEntropyLoss, axis=1),
        F.binary_cross_entropy_with_logits: losses.BCEWithLogitsLoss,
        F.mse_loss: losses.MSELoss,
        F.l1_loss: losses.L1Loss,
    }
    return next((ours() for theirs, ours in functions.items() if loss is theirs), loss)


def load_learner(fname: str | Path, device: torch.device | str = "cpu", custom: Mapping[str, Any] | None = None) -> Any:
    """The learner that `export` wrote: it can predict, and be unfrozen and trained with new data (`learn.data = …`).

    `custom` hands in what was your own by name: functions, objects or their classes, and for a model its class (called
    without arguments), a function that makes one, or an instance. The functions that read labels and split the model
    into layer groups may be left out: prediction does without. Nothing in the file is ever run. A model's class, or the
    recipe that described it, may name a class of learner of its own: `learner = GANLearner`.

    Raises FileNotFoundError; FileError for a file that is damaged, not an export, or of another version; KeyError that
    lists the names missing from `custom`.
    """
    device, custom = torch.device(device), dict(custom or {})
    torch.empty(0, device=device)  # an absent device is not the file's fault
    content = load_file(fname)
    description = _description(content, fname)
    try:
        _check_custom(fname, description, custom)
        model, spec = _restore_model(description["model"], custom, content["weights"])
        load_weights(model, content["weights"], "it")
        data = _restore_data(description["data"], device, custom)
        loss = restore(description["loss"], custom)
        splitter = _restore_if_given(description["splitter"], custom, getattr(spec, "split", trainable_params))
        return _assemble(data, model, loss, splitter, spec)
    except (MissingObjects, ImportError):
        raise
    except Exception as error:  # a description can be wrong in any way
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise FileError(
            f"{fname} cannot be built by version {__version__} (version {one_line(description.get('version'), 20)} "
            f"wrote it): {one_line(reason, 450) or type(error).__name__}"
        ) from error


class MissingObjects(KeyError):
    """An exported file needs objects of the user's own that were not handed in."""

    def __str__(self) -> str:
        return str(self.args[0])  # without the quotation marks of KeyError


def _description(content: Any, fname: str | Path) -> dict:
    """The description in a file. Raises FileError where there is none that this version reads."""
    if not isinstance(content, dict) or not isinstance(content.get(KEY), str):
        raise FileError(
            f"{fname} is not an exported learner: write one with learn.export(). Weights of learn.save() are read by "
            "learn.load()."
        )
    try:
        description = json.loads(content[KEY])
        found = description["format"], description.get("version")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise FileError(f"{fname} is damaged: its description cannot be read. Export the learner again.") from None
    if found[0] != FORMAT:
        theirs = [one_line(repr(value), 40) for value in found]
        raise FileError(
            f"{fname} was written in format {theirs[0]} by version {theirs[1]} of warmstart; this is version "
            f"{__version__}, which reads format {FORMAT}. Install the one that wrote it, or export the learner again."
        )
    return description


def _check_custom(fname: str | Path, description: dict, custom: Mapping[str, Any]) -> None:
    """Raise MissingObjects that lists the names that `custom` lacks, and the call that hands them in."""
    parts = {"the model": description["model"], "the loss": description["loss"]}
    parts |= {step: spec for step, spec in (description["data"] or {}).items() if step != "get_y"}
    missing = {name: part for part, spec in parts.items() for name in _custom_names(spec) if name not in custom}
    if missing:
        few = {one_line(name, 50): one_line(part, 20) for name, part in list(missing.items())[:MANY]}
        more = f" and {len(missing) - MANY:,} more" if len(missing) > MANY else ""
        listed = ", ".join(f"{name!r} (in {part})" for name, part in few.items()) + more
        model = description["model"]
        called = model.get("custom") if isinstance(model, dict) and model.get("takes_arguments") else None
        shown = {name: f"lambda: {name}(…)" if name == called else name for name in few}
        pattern = ", ".join(f"{name!r}: {example}" for name, example in shown.items()) + (", …" if more else "")
        raise MissingObjects(
            f"{fname} needs objects of your own, which no file brings: {listed}. Define or import them, and hand them "
            f"in: load_learner({str(fname)!r}, custom={{{pattern}}}). An instance is taken as it is, a class is called "
            "without arguments, or if it is a dataclass with those in the file; for a model a function that makes it "
            "will do, too."
        )


def _custom_names(spec: Any) -> Iterator[str]:
    if isinstance(spec, dict) and isinstance(spec.get("custom"), str):
        yield spec["custom"]
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ():
        yield from _custom_names(part)


def _restore_if_given(spec: Any, custom: dict[str, Any], otherwise: Callable) -> Any:
    """What prediction can do without, `otherwise` where neither the file nor `custom` has it."""
    return otherwise if spec == ABSENT or set(_custom_names(spec)) - set(custom) else restore(spec, custom)


def _restore_model(description: dict, custom: dict[str, Any], weights: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """The model with new weights, and what described it (None for what was handed in)."""
    made = restore(description, custom)
    spec = made if hasattr(made, "build") and not isinstance(made, nn.Module) else None
    if spec:
        _check_plan(spec, weights)
    model = spec.build(pretrained=False) if spec else made if isinstance(made, nn.Module) else made()
    if not isinstance(model, nn.Module):
        raise TypeError(f"custom gave {type(model).__name__} for the model, not a torch.nn.Module")
    return model, spec


def _check_plan(spec: Any, weights: Mapping[str, Any]) -> None:
    """Raise ValueError for a description that the weights do not fit, before a network of that size is made."""
    try:
        with torch.device("meta"):
            plan = spec.build(pretrained=False)
    except (NotImplementedError, RuntimeError):  # some networks compute with numbers while they are made
        return
    check_weights(plan, weights, "it")


def _restore_data(spec: dict | None, device: torch.device, custom: dict[str, Any]) -> DataBunch:
    """A DataBunch without items, whose `test_dl` knows the pipeline."""
    if spec is None:
        return DataBunch([], device=device)
    blocks = restore(spec["blocks"], custom)
    labels = [_restore_if_given(getter, custom, _no_label) for getter in spec["get_y"]]
    getters = [*restore(spec["get_x"], custom), *labels]
    empty = Dataset([], blocks, getters, restore(spec["item_tfms"], custom), spec["n_inp"])
    loader = make_loader(empty, spec["bs"] or 64, 0, device)
    dl = DeviceLoader(loader, device, restore(spec["batch_tfms"], custom), blocks)
    return DataBunch(dl, dl, device=device)


def _no_label(item: Any) -> Any:
    """Stands for a function that reads labels and was not handed in."""
    raise LookupError(
        "how labels are read is not in the file: hand your function in, load_learner(…, custom={name: function}), or "
        "train with data of your own, learn.data = …"
    )


def _assemble(data: DataBunch, model: nn.Module, loss: Callable, splitter: Callable, spec: Any) -> Any:
    from .learner import Learner  # which imports this module

    own = getattr(model if spec is None else spec, "learner", None)  # a recipe or a system may have one of its own
    kind = own if isinstance(own, type) and issubclass(own, Learner) else Learner
    learn = kind(data, model, loss, splitter=splitter, model_spec=spec)
    learn.model.eval()
    return learn
