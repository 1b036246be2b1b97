"""What differs between two records of runs, in sentences."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ..data.items import short
from .described import CODE, in_words
from .files import one_line

__all__ = ["differences"]

MOST = 10
ABSENT = object()
PARTS = {"recipe": "", "data": "data.", "seed": "seed."}
NAMES = {
    "n_epoch": "the number of epochs",
    "bs": "the batch size",
    "valid_bs": "the batch size of validation",
    "drop_last": "whether an incomplete batch is dropped (drop_last)",
    "limit": "the limit of training batches",
    "order": "the order of training items",
    "precision": "the precision",
    "loss": "the loss",
    "optimizer": "the optimizer",
    "optimizer.lr": "the learning rate",
    "optimizer.weight_decay": "the weight decay",
    "model": "the model",
    "model.class": "the model's class",
    "model.tensors": "what the model holds",
    "model.trainable": "what trains of the model",
    "model.groups": "what trains in each group",
    "data.vocab": "the vocabulary",
    "seed.data": "the seed of the data",
    "seed.torch": "the seed of torch",
}
MEMBERS = {"callbacks": "callback", "metrics": "metric", "item_tfms": "item transform", "batch_tfms": "batch transform",
           "blocks": "block", "getters": "getter"}  # fmt: skip
HASHES = {"content": "items", "names": "file names", "sizes": "file sizes", "labels": "labels"}
ADVICE = {"seed.data": " (for the same in each run, give databunch(seed=…) or call set_seed(…) first)"}


def differences(old: Any, new: Mapping[str, Any]) -> list[str]:
    """Sentences on what differs in recipe, data and seed between two results of `run_record`; none where nothing does.

    There are ten of them at most, and then how many more. A part that one of the records does not know is passed over,
    so a later version may note more; and code that two versions of Python have compiled is taken for the same. `old`
    may come from a file, and be anything: what is no record differs.
    """
    if not (isinstance(old, dict) and all(isinstance(old.get(part), dict) for part in PARTS)):
        return ["what was recorded of it is no record of a run"]
    pairs = [
        (prefix + key, old[part][key], new[part][key])
        for part, prefix in PARTS.items()
        for key in new[part]
        if key in old[part]
    ]
    found = [one_line(sentence, 400) for pair in pairs for sentence in _sentences(*pair)]
    return found if len(found) <= MOST else [*found[:MOST], f"and {len(found) - MOST} more"]


def _sentences(path: str, old: Any, new: Any) -> list[str]:
    try:
        return list(_compared(path, old, new))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):  # not as `run_record` writes it
        return [f"{NAMES.get(path, path)} was recorded in another form"]


def _compared(path: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if path in SENTENCES:
        yield from SENTENCES[path](old, new)
    elif path in MEMBERS:
        yield from _members(MEMBERS[path], _keyed(old), _keyed(new))
    elif path.endswith(CODE):
        if old.partition(":")[0] == new.partition(":")[0]:  # the same Python has compiled it
            name = path.removesuffix(f".{CODE}")
            yield f"the code of {NAMES.get(name, name)} has changed"
    elif isinstance(old, dict) and isinstance(new, dict) and _head(old) == _head(new) and "sha256" not in new:
        for key in dict.fromkeys([*old, *new]):
            yield from _compared(f"{path}.{key}", old.get(key, ABSENT), new.get(key, ABSENT))
    else:
        yield _changed(NAMES.get(path, path), old, new) + ADVICE.get(path, "")


def _changed(name: str, old: Any, new: Any) -> str:
    if old is ABSENT:
        return f"{name} is new: {_text(new)}"
    if new is ABSENT:
        return f"{name} is gone, it was {_text(old)}"
    was, is_ = _text(old), _text(new)
    return f"{name} was {was} and is {is_}" if was != is_ else f"{name} has other contents: {was}"


def _text(found: Any) -> str:
    return found if isinstance(found, str) else short(in_words(found))


def _head(found: Any) -> str:
    """What a described object is, by its name."""
    if not isinstance(found, dict):
        return str(found)
    return found.get("class") or (_head(found["partial"]) if "partial" in found else found.get("function", ""))


def _keyed(members: Any) -> dict[str, Any]:
    """Described objects by their names, numbered where several have the same."""
    if isinstance(members, dict):
        return members
    keyed, seen = {}, Counter()
    for name, member in ((_head(member), member) for member in members):
        seen[name] += 1
        keyed[name if seen[name] == 1 else f"{name} {seen[name]}"] = member
    return keyed


def _members(kind: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    if old == new and kind != "callback":
        yield f"the {kind}s come in another order"
    for key in dict.fromkeys([*old, *new]):
        if key not in new:
            yield f"{kind} {_text(old[key])} is gone"
        elif key not in old:
            yield f"{kind} {_text(new[key])} is new"
        else:
            yield from _compared(f"{kind} {key}", old[key], new[key])


def _model(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    rest = ["tensors"] if old["tensors"] != new["tensors"] else ["trainable", "groups"]  # which follow from the tensors
    for key in ["class", "layers", *rest]:
        yield from _compared(f"model.{key}", old[key], new[key])


def _layers(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    """One sentence for all layers, since a network that is wider is so in many."""
    first, *others = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    layer = "the model" if first == "the whole" else f"the model's layer {first}"
    more = f", and {len(others)} more of its layers differ" if others else ""
    yield _changed(layer, old.get(first, ABSENT), new.get(first, ABSENT)) + more


def _schedules(old: dict[str, list], new: dict[str, list]) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        was, is_ = (_course(n[name]) if name in n else "absent" for n in (old, new))
        if old.get(name) != new.get(name):
            yield f"the schedule of {name} was {was} and is {is_}" + (": it takes another way" if was == is_ else "")


def _course(scheds: list) -> str:
    """Where the schedule of the last parameter group begins, is in the middle, and ends."""
    return " → ".join(f"{float(value):.3g}" for value in scheds[-1][::5])


def _data(name: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> Iterator[str]:
    if old is None or new is None:
        yield f"{name} are {'new' if old is None else 'gone'}"
    elif old["items"] != new["items"]:
        yield f"{name} had {old['items']} items and have {new['items']}"
    elif others := [what for key, what in HASHES.items() if old.get(key) != new.get(key)]:
        yield f"{name} have {new['items']} items as before, but other {' and '.join(others)}"
    else:
        yield f"{name} were a {old['kind']} and are a {new['kind']}"


SENTENCES: dict[str, Callable[[Any, Any], Iterator[str]]] = {
    "model": _model,
    "model.layers": _layers,
    "schedules": _schedules,
    "data.train": partial(_data, "the training data"),
    "data.valid": partial(_data, "the validation data"),
}
