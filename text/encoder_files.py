"""Files of the part of a model that reads texts, with its vocabulary: a language model's goes into a classifier."""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from ..learner.files import FileError, load_file, one_line, save_file
from ..learner.shards import whole
from ..learner.weights import load_weights

__all__ = ["check_vocab", "load_encoder", "save_encoder", "vocab_of"]

KIND = "warmstart encoder"


def save_encoder(learn: Any, path: Path) -> Path:
    """See `TextLearner.save_encoder`."""
    content = whole({"kind": KIND, "vocab": vocab_of(learn), "encoder": learn.encoder.state_dict()})
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
    check_vocab(learn, content["vocab"], path)
    load_weights(learn.encoder, content["encoder"], str(path))


def vocab_of(learn: Any) -> list[str] | None:
    """The words of the learner's texts, by number."""
    return getattr(learn.data.blocks[0], "vocab", None) if learn.data.blocks else None


def check_vocab(learn: Any, there: Any, path: Path) -> None:
    """Raise ValueError where words have other numbers than they had in a file, whose vocabulary is `there`."""
    here = vocab_of(learn)
    if not isinstance(there, list) or here is None or there == here:
        return
    first = next((n for n, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), min(len(there), len(here)))
    words = [one_line(repr(vocab[first]), 30) if first < len(vocab) else "no word" for vocab in (there, here)]
    raise ValueError(
        f"{path} was saved with another vocabulary: {len(there):,} words there, {len(here):,} here, and number {first} "
        f"is {words[0]} there, {words[1]} here. Make the data with the vocabulary of the learner that "
        "saved it: TextBlock(vocab=other.blocks[0].vocab), or vocab= of TextDataBunch."
    )
