"""Encoders of the Hugging Face hub in text classifiers: BERT and its kin, by name or from a folder.

    learn = text_classifier_learner(data, "sentence-transformers/all-MiniLM-L6-v2")
    learn.fit_one_cycle(1, 1e-2)                                         # the head
    learn.unfreeze()
    learn.fit_one_cycle(2, layer_decay(1e-4, 0.9, len(learn.groups)))    # all of it, gently

transformers is imported where it is used: it comes with `pip install "warmstart[hub]"`. Nothing that a repository of
the hub brings is run: models whose code is not in transformers are refused by it.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..data.portable import Portable
from ..learner.layer_decay import split_by_block
from .config import scaled
from .sentence_encoder import text_lengths
from .text_learner import TextLearner

__all__ = ["HubClassifierSpec", "HubEncoder", "hf_tokenizer"]

HEAD_P = 0.2  # of the head's dropout, before it is multiplied
_COUNTS_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")  # whose places begin after that


def _transformers() -> ModuleType:
    try:
        import transformers  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise ImportError(
            'A model given by name or path comes from the Hugging Face hub: `pip install "warmstart[hub]"`.'
        ) from error
    return transformers


def hf_tokenizer(name: str | Path) -> Any:
    """The tokenizer of a model of the hub, by name or from a folder: `TextBlock(tokenizer=hf_tokenizer(name))`.

    Raises ImportError where transformers is missing, ConnectionError where it is neither on disk nor to be had.
    """
    return _loaded(_transformers().AutoTokenizer, name)


@dataclass
class HubClassifierSpec(Portable):
    """The description of a classifier with an encoder of the hub, from which it can be built again without a network.

    `settings` is the encoder's own configuration, as transformers writes it to JSON; `drop_p` a dropout before the
    linear head. `max_len` is the number of tokens that are read of a text.
    """

    name: str
    n_out: int
    settings: dict[str, Any]
    pad: int
    max_len: int
    drop_p: float = 0.1

    learner: ClassVar[type] = TextLearner  # what an exported file is loaded as

    @classmethod
    def of(cls, name: str | Path, n_out: int, config: dict[str, Any], drop_mult: float, pad: int,
           max_len: int) -> "HubClassifierSpec":  # fmt: skip
        """The description for a model of the hub, whose settings `config` changes.

        Raises ConnectionError where it is not to be had, ValueError for a setting that it does not have.
        """
        found = _loaded(_transformers().AutoConfig, name)
        if unknown := [setting for setting in config if not hasattr(found, setting)]:
            raise ValueError(f"{name} has no setting {unknown[0]!r}: it has {', '.join(found.to_dict())}.")
        found.update(config)
        drop_p = scaled({"output_p": HEAD_P}, drop_mult)["output_p"]
        return cls(str(name), n_out, found.to_dict(), pad, min(max_len, _limit(found)), drop_p)

    def build(self, pretrained: bool = False) -> nn.Sequential:
        """`nn.Sequential(HubEncoder, head)`: token ids `(bs, n)`, padded at the ends, to `(bs, n_out)`."""
        kind, config = _transformers().AutoModel, self._config()
        model = _loaded(kind, self.name, config=config) if pretrained else kind.from_config(config)
        encoder = HubEncoder(model.float(), self.pad, self.max_len)
        return nn.Sequential(encoder, nn.Sequential(nn.Dropout(self.drop_p), nn.Linear(encoder.n_features, self.n_out)))

    def _config(self) -> Any:
        settings = {name: value for name, value in self.settings.items() if name != "model_type"}
        return _transformers().AutoConfig.for_model(self.settings["model_type"], **settings)

    def encoder_of(self, model: nn.Sequential) -> Any:
        """The part that reads."""
        return model[0].model

    def body(self, model: nn.Sequential) -> nn.Module:
        """The part before the head, which gives a vector for each text."""
        return model[0]


class HubEncoder(nn.Module):
    """Token ids `(bs, n)` padded at the ends to `(bs, n_features)`: the mean of the last layer over a text's tokens.

    `model` is one of transformers; its attention leaves padding out. Of longer texts the first `max_len` tokens are
    read.
    """

    def __init__(self, model: Any, pad: int, max_len: int):
        super().__init__()
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # of no use to a mean, and without gradients
        self.model, self.pad, self.max_len = model, pad, max_len
        self.n_features = model.config.hidden_size

    def extra_repr(self) -> str:
        return f"max_len={self.max_len}"

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, : self.max_len]
        lengths = text_lengths(x, self.pad)
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        output = self.model(input_ids=x, attention_mask=mask.long()).last_hidden_state
        return (output * mask[..., None]).sum(1) / lengths[:, None]

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """The parameters of the embeddings, and of each layer after them."""
        return split_by_block(self.model)


def _limit(config: Any) -> int:
    """How many tokens a model can read; its table of places may keep some for itself, as RoBERTa's does."""
    limit = getattr(config, "max_position_embeddings", None) or 2**31
    kept = config.pad_token_id + 1 if config.model_type in _COUNTS_FROM_PADDING else 0
    return limit - kept


def _loaded(kind: Any, name: str | Path, **settings: Any) -> Any:
    """`kind.from_pretrained(name)`; ConnectionError where nothing of that name is to be had."""
    try:
        return kind.from_pretrained(str(name), **settings)
    except OSError as error:
        raise ConnectionError(
            f"{name} is no folder of a model here, and could not be downloaded from the Hugging Face hub "
            f"({str(error).splitlines()[0]}). Is the name right? Download it where there is a network, and pass the "
            "folder."
        ) from error
