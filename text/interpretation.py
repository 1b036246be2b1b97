"""What a text classifier gets wrong, and which words made it say what it says.

interp = TextInterpretation.from_learner(learn)
interp.plot_top_losses(5)
interp.plot_confusion_matrix()
interp.show("The film was long, but wonderful.")            # each word coloured: for or against what is predicted
losses, positions = interp.top_losses(5)
interp.show(positions[0], "negative")                       # an item of the set, and the label that it should have
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..learner.gathering import to_cpu
from ..learner.interpretation import CAPTION, Shown
from ..learner.interpretation_labels import ClassificationInterpretation
from ..learner.losses import loss_activation
from ..learner.tensors import full_precision
from .blocks import TextBlock
from .contributions import Contributions
from .integrated_gradients import integrated_gradients
from .loss_list import LossList, show
from .marking import Marking

__all__ = ["TextInterpretation"]


class TextInterpretation(ClassificationInterpretation):
    """For one label per text: which labels are taken for which, and how much each token counts for a label.

    Make it with `from_learner`, of a learner that `text_classifier_learner` made. Raises TypeError for other targets.
    """

    def contributions(self, text: Any, target: Any = None) -> Contributions:
        """How much each token of a raw text, or of an item of the set by its position, counts for the label `target`.

        None is the label that is predicted. Contributions are integrated gradients (Sundararajan et al. 2017,
        arXiv:1703.01365) of the label's log-odds, see `Contributions`; of words that mean something together, such as
        "not good", each has a share; what stands around every text, such as `xxbos`, has none.

        Raises ValueError for a label that there is not, and for a model of which nobody knows where it looks tokens up.
        """
        learn, x = self.learn, self._tokens(text)
        probs = loss_activation(learn.loss_func)(to_cpu(learn.run_batch((x[None],))))[0]
        number = int(probs.argmax()) if target is None else self._number(target)
        block = learn.data.blocks[0]
        values, average, odds = integrated_gradients(
            learn.model, self._embedding(), x, lambda output: _log_odds(output, number), _around(block, len(x))
        )
        return Contributions(
            tokens=[_readable(token, block.tokenizer) for token in block.tokens(x.cpu())],
            values=values.flip(0) if block.backwards else values,
            label=self.vocab[number],
            probability=probs[number].item(),
            log_odds=odds,
            average=average,
        )

    def show(self, text: Any, target: Any = None) -> None:
        """Show `contributions`: words in colours in a notebook, with numbers in a terminal."""
        found = self.contributions(text, target)
        if self.learn.ranks.rank == 0:
            show(found)

    # ---- of contributions

    def _tokens(self, text: Any) -> Tensor:
        """The token ids of a raw text, or of the item at a position, `(n,)` on the device."""
        learn = self.learn
        learn.model.to(learn.data.device)
        if not (isinstance(text, int) or (isinstance(text, Tensor) and text.ndim == 0)):
            return learn.data.input_batch(text)[0][0]
        position, n = int(text), len(self.losses)
        if not 0 <= position < n:
            raise IndexError(f"There is no item {position}: the set has {n}, of positions 0 to {n - 1}.")
        return next(iter(self._batches_of([position])))[0][0]

    def _number(self, label: Any) -> int:
        if label not in self.vocab:
            raise ValueError(
                f"target={label!r} is no label: they are {self.vocab[:10]}{' …' * (len(self.vocab) > 10)}."
            )
        return self.vocab.index(label)

    def _embedding(self) -> nn.Embedding:
        """Where the model looks tokens up."""
        encoder = getattr(self.learn, "encoder", None)
        found = getattr(encoder, "embedding", None) or getattr(encoder, "get_input_embeddings", lambda: None)()
        if not isinstance(found, nn.Embedding):
            raise ValueError(
                f"Where does {type(self.learn.model).__name__} look up its tokens? Contributions need a learner of "
                "text_classifier_learner, whose encoder has an nn.Embedding as `embedding`, or is one of the hub."
            )
        return found

    # ---- showing

    def _show(self, shown: list[Shown]) -> None:
        show(LossList(["text", *CAPTION], [self._row(item) for item in shown]))


def _around(block: TextBlock, n: int) -> Tensor:
    """Which of the `n` tokens of an encoded text stand around every text, `(n,)` bool."""
    before, after = Marking(block.tokenizer).around
    places = torch.arange(n)
    around = (places < before) | (places >= n - after)
    return around.flip(0) if block.backwards else around


def _readable(token: str, tokenizer: Any) -> str:
    """A token without what its tokenizer writes for spaces and bytes, unless nothing else is in it."""
    text = tokenizer.decode([token]).strip() if hasattr(tokenizer, "decode") else ""
    return text if text and "\ufffd" not in text else token


def _log_odds(output: Tensor, number: int) -> Tensor:
    """The logarithm of how many times likelier a class is than all others together, `(bs,)`, from logits `(bs, c)`."""
    output = full_precision(output)
    others = torch.cat([output[:, :number], output[:, number + 1 :]], 1)
    return output[:, number] - others.logsumexp(1)
