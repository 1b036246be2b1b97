"""Files of the part of a model that reads texts, with its vocabulary: a language model's goes into a classifier."""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from ..learner.files import FileError, load_file, one_line, save_file
from ..learner.shards import whole
from ..learner.weights import load_weights

__all__ = ["load_encoder", "save_encoder"]

KIND = "warmstart encoder"


def save_encoder(learn: Any, path: Path) -> Path:
    """See `TextLearner.save_encoder`."""
    content = whole({"kind": KIND, "vocab": _vocab(learn), "encoder": learn.encoder.state_dict()})
    return learn.ranks.from_first(lambda: save_file(content, path))


def load_encoder(learn: Any, path: Path) -> None:
    """See `TextLearner.load_encoder`."""
    content = learn.ranks.from_first(lambda: load_file(path))
    if not isinstance(content, Mapping) or content.get("kind") != KIND:
        raise FileError(
            f"{path} is no file of save_encoder(). What learn.save() wrote is read by learn.load(), and published "
            "weights by the recipe, pretrained=<folder>."
        )
    if not isinstance(content.get("encoder"), Mapping) or not isinstance(content.get("vocab"), (list, NoneType)):
        raise FileError(f"{path} is damaged: weights or vocabulary are not as save_encoder() writes them.")
    _check_vocab(content["vocab"], _vocab(learn), path)
    load_weights(learn.encoder, content["encoder"], str(path))


def _vocab(learn: Any) -> list[str] | None:
    return getattr(learn.data.blocks[0], "vocab", None) if learn.data.blocks else None


def _check_vocab(there: list | None, here: list[str] | None, path: Path) -> None:
    """Raise ValueError where words have other numbers than they had."""
    if there is None or here is None or there == here:
        return
    first = next((n for n, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), min(len(there), len(here)))
    words = [one_line(repr(vocab[first]), 30) if first < len(vocab) else "no word" for vocab in (there, here)]
    raise ValueError(
        f"{path} was saved with another vocabulary: {len(there):,} words there, {len(here):,} here, and number {first} "
        f"is {words[0]} there, {words[1]} here. Make the data with the vocabulary of the language model: "
        "TextBlock(vocab=lm_data.blocks[0].vocab), or vocab= of TextDataBunch."
    )
