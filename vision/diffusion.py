"""Diffusion models: images out of noise, of a class that you name.

data = ImageDataBunch.from_folder(path)
learn = diffusion_learner(data)
learn.fit_flat_cos(20)
images = learn.sample(16, classes=["ant", "bee"])
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import AdamW

from ..callbacks import EMA, Callback
from ..callbacks.evaluating import evaluating
from ..callbacks.progress import with_bar
from ..data import CategoryBlock, DataBunch
from ..data.portable import Portable
from ..data.randomness import mix
from ..learner import Learner
from ..learner.stages import as_list
from .diffusion_net import DenoisingUnet
from .diffusion_system import Diffusion
from .image import ImageBlock, show_images
from .normalisation import Stats, given_stats, normalised

__all__ = ["DiffusionLearner", "DiffusionModel", "diffusion_learner"]

AT_ONCE = 64  # images that go through the network together
PLUS_MINUS_1 = 0.5, 0.5  # mean and std that bring [0, 1] to [−1, 1]
NOTHING_TO_PREDICT = "A diffusion model makes images, learn.sample(), and has nothing to predict of one."


class DiffusionLearner(Learner):
    """A Learner whose model is a `Diffusion`: it makes images, and has nothing to predict of one."""

    model: Diffusion
    model_spec: "DiffusionModel"

    def sample(self, n: int = 16, seed: int = 0, classes: Any = None, steps: int = 50, guidance: float = 2.0,
               eta: float = 0.0) -> Tensor:  # fmt: skip
        """`n` new images, float32 `(n, c, h, w)` in [0, 1] on the CPU; which ones follows from `seed`.

        `classes` is a label, or a list of them that is gone through again and again; None is all of them in turn.
        `steps` is how often the network looks at an image: more take longer, and 20 are often enough. `guidance` and
        `eta` are those of `Diffusion.generate`. An image does not depend on how many are made. A bar shows how far it
        is, outside of a fit. Raises ValueError for a label that the data does not have.
        """
        if n < 1:
            raise ValueError(f"n={n}: sample makes one image or more.")
        labels, seeds = self._numbers(self.sampled_labels(n, classes)), [mix(seed, number) for number in range(n)]
        self.model.to(self.data.device)
        with evaluating(self.model):
            runs = [
                self.model.generate(seeds[part], None if labels is None else labels[part], steps, guidance, eta)
                for part in (slice(begin, begin + AT_ONCE) for begin in range(0, n, AT_ONCE))
            ]
            all_steps = zip(*runs, strict=True)
            quiet = self.fitting or not self.progress.bar  # a fit shows its own
            made = deque(all_steps if quiet else with_bar(all_steps, steps, "sample"), maxlen=1).pop()  # the clean ones
        return self.model_spec.in_unit_range(torch.cat(made).cpu())

    def sampled_labels(self, n: int, classes: Any = None) -> list | None:
        """The labels of the images that `sample(n, classes=classes)` makes; None for a model without classes."""
        vocab = (self.data.vocab or []) if self.model.n_classes else []
        wanted = [*vocab] if classes is None else [*classes] if isinstance(classes, (list, tuple)) else [classes]
        if unknown := [label for label in wanted if label not in vocab]:
            raise ValueError(f"classes={classes!r}: there is no class {unknown[0]!r}, but {vocab or 'none at all'}.")
        return [wanted[number % len(wanted)] for number in range(n)] if wanted else None

    def _numbers(self, labels: list | None) -> Tensor | None:
        vocab = self.data.vocab or []
        return None if labels is None else torch.tensor([vocab.index(v) for v in labels], device=self.data.device)

    def show_results(self, max_n: int = 9) -> None:
        """Show images that it makes, of every class in turn."""
        images, labels = self.sample(max_n), self.sampled_labels(max_n)
        if self.ranks.rank == 0:
            titles = None if labels is None else [str(label) for label in labels]
            show_images([*images], nrows=max(1, int(max_n**0.5)), titles=titles)

    # ---- what it cannot do

    def predict(self, item: Any) -> Any:
        """Not for diffusion models: raises ValueError."""
        raise ValueError(NOTHING_TO_PREDICT)

    def batch_predict(self, items: Sequence) -> Any:
        """Not for diffusion models: raises ValueError."""
        raise ValueError(NOTHING_TO_PREDICT)

    def get_preds(self, split: str = "valid", dl: Iterable | None = None, with_input: bool = False,
                  with_loss: bool = False, with_decoded: bool = False, act: Callable | None = None,
                  reorder: bool = True, save_preds: str | Path | None = None) -> tuple:  # fmt: skip
        """Not for diffusion models: raises ValueError."""
        raise ValueError(NOTHING_TO_PREDICT)


@dataclass
class DiffusionModel(Portable):
    """A `Diffusion` of images around a `DenoisingUnet`; the fields are the arguments of these two.

    `size` is the height and width of images, `normalisation` the mean and std by which the data brings them to what the
    network sees.
    """

    size: tuple[int, int]
    n_channels: int
    n_classes: int = 0
    widths: Sequence[int] = (64, 128)
    patch: int = 2
    n_steps: int = 1000
    p_any: float = 0.1
    normalisation: Stats | None = None

    learner: ClassVar[type] = DiffusionLearner  # what an exported file is loaded as

    def build(self, pretrained: bool = False) -> Diffusion:
        """With random weights; there are no others."""
        net = DenoisingUnet(self.n_channels, self.n_classes, self.widths, self.patch)
        mean, std = self._stats()
        bounds = torch.stack([-mean / std, (1 - mean) / std])
        shape = (self.n_channels, *self.size)
        return Diffusion(net, shape, self.n_classes, bounds, self.n_steps, self.p_any)

    def prepare(self, data: DataBunch) -> DataBunch:
        """`data` in the range that the network sees. Raises ValueError for data that this model was not made for."""
        n_channels, n_classes = contents(data)
        if (n_channels, n_classes) != (self.n_channels, self.n_classes):
            raise ValueError(
                f"The model makes images of {self.n_channels} channels and {self.n_classes} classes, and those of the "
                f"data have {n_channels} and {n_classes}: make another one for it by diffusion_learner."
            )
        return normalised(data, self.normalisation)

    def in_unit_range(self, images: Tensor) -> Tensor:
        """Images as the network makes them, in [0, 1]."""
        mean, std = self._stats()
        return (images * std + mean).clamp(0, 1)

    def _stats(self) -> tuple[Tensor, Tensor]:
        """Mean and std, each `(c, 1, 1)`."""
        means, stds = self.normalisation or ([0.0] * self.n_channels, [1.0] * self.n_channels)
        return torch.tensor(means).view(-1, 1, 1), torch.tensor(stds).view(-1, 1, 1)


def contents(data: DataBunch) -> tuple[int, int]:
    """The channels and classes of labelled images, or of images alone (0 classes).

    Raises ValueError for other data.
    """
    blocks = [*data.blocks]
    if (
        not blocks
        or not isinstance(blocks[0], ImageBlock)
        or not all(isinstance(b, CategoryBlock) for b in blocks[1:2])
    ):
        found = ", ".join(type(block).__name__ for block in blocks) or "none"
        raise ValueError(
            "A diffusion model needs data from a DataBlock of (ImageBlock, CategoryBlock), or of ImageBlock alone; the "
            f"data's blocks are: {found}."
        )
    return blocks[0].channels, (blocks[1].n_out or 0) if len(blocks) > 1 else 0


def diffusion_learner(data: DataBunch, widths: Sequence[int] = (64, 128), patch: int = 2, n_steps: int = 1000,
                      p_any: float = 0.1, ema: float | None = 0.995,
                      opt_func: Callable = AdamW, lr: float = 2e-3,
                      cbs: Callback | Iterable[Callback] | None = None, wd: float | None = None,
                      path: str | Path | None = None) -> DiffusionLearner:  # fmt: skip
    """A Learner that makes images like the data's, of a class where they have labels.

    `data` is that of an ordinary classifier, its images of one size. They come to −1…1, unless it has a `Normalize`.
    `widths` and `patch` are those of the `DenoisingUnet`: for 64 pixels, say, (64, 128, 256). `n_steps` and `p_any` are
    those of `Diffusion`. `ema` is the decay of an average of the weights (`EMA`), without which samples are much worse:
    for 100,000 steps rather 0.9999, None for none. The loss says little of how samples look: look at
    `learn.show_results()`, or after each epoch, `cbs=GANSamples()` of `vision.gan`.

    Raises ValueError for data of other blocks than (ImageBlock, CategoryBlock) or an ImageBlock alone.
    """
    n_channels, n_classes = contents(data)
    images, *_ = batch if isinstance(batch := data.one_batch(), (tuple, list)) else (batch,)
    height, width = images.shape[-2:]
    mean, std = PLUS_MINUS_1
    stats = given_stats(data) or ((mean,) * n_channels, (std,) * n_channels)
    spec = DiffusionModel((height, width), n_channels, n_classes, widths, patch, n_steps, p_any, stats)
    averaged = [] if ema is None else [EMA(ema)]
    return DiffusionLearner(data, spec.build(), None, opt_func, lr, cbs=[*averaged, *as_list(cbs)], path=path, wd=wd,
                            model_spec=spec)  # fmt: skip
