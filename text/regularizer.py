"""Penalties on what a language model's last layer gives."""

from typing import Any

from torch import Tensor, nn

from ..callbacks import Callback

__all__ = ["RNNRegularizer"]


class RNNRegularizer(Callback):
    """Adds penalties to the loss that is trained: `alpha` on large outputs (AR), `beta` on sudden changes (TAR).

    `alpha` times the mean square of the last layer's outputs after dropout, and `beta` times that of the differences
    between one token's and the next one's before it. Merity, McCann, Socher 2017, "Revisiting activation regularization
    for language RNNs", arXiv:1708.01009, whose norms are means here, as in Merity et al.'s code for AWD-LSTM.

    What is recorded as the loss is without them, and so compares with the loss in validation. For the models of
    `get_language_model`; ValueError for others.
    """

    order = -55  # after SAM has made its loss, before anybody scales it

    def __init__(self, alpha: float = 0.0, beta: float = 0.0):
        if alpha < 0 or beta < 0:
            raise ValueError(f"RNNRegularizer(alpha={alpha}, beta={beta}): the penalties' weights are 0 or more.")
        self.alpha, self.beta = alpha, beta
        self.hook: Any = None
        self.outputs: tuple[Tensor, Tensor] | None = None  # of the batch: before and after dropout

    def __repr__(self) -> str:
        return f"RNNRegularizer(alpha={self.alpha}, beta={self.beta})"

    def before_fit(self, learn: Any) -> None:
        dropout = getattr(getattr(learn.model, "decoder", None), "dropout", None)
        if dropout is None:
            raise ValueError(
                f"RNNRegularizer looks at a language model's decoder, which {type(learn.model).__name__} does not "
                "have: it goes with models of language_model_learner and get_language_model."
            )
        self.hook = dropout.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.outputs = (inputs[0], output)

    def before_backward(self, learn: Any) -> None:
        assert self.outputs is not None
        raw, dropped = (output.float() for output in self.outputs)
        self.outputs = None
        if self.alpha:
            learn.loss = learn.loss + self.alpha * dropped.square().mean()
        if self.beta and raw.shape[1] > 1:
            learn.loss = learn.loss + self.beta * raw.diff(dim=1).square().mean()

    def after_fit(self, learn: Any) -> None:
        self.hook = self.hook and self.hook.remove()
        self.outputs = None

    after_cancel_fit = after_fit
