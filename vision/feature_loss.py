"""Losses that compare images as a pretrained network sees them: in their pixels, their features and their style.

loss = FeatureLoss(create_body(vgg16_bn), weights=[0, 0, 5, 15, 2], style_weight=5e3)
learn = unet_learner(data, resnet34, loss_func=loss, metrics=loss.metrics)       # sharper than L1 alone
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..data.portable import Portable
from ..learner.loss_checks import check_same_count
from ..learner.losses import L1Loss, loss_activation, loss_decodes
from ..learner.metrics import AverageMetric
from ..learner.tensors import Weights, as_list, full_precision
from .frozen_features import FrozenFeatures
from .normalisation import Stats
from .transforms import imagenet_stats

__all__ = ["FeatureLoss", "StyleLoss", "gram_matrix"]


def gram_matrix(features: Tensor) -> Tensor:
    """How often features come together, wherever they are: `(bs, c, h, w)` to `(bs, c, c)`, their mean product over c.

    Gatys et al. 2015, arXiv:1508.06576, divided by c·h·w as in Johnson et al. 2016; in float32 at least.
    """
    with torch.autocast(features.device.type, enabled=False):
        rows = full_precision(features).flatten(2)
        return rows @ (rows / rows[0].numel()).transpose(1, 2)


@dataclass(eq=False)
class FeatureLoss(Portable):
    """Difference of two images `(bs, c, h, w)` in [0, 1]: of pixels, plus of features, plus of their style.

    That is `pixel_loss`, then for each of `layers` of `body` the mean absolute difference of its features times its
    number in `weights` (None: 1; 0 leaves the layer out), and that of their Gram matrices times the number's square and
    `style_weight`. How large these are depends on the body: look at `parts`, and choose numbers that bring them close
    together. The perceptual loss of Johnson et al. 2016, arXiv:1603.08155, with fast.ai's absolute differences
    in place of squared ones. `body`, `layers` and `stats` are what `FrozenFeatures` takes: `body` is copied and frozen,
    and by default the last map of each resolution is compared.

    `parts` holds the terms of the last batch by name (`pixel, feature_0, style_0, …`), as they are added up, and
    `metrics` is one metric for each, to be given to the Learner beside the loss. Predictions mean what `pixel_loss`
    says. `reduction`: "mean", "sum", or "none" for one loss per item, `(bs,)`. A loss that comes back from an
    exported file reads predictions, and has no body to train with.

    Raises TypeError for a body or a `pixel_loss` of the wrong kind, ValueError where there are not as many weights as
    layers, or no such layer.
    """

    body: nn.Module | FrozenFeatures
    layers: Sequence[str] | None = None
    weights: Weights = None
    pixel_loss: Callable[..., Tensor] = field(default_factory=L1Loss)
    style_weight: float = 0.0
    stats: Stats = imagenet_stats
    reduction: str = "mean"

    def __post_init__(self):
        self.body = _features(self.body, self.layers, self.stats)
        self.weights = _layer_weights(self.weights, self.body)
        self._pixels = _not_reduced(self.pixel_loss)
        self.parts: dict[str, Tensor] = {}

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        terms = {"pixel": _per_item(self._pixels(pred, targ)), **self._of_features(pred, targ)}
        self.parts = {name: term.detach().mean() for name, term in terms.items()}
        loss = torch.stack([*terms.values()]).sum(0)
        return loss if self.reduction == "none" else loss.sum() if self.reduction == "sum" else loss.mean()

    def _of_features(self, pred: Tensor, targ: Tensor) -> dict[str, Tensor]:
        """The terms of each layer that counts, `(bs,)`."""
        layers = zip(self.weights, *_compared(self.body, pred, targ), strict=True)  # type: ignore[arg-type]
        terms = {}
        for number, (weight, ours, theirs) in enumerate(layers):
            if weight:
                terms[f"feature_{number}"] = weight * _difference(ours, theirs)
            if weight and self.style_weight:
                terms[f"style_{number}"] = self.style_weight * weight**2 * _style_difference(ours, theirs)
        return terms

    @property
    def metrics(self) -> list[AverageMetric]:
        """A metric for each term, its mean over a validation."""
        kinds = ("feature", "style") if self.style_weight else ("feature",)
        counted = [number for number, weight in enumerate(self.weights or ()) if weight]  # type: ignore[arg-type]
        names = ["pixel", *(f"{kind}_{number}" for kind in kinds for number in counted)]
        return [AverageMetric(self._reader(name), name=name) for name in names]

    def _reader(self, name: str) -> Callable[[Any, Any], Tensor]:
        """What gives a term of the last batch, as a metric does."""

        def part(pred: Any, targ: Any) -> Tensor:
            if name not in self.parts:
                raise ValueError(f"{name!r} is a term of a FeatureLoss that was not asked: is it the learner's loss?")
            return self.parts[name]

        return part

    def activation(self, pred: Tensor) -> Tensor:
        """What `pixel_loss` makes of predictions: they are values, unless it says otherwise."""
        return loss_activation(self.pixel_loss)(pred)

    def decodes(self, pred: Tensor) -> Tensor:
        """What `pixel_loss` answers."""
        return loss_decodes(self.pixel_loss)(pred)

    def check(self, pred: Tensor, targ: Tensor) -> None:
        """Raise ValueError unless predictions and targets are images of one shape."""
        if pred.ndim != 4 or targ.ndim != 4 or pred.shape[1] not in (1, 3):
            raise ValueError(
                f"FeatureLoss compares images (bs, 3 or 1, h, w), not {tuple(pred.shape)} with {tuple(targ.shape)}."
            )
        check_same_count(pred, targ, "Does the model return an image of the target's size?")


@dataclass(eq=False)
class StyleLoss(Portable):
    """How different the style of images `(bs, c, h, w)` in [0, 1] is from that of others, whatever is where in them.

    The style terms of `FeatureLoss` on their own, for style transfer: targets may be of another size, and one image
    `(1, c, h, w)` for all predictions. Arguments and errors are those of `FeatureLoss`.
    """

    body: nn.Module | FrozenFeatures
    layers: Sequence[str] | None = None
    weights: Weights = None
    stats: Stats = imagenet_stats
    reduction: str = "mean"

    def __post_init__(self):
        self.body = _features(self.body, self.layers, self.stats)
        self.weights = _layer_weights(self.weights, self.body)

    def __call__(self, pred: Tensor, targ: Tensor) -> Tensor:
        layers = zip(self.weights, *_compared(self.body, pred, targ), strict=True)  # type: ignore[arg-type]
        terms = [weight**2 * _style_difference(ours, theirs) for weight, ours, theirs in layers]
        loss = torch.stack(terms).sum(0)
        return loss if self.reduction == "none" else loss.sum() if self.reduction == "sum" else loss.mean()


def _features(body: Any, layers: Sequence[str] | None, stats: Stats) -> FrozenFeatures:
    return body if isinstance(body, FrozenFeatures) else FrozenFeatures(body, layers, stats)


def _layer_weights(weights: Weights, features: FrozenFeatures) -> list[float]:
    layers = features.layers or ()
    found = [1.0] * len(layers) if weights is None else as_list(weights) or []
    if len(found) != len(layers):
        raise ValueError(f"there are {len(found)} weights for {len(layers)} layers {[*layers]}: give one for each.")
    return found


def _not_reduced(loss: Any) -> Any:
    """A copy that gives a loss per target."""
    if isinstance(loss, type) or not hasattr(loss, "reduction"):
        raise TypeError(f"pixel_loss is a loss with a reduction, L1Loss() or nn.MSELoss(), not {loss!r}.")
    loss = copy.copy(loss)
    loss.reduction = "none"
    return loss


def _compared(features: Any, pred: Tensor, targ: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    with torch.no_grad():
        theirs = features(targ)
    return features(pred), theirs


def _difference(ours: Tensor, theirs: Tensor) -> Tensor:
    return _per_item((full_precision(ours) - theirs).abs())


def _style_difference(ours: Tensor, theirs: Tensor) -> Tensor:
    return _per_item((gram_matrix(ours) - gram_matrix(theirs)).abs())


def _per_item(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)
