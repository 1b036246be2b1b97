"""Where a model sees what it says: what all such pictures share. See `gradcam.py` and `saliency.py`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..callbacks.evaluating import evaluating
from ..data.blocks import CategoryBlock, MultiCategoryBlock
from ..data.show import draw_grid
from ..learner.losses import loss_activation
from .image import show_image

__all__ = ["Evidence", "scores_of"]

Target = Any  # a label, or the number of an output
OPACITY = 0.65  # of the strongest evidence over its image


class Evidence(ABC):
    """Maps `(h, w)` of how much each place of an image counts for an output of the model, from 0 to 1.

    The target is a label, or the number of an output; None is what the model predicts: the likeliest label, or the only
    output. The image is seen as `learn.predict` sees it, and the model left as it was. A learner's model that is
    compiled is run as it was before that. Subclasses say in `compute` how the map comes about.
    """

    over_image: ClassVar[bool] = True  # whether the map is drawn over its image, or by itself

    def __init__(self, learn: Any):
        self.learn = learn

    def __call__(self, item: Any, target: Target = None) -> Tensor:
        """The map `(h, w)` float32, on the CPU, of one raw item, such as a path; h × w pixels are what the model sees.

        Raises ValueError for a target that is no label and no output of the model, and where None could mean several.
        """
        return self.maps([item], target)[0]

    def maps(self, items: Sequence, target: Target = None) -> Tensor:
        """The maps `(n, h, w)` of several raw items, all of the same target; None: of what is predicted of each."""
        batches = [self._of_batch(xb, target)[0] for xb in self._batches(items)]
        return torch.cat(batches)

    def show(self, item: Any, target: Target | list = None) -> None:
        """Draw one raw item as the model sees it, and beside it the map of the target, or of each in a list of them.

        Above stands the target with its probability, or the number that the model gives.
        """
        (xb,) = self._batches([item])
        image = self.learn.data.decode(xb)[0][0]
        draws = [partial(show_image, image)]
        for one in target if isinstance(target, list) else [target]:
            maps, numbers, outputs = self._of_batch(xb, one)
            title = self._title(int(numbers[0]), outputs[0]) + ("" if maps.any() else "\nnothing speaks for it")
            draws.append(partial(_draw_over if self.over_image else _draw_alone, image, maps[0], title))
        draw_grid(draws, n_cols=len(draws), size=3)

    @abstractmethod
    def compute(self, model: nn.Module, xb: tuple, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """For a batch of inputs the maps `(bs, h, w)` of any scale, none negative; the numbers of the outputs that they
        are for `(bs,)`; and what the model returned `(bs, …)`. Gradients are on, the model is in evaluation mode.
        """

    def numbers(self, output: Any, target: Target) -> Tensor:
        """The number of the output that is meant, for each item of a batch `(bs,)`."""
        if not isinstance(output, Tensor) or output.ndim < 2:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"The model has to return numbers (bs, n), or maps (bs, n, h, w), and returned {shape}.")
        bs, n = output.shape[:2]
        if target is not None:
            return torch.full((bs,), self._number(target, n), device=output.device)
        if n > 1 and not self._has_labels:
            raise ValueError(f"The model has {n} outputs that are no labels: pass target=, the number of one.")
        return output.flatten(2).mean(2).argmax(1) if output.ndim > 2 else output.argmax(1)

    def _number(self, target: Target, n: int) -> int:
        vocab = self.learn.data.vocab or []
        if target in vocab:
            return vocab.index(target)
        if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < n:
            return target
        labels = f"one of the labels {vocab[:10]}{' …' if len(vocab) > 10 else ''}, or " if vocab else ""
        raise ValueError(f"target={target!r}: pass {labels}the number of one of the {n} outputs, from 0 on.")

    @property
    def _has_labels(self) -> bool:
        """Whether the highest output is what is predicted."""
        data = self.learn.data
        return bool(data.vocab) or any(isinstance(b, (CategoryBlock, MultiCategoryBlock)) for b in data.targets)

    def _batches(self, items: Sequence) -> list[tuple]:
        """The items as the model sees them, in batches on the device."""
        self.learn.model.to(self.learn.data.device)
        return list(self.learn.data.test_dl(items))

    def _of_batch(self, xb: tuple, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """What `compute` gives, with the maps from 0 to 1; on the CPU."""
        model = self.learn.model
        with evaluating(model), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
            maps, numbers, outputs = self.compute(model, xb, target)
        maps = maps.detach().float()
        highest = maps.flatten(1).amax(1)[:, None, None]
        scaled = torch.where(highest > 0, maps / highest, 0.0)  # nothing speaks for it: all zeros
        return scaled.cpu(), numbers.cpu(), outputs.detach().cpu()

    def _title(self, number: int, output: Tensor) -> str:
        """The output's name, and the probability or number that it has."""
        vocab = self.learn.data.vocab or []
        name = str(vocab[number]) if number < len(vocab) else f"output {number}"
        if output.ndim > 1:  # a map has many
            return name
        value = loss_activation(self.learn.loss_func)(output[None])[0, number]
        return f"{name} {value:.2f}"


def scores_of(output: Tensor, numbers: Tensor) -> Tensor:
    """The sum over a batch of the outputs that are meant; of maps, their mean."""
    flat = output if output.ndim == 2 else output.flatten(2).mean(2)
    return flat.gather(1, numbers[:, None]).sum()


def _draw_over(image: Tensor, strength: Tensor, title: str, ax: Any) -> None:
    show_image(image, ax, title)
    opacity = OPACITY * strength.numpy() ** 0.5
    extent = ax.images[0].get_extent()
    ax.imshow(strength.numpy(), "turbo", vmin=0, vmax=1, alpha=opacity, extent=extent, interpolation="bilinear")


def _draw_alone(image: Tensor, strength: Tensor, title: str, ax: Any) -> None:
    highest = strength.quantile(0.99).clamp(min=1e-8)  # a few pixels may outshine all others
    show_image((strength / highest).clamp(max=1), ax, title)
