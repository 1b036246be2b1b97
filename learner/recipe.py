"""What has to be equal for two fits to be the same, apart from the data: the recipe of a fit."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..callbacks.core import Callback
from ..callbacks.distributed import DistributedTraining
from ..callbacks.parted import own_class
from ..callbacks.precision import MixedPrecision
from ..callbacks.schedule import ParamScheduler
from ..data.loaders import DeviceLoader
from ..data.sharding import ShardedSampler
from .described import described, in_words
from .metrics import metric_name

__all__ = ["recipe"]

POINTS = 11  # at which a schedule is looked at
HOW_NOT_WHAT = {"fused", "foreach", "capturable", "differentiable"}  # ways to compute the same step
OF_THE_LEARNER = ("evaluate", "recorder", "progress", "system")  # callbacks that it brings itself
WITH_A_PART = (ParamScheduler, MixedPrecision, DistributedTraining)  # of the record, for their own


def recipe(learn: Any, without: Iterable[Callback] = ()) -> dict[str, Any]:
    """The recipe of the fit that begins, as JSON values; other objects are `described`.

    The optimizer is as it is now, a schedule is the values that it has at 11 points. Callbacks that only write or show
    (`rank0_only`) do not belong to it, nor those in `without`; schedules, precision and the sharing among processes
    are told in their own way.
    """
    data, train_dl, dataset = learn.data, learn.data.train_dl, learn.data.train_ds
    blocks = [described(block) for block in data.blocks]
    return {
        "n_epoch": int(learn.n_epoch),
        "bs": data.bs,
        "valid_bs": None if data.valid_dl is None else data.valid_dl.bs,
        "drop_last": getattr(train_dl.dl, "drop_last", None),
        "limit": train_dl.limit,
        "order": _order(train_dl),
        "precision": _precision(learn),
        "optimizer": _optimizer(learn),
        "schedules": _schedules(learn.cbs),
        "loss": described(learn.loss_func),
        "metrics": {metric_name(metric): described(metric) for metric in learn.metrics},
        "callbacks": [described(cb) for cb in learn.cbs if _counts(cb, learn, without)],
        "model": _model(learn.model, learn.opt.param_groups),
        "getters": [described(getter) for getter in getattr(dataset, "getters", ())],
        "blocks": [{name: value for name, value in block.items() if name != "vocab"} for block in blocks],  # it is data
        "item_tfms": [_described_transform(tfm) for tfm in getattr(dataset, "item_tfms", ())],
        "batch_tfms": [_described_transform(tfm) for tfm in data.batch_tfms],
    }


def _order(dl: DeviceLoader) -> Any:
    """In what order items come, of a loader that processes share of all of them."""
    if (own := dl.sampler) is not None:
        usual = "shuffled" if own.shuffle else "as listed"
        return usual if own.order is None else described(own.order, room=1)
    sampler = getattr(dl.dl, "sampler", None)
    return described(sampler.sampler if isinstance(sampler, ShardedSampler) else sampler, room=1)


def _precision(learn: Any) -> str:
    """What is computed in, and the weights' type where it is another."""
    weights = "/".join(sorted({str(p.dtype).removeprefix("torch.") for p in learn.model.parameters()}))
    mixed = [str(cb.dtype).removeprefix("torch.") for cb in learn.cbs if isinstance(cb, MixedPrecision)]
    return f"{mixed[0]}, weights in {weights}" if mixed else weights


def _optimizer(learn: Any) -> dict[str, Any]:
    """Its class and its hyper-parameters: one value, or where they differ one for each of its parameter groups."""
    hypers = {}
    for name in ["lr", *learn.opt.defaults]:
        values = [described(group.get(name)) for group in learn.opt.param_groups]
        hypers[name] = values[0] if all(value == values[0] for value in values) else values
    return described(learn.opt) | {name: value for name, value in hypers.items() if name not in HOW_NOT_WHAT}


def _schedules(cbs: Iterable[Callback]) -> dict[str, list]:
    """The values at evenly spaced points of each schedule of each hyper-parameter."""
    found: dict[str, list] = {}
    for cb in cbs:
        for name, scheds in cb.scheds.items() if isinstance(cb, ParamScheduler) else ():
            found.setdefault(name, []).extend(map(_sampled, scheds))
    return found


def _sampled(sched: Callable[[float], float]) -> list:
    """To nine digits, since processors differ in the last ones of a cosine."""
    return [described(float(f"{float(sched(i / (POINTS - 1))):.9g}")) for i in range(POINTS)]


def _counts(cb: Callback, learn: Any, without: Iterable[Callback]) -> bool:
    """Whether a callback is part of what makes a fit the same."""
    others = [*without, *(getattr(learn, name) for name in OF_THE_LEARNER)]
    return not (cb.rank0_only or isinstance(cb, WITH_A_PART) or any(cb is other for other in others))


def _model(model: nn.Module, groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Its layers as they print, and a census of all its tensors, of those that train, and of each parameter group."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        "class": own_class(model).__qualname__,
        "layers": {name or "the whole": _layer_text(layer) for name, layer in model.named_modules()},
        "tensors": _census([*model.named_parameters(), *model.named_buffers()]),
        "trainable": _census((name, p) for name, p in model.named_parameters() if p.requires_grad),
        "groups": [_census((names.get(id(p), "elsewhere"), p) for p in group["params"]) for group in groups],
    }


def _layer_text(layer: nn.Module) -> str:
    """A layer by itself as it prints, without addresses; one that prints no arguments with those that it keeps."""
    name = own_class(layer).__name__
    if printed := " ".join(layer.extra_repr().split()):
        return f"{name}({re.sub(r' at 0x[0-9a-fA-F]+', '', printed)})"
    return name + in_words(described(layer, room=1)).removeprefix(type(layer).__qualname__)


def _census(named: Iterable[tuple[str, Tensor]]) -> str:
    """How many tensors, and numbers in them; and a short hash of their names, shapes and dtypes."""
    listed = [(name, t.dtype, () if is_lazy(t) else tuple(t.shape)) for name, t in named]
    digest = hashlib.sha256("\n".join(f"{name} {dtype} {shape}" for name, dtype, shape in listed).encode())
    numbers = sum(math.prod(shape) for *_, shape in listed)
    return f"{len(listed)} tensors of {numbers:,} numbers ({digest.hexdigest()[:8]})"


def _described_transform(tfm: Any) -> Any:
    """A transform of torchvision, or a function, without the `Transform` around it."""
    wrapped = vars(tfm).values() if type(tfm).__name__.startswith("_") else ()
    return described(next(iter(wrapped), tfm))
