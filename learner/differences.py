"""What differs between two records of runs, in sentences."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..data.items import short
from .described import in_words
from .own_code import OWN_CODE

__all__ = ["differences"]

MOST = 10
ABSENT = object()
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
    "model.class": "the model's class",
    "data.train.kind": "the kind of training data",
    "seed.data": "the seed of the data",
    "seed.torch": "the seed of torch",
}
MEMBERS = {"callbacks": "callback", "metrics": "metric", "item_tfms": "item transform", "batch_tfms": "batch transform",
           "blocks": "block", "getters": "getter"}  # fmt: skip
HASHES = {"content": "items", "names": "file names", "sizes": "file sizes", "labels": "labels"}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Sentences on what differs in recipe, data and seed between two results of `run_record`; none where nothing does.

    There are ten of them at most, and then how many more. A part that one of the records does not know is passed over,
    so a later version may note more; and code of the user's own that two versions of Python have compiled is taken for
    the same.
    """
    pairs = [
        (prefix + key, old[part][key], new[part][key])
        for part, prefix in (("recipe", ""), ("data", "data."), ("seed", "seed."))
        for key in new[part]
        if key in old[part]
    ]
    found = [sentence for pair in pairs for sentence in _compared(*pair)]
    return found if len(found) <= MOST else [*found[:MOST], f"and {len(found) - MOST} more"]


def _compared(path: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if path in SENTENCES:
        yield from SENTENCES[path](old, new)
    elif path in MEMBERS:
        yield from _members(MEMBERS[path], _keyed(old), _keyed(new))
    elif path.endswith(OWN_CODE):
        yield from _code(path.removesuffix(f".{OWN_CODE}"), old, new)
    elif isinstance(old, dict) and isinstance(new, dict) and _head(old) == _head(new) and "sha256" not in new:
        for key in dict.fromkeys([*old, *new]):
            yield from _compared(f"{path}.{key}", old.get(key, ABSENT), new.get(key, ABSENT))
    else:
        yield _changed(NAMES.get(path, path), old, new)


def _changed(name: str, old: Any, new: Any) -> str:
    if old is ABSENT:
        return f"{name} is new: {_text(new)}"
    if new is ABSENT:
        return f"{name} is gone, it was {_text(old)}"
    was, is_ = _text(old), _text(new)
    return f"{name} was {was} and is {is_}" if was != is_ else f"{name} has other contents: {was}"


def _text(found: Any) -> str:
    return found if isinstance(found, str) else short(in_words(found))


def _code(name: str, old: Any, new: Any) -> Iterator[str]:
    """Code that one version of Python has compiled to something else; without it, it is none of the user's own."""
    if ABSENT in (old, new) or old.partition(":")[0] == new.partition(":")[0]:
        yield f"the code of {NAMES.get(name, name)} has changed"


def _head(found: Any) -> str:
    """What a described object is, by its name."""
    if not isinstance(found, dict):
        return str(found)
    return _head(found["partial"]) if "partial" in found else found.get("class") or found.get("function") or ""


def _keyed(members: Any) -> dict[str, Any]:
    """Described objects by their names, numbered where several have the same."""
    if isinstance(members, dict):
        return members
    keyed: dict[str, Any] = {}
    for member in members:
        name, number = _head(member), 1 + sum(_head(other) == _head(member) for other in keyed.values())
        keyed[name if number == 1 else f"{name} {number}"] = member
    return keyed


def _members(kind: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    if old == new and list(old) != list(new) and kind != "callback":
        yield f"the {kind}s come in another order"
    for key in dict.fromkeys([*old, *new]):
        if key not in new:
            yield f"{kind} {_text(old[key])} is gone"
        elif key not in old:
            yield f"{kind} {_text(new[key])} is new"
        else:
            yield from _compared(f"{kind} {key}", old[key], new[key])


def _layers(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    """One sentence for all layers, since a network that is wider is so in many."""
    changed = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    more = f", and {len(changed) - 1} more of its layers differ" if len(changed) > 1 else ""
    first = changed[0] if changed else ""
    layer = "the model" if first == "the whole" else f"the model's layer {first}"
    if first and first in old and first in new:
        yield f"{layer} was {old[first]} and is {new[first]}{more}"
    elif first:
        yield f"{layer}, {old.get(first) or new[first]}, is {'gone' if first in old else 'new'}{more}"


def _model(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key in [key for key in new if key in old and key not in ("tensors", "trainable", "groups")]:
        yield from _compared(f"model.{key}", old[key], new[key])
    if old["tensors"] != new["tensors"]:
        yield _tensors("the model's weights", old["tensors"], new["tensors"])
        return  # which explains the rest
    if old["trainable"] != new["trainable"]:
        yield _tensors("the parameters that train", old["trainable"], new["trainable"])
    if old["groups"] != new["groups"]:
        was, is_ = (", ".join(f"{group['numbers']:,}" for group in n["groups"]) for n in (old, new))
        yield f"the optimizer's groups were of {was} numbers and are of {is_}" + (", others" if was == is_ else "")


def _tensors(what: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    was, is_ = (f"{n['tensors']:,} tensors of {n['numbers']:,} numbers" for n in (old, new))
    return f"{what} were {was} and are {is_}" + (" with other names, shapes or types" if was == is_ else "")


def _schedules(old: dict[str, list], new: dict[str, list]) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            was, is_ = (_course(scheds[name]) if name in scheds else "absent" for scheds in (old, new))
            more = ": it takes another way" if was == is_ else ""
            yield f"the schedule of {name} was {was} and is {is_}{more}"


def _course(scheds: list[list[float]]) -> str:
    """Where the schedule of the last layer group begins, is in the middle, and ends."""
    return " → ".join(f"{value:.3g}" if isinstance(value, (int, float)) else value for value in scheds[-1][::5])


def _set_of(name: str) -> Callable[[Any, Any], Iterator[str]]:
    def compare(old: dict[str, Any] | None, new: dict[str, Any] | None) -> Iterator[str]:
        if old is None or new is None:
            yield f"the {name} data are {'new' if old is None else 'gone'}"
        elif old["items"] != new["items"]:
            yield f"the {name} data had {_count(old)} items and have {_count(new)}"
        elif others := [what for key, what in HASHES.items() if old.get(key) != new.get(key)]:
            yield f"the {name} data have {_count(new)} items as before, but other {' and '.join(others)}"
        else:
            yield f"the {name} data were a {old['kind']} and are a {new['kind']}"

    return compare


def _count(found: dict[str, Any]) -> str:
    return "an unknown number of" if found["items"] is None else f"{found['items']:,}"


def _vocabs(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            yield _changed("the vocabulary", old.get(key, ABSENT), new.get(key, ABSENT))


def _layer_classes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Code of layers of the user's own; that there are others, their names say."""
    for name in old:
        if name in new:
            yield from _compared(f"layer {name}", old[name], new[name])


SENTENCES: dict[str, Callable[[Any, Any], Iterator[str]]] = {
    "model": _model,
    "model.layers": _layers,
    "model.layer_classes": _layer_classes,
    "schedules": _schedules,
    "data.train": _set_of("training"),
    "data.valid": _set_of("validation"),
    "data.vocab": _vocabs,
}
