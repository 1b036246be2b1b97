"""What has to be equal for two fits to be the same, apart from the data: the recipe of a fit."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..callbacks.core import Callback
from ..callbacks.distributed import DistributedTraining
from ..callbacks.precision import MixedPrecision
from ..callbacks.schedule import ParamScheduler
from ..data.loaders import DeviceLoader
from ..data.sharding import ShardedSampler
from .described import class_of, described, layer_text
from .metrics import metric_name
from .own_code import own_code

__all__ = ["recipe"]

POINTS = 11  # at which a schedule is looked at
HOW_NOT_WHAT = {"fused", "foreach", "capturable", "differentiable"}  # ways to compute the same step
IN_ANY_LEARNER = ("evaluate", "recorder", "progress")
WITH_A_PART = (ParamScheduler, MixedPrecision, DistributedTraining)  # of the record, for their own


def recipe(learn: Any, without: Iterable[Callback] = ()) -> dict[str, Any]:
    """The recipe of the fit that begins, as JSON values; other objects are `described`.

    The optimizer is as it is now, a schedule is the values that it has at 11 points, a model the names, shapes, dtypes
    and arguments of its layers. Callbacks that only write or show (`rank0_only`) do not belong to it, nor those in
    `without`; what they have in their own way – schedules, precision, the sharing among processes – is not told twice.
    """
    data, train_dl, dataset = learn.data, learn.data.train_dl, learn.data.train_ds
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
        "blocks": [_without_vocab(described(block)) for block in data.blocks],
        "item_tfms": [_described_transform(tfm) for tfm in getattr(dataset, "item_tfms", ())],
        "batch_tfms": [_described_transform(tfm) for tfm in data.batch_tfms],
    }


def _order(dl: DeviceLoader) -> Any:
    """In what order items come, of a loader that processes share of all of them."""
    if (own := dl.sampler) is not None:
        usual = "shuffled" if own.shuffle else "as listed"
        return usual if own.order is None else described(own.order)
    sampler = getattr(dl.dl, "sampler", None)
    return described(sampler.sampler if isinstance(sampler, ShardedSampler) else sampler)


def _precision(learn: Any) -> str:
    """What is computed in, and the weights' type where it is another."""
    weights = "/".join(sorted({str(p.dtype).removeprefix("torch.") for p in learn.model.parameters()}))
    mixed = [str(cb.dtype).removeprefix("torch.") for cb in learn.cbs if isinstance(cb, MixedPrecision)]
    return f"{mixed[0]}, weights in {weights}" if mixed else weights


def _optimizer(learn: Any) -> dict[str, Any]:
    """Its class and its hyper-parameters: one value, or where they differ one for each of its parameter groups."""
    groups = learn.opt.param_groups
    hypers = {
        name: [described(group.get(name)) for group in groups]
        for name in ["lr", *learn.opt.defaults]
        if name not in HOW_NOT_WHAT
    }
    found = described(learn.opt)
    return {
        **{name: value for name, value in found.items() if name != "defaults"},
        **{name: values[0] if all(v == values[0] for v in values) else values for name, values in hypers.items()},
    }


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
    others = [*without, *(getattr(learn, name) for name in IN_ANY_LEARNER)]
    return not (cb.rank0_only or isinstance(cb, WITH_A_PART) or any(cb is other for other in others))


def _model(model: nn.Module, groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    names = {id(p): name for name, p in model.named_parameters()}
    layers = dict(model.named_modules())
    own = {cls.__name__: own_code(cls) for cls in dict.fromkeys(map(class_of, layers.values()))}
    tensors = [*model.named_parameters(), *model.named_buffers()]
    found = {
        "class": class_of(model).__qualname__,
        "layers": {name or "the whole": layer_text(layer) for name, layer in layers.items()},
        "tensors": _census(tensors),
        "trainable": _census((name, p) for name, p in model.named_parameters() if p.requires_grad),
        "groups": [_census((names.get(id(p), "elsewhere"), p) for p in group["params"]) for group in groups],
        "layer_classes": {name: code for name, code in own.items() if code},
    }
    hparams = getattr(model, "hparams", None)  # as modules of Lightning's kind keep their arguments
    return found | ({"hparams": described(hparams)} if isinstance(hparams, Mapping) else {})


def _census(named: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
    """How many tensors, and numbers in them; and a hash of their names, shapes and dtypes."""
    listed = [
        (name, t.dtype, () if is_lazy(t) else tuple(t.shape), 0 if is_lazy(t) else t.numel()) for name, t in named
    ]
    digest = hashlib.sha256("\n".join(f"{name} {dtype} {shape}" for name, dtype, shape, _ in listed).encode())
    return {"tensors": len(listed), "numbers": sum(n for *_, n in listed), "sha256": digest.hexdigest()}


def _without_vocab(block: dict[str, Any]) -> dict[str, Any]:
    """A block but for what it has learned from the data, which is told there."""
    return {name: value for name, value in block.items() if name != "vocab"}


def _described_transform(tfm: Any) -> Any:
    """A transform of torchvision, or a function, without the `Transform` around it."""
    wrapped = vars(tfm).values() if type(tfm).__name__.startswith("_") else ()
    return described(next(iter(wrapped), tfm))
