"""Published weights of AWD-LSTM language models, fitted to another vocabulary.

    load_pretrained(model, vocab)                                  # fast.ai's of WikiText-103, downloaded once
    load_pretrained(model, vocab, "models/german")                 # a folder with a .pth and a .pkl file

A `.pth` file holds the weights, a `.pkl` file the list of words that they belong to. Neither can run code here.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..data.downloads import DownloadError, untar_data
from ..data.home import warmstart_home
from ..learner.files import FileError, load_file, one_line
from ..learner.weights import load_weights
from .special import SPECIAL
from .vocab_match import match_rows

__all__ = ["WIKITEXT_103", "load_pretrained", "read_vocab", "read_weights"]

WIKITEXT_103 = "https://s3.amazonaws.com/fast-ai-modelzoo/wt103-{direction}.tgz"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how a file of torch before 1.6 begins


def load_pretrained(model: nn.Module, vocab: Sequence[str], source: str | Path | Literal[True] = True,
                    backwards: bool = False) -> None:  # fmt: skip
    """Load published weights into a `LanguageModel`, or an `AWD_LSTM` alone, of the words `vocab`.

    Rows of words that the weights know are copied, others get the mean of all. `source` is True for fast.ai's weights
    of WikiText-103 (`backwards`: of texts read from the end), the address of another such archive, or a folder.

    Raises ConnectionError where the archive cannot be downloaded, FileNotFoundError where a folder lacks the files,
    FileError where these are of another kind or do not fit each other, ValueError for weights of other sizes, or of
    none of these words.
    """
    folder = _folder(source, backwards)
    weights, words = read_weights(_file(folder, ".pth")), read_vocab(_file(folder, ".pkl"))
    rows = weights["embedding.weight"]
    if len(rows) != len(words):
        raise FileError(f"{folder} holds weights of {len(rows):,} words and a vocabulary of {len(words):,}.")
    _check_overlap(words, vocab, folder)
    load_weights(model, _fitted(weights, words, vocab, model), str(folder))


def _folder(source: str | Path | Literal[True], backwards: bool) -> Path:
    if source is True:
        source = WIKITEXT_103.format(direction="bwd" if backwards else "fwd")
    if "://" not in str(source):
        return Path(source)
    try:
        return untar_data(str(source), warmstart_home() / "models")
    except DownloadError as error:
        raise ConnectionError(
            f"The pretrained weights could not be downloaded: {error} Pass pretrained=False to begin with random "
            "weights, or pretrained=<folder>, in which a .pth and a .pkl file lie, such as those of the archive."
        ) from error


def _file(folder: Path, suffix: str) -> Path:
    """The one file of a kind. Raises FileNotFoundError where there is none, or which one is not clear."""
    found = sorted(folder.rglob(f"*{suffix}"))
    if len(found) != 1:
        has = ", ".join(file.name for file in found) or "none"
        raise FileNotFoundError(
            f"{folder} needs one {suffix} file: it has {has}. Weights are in a .pth file, their words in a .pkl file."
        )
    return found[0]


def read_vocab(path: str | Path) -> list[str]:
    """The words in a pickled list. Raises FileError for anything else, of which nothing is run."""
    try:
        with Path(path).open("rb") as file:
            words = _ListsAndTexts(file).load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle fails in many ways
        raise FileError(f"{path} is no pickled list of words: {one_line(error)}. Nothing in it was run.") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise FileError(f"{path} holds no list of words, but {one_line(repr(words), 60)}.")
    return words


class _ListsAndTexts(pickle.Unpickler):
    """Reads what needs no class or function, as plain values do not; the rest is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights of a `.pth` file, in the names that `AWD_LSTM` has: `embedding.weight`, `rnns.0.weight_hh_l0` ….

    `decoder.bias` is there, too, if the file has it. Raises FileError for a file of another kind.
    """
    content = _load(Path(path))
    state = content.get("model", content) if isinstance(content, Mapping) else {}
    weights = {_our_name(name): value for name, value in state.items() if _is_used(name, state)}
    if "embedding.weight" not in weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise FileError(f"{path} holds no weights of an AWD-LSTM: it has {one_line(list(state)[:5])}.")
    return weights


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        if file.read(len(_LEGACY)) != _LEGACY:
            return load_file(path)
    try:  # torch's old format, in which the published files are
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FileError(f"{path} is damaged, or holds more than weights: {one_line(error)}") from None


def _is_used(name: str, state: Mapping[str, Any]) -> bool:
    """Whether a weight is not there a second time: that of a dropped copy, or a tied one."""
    has_raw = f"{name.replace('.module.', '.')}_raw" in state
    return not has_raw and "encoder_dp" not in name and not name.endswith("decoder.weight")


def _our_name(name: str) -> str:
    """fast.ai's name of a weight as ours: `0.rnns.0.weight_hh_l0_raw` is `rnns.0.weight_hh_l0`."""
    name = name.removeprefix("0.").removeprefix("1.").removesuffix("_raw").replace(".module.", ".")
    return "embedding.weight" if name == "encoder.weight" else name


def _check_overlap(old: Sequence[str], new: Sequence[str], folder: Path) -> None:
    if not set(old) & set(new) - set(SPECIAL):
        raise ValueError(
            f"The weights in {folder} know none of the {len(new):,} words of the data, such as {list(new[-3:])}: they "
            f"are of words such as {list(old[-3:])}. Use their tokenizer and language, or pretrained=False."
        )


def _fitted(
    weights: Mapping[str, Tensor], old: Sequence[str], new: Sequence[str], model: nn.Module
) -> dict[str, Tensor]:
    """The state dict of `model`, from the weights of an `AWD_LSTM`."""
    found = dict(weights)
    found["embedding.weight"] = match_rows(found["embedding.weight"], old, new)
    bias = found.pop("decoder.bias", torch.zeros(len(old)))
    if not hasattr(model, "decoder"):
        return found
    state = {f"encoder.{name}": value for name, value in found.items()}
    state["decoder.linear.weight"] = found["embedding.weight"]
    if model.decoder.linear.bias is not None:  # type: ignore[union-attr]
        state["decoder.linear.bias"] = match_rows(bias, old, new)
    return state
