"""When a recurrent language model remembers, and when it forgets."""

from collections.abc import Mapping
from typing import Any

from ..callbacks import Callback
from ..callbacks.nested import map_tensors

__all__ = ["ModelResetter"]


class ModelResetter(Callback):
    """Lets a model with memory, such as a `LanguageModel` of `AWD_LSTM`, begin each epoch and validation without any.

    From batch to batch it remembers. A validation in the middle of an epoch does not disturb that of training. Whoever
    runs a batch twice, as `SAM` does, finds the model as it was before the batch. A fit that resumes goes on with what
    it remembered, each process with its own.
    """

    order = -70  # before SAM

    def __init__(self):
        self.model: Any = None  # of the fit
        self.ranks: Any = None
        self.of_training: Any = None  # what the model remembers of training, while it is validated
        self.before: Any = None  # the batch
        self.after: Any = None  # its forward pass

    def before_fit(self, learn: Any) -> None:
        self.model, self.ranks = learn.model, learn.ranks

    def before_train(self, learn: Any) -> None:
        learn.model.reset()

    def before_validate(self, learn: Any) -> None:
        self.of_training = learn.model.state
        learn.model.reset()

    def after_validate(self, learn: Any) -> None:
        learn.model.state, self.of_training = self.of_training, None

    def before_batch(self, learn: Any) -> None:
        self.before = learn.model.state

    def before_backward(self, learn: Any) -> None:
        self.after, learn.model.state = learn.model.state, self.before

    def after_backward(self, learn: Any) -> None:
        if self.after is not None:
            learn.model.state, self.after = self.after, None

    after_cancel_backward = after_backward

    def after_fit(self, learn: Any) -> None:
        learn.model.reset()
        self.model = self.of_training = self.before = self.after = None

    after_cancel_fit = after_fit

    def state_dict(self) -> dict[str, Any]:
        """What the model remembers on every rank, nothing after a fit; all of them have to call it."""
        return {"states": [] if self.model is None else self.ranks.gather(self.model.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.model is not None and len(state["states"]) == self.ranks.n:
            self.model.state = map_tensors(lambda t: t.clone(), state["states"][self.ranks.rank])
