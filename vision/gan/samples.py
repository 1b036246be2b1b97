"""Pictures of what a generator makes while it learns."""

import io
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ...callbacks import Callback
from ...learner.files import save_bytes
from ..image import show_images

__all__ = ["GANSamples", "image_grid"]


class GANSamples(Callback):
    """After each `every`-th epoch, show `n` images that the generator makes, always of the same noise.

    With `folder` they go into a file there instead, `0010.png` after the tenth epoch. Where `EMA` or `SWA` is in the
    fit, they are of the averaged weights.
    """

    order = 80  # when averages are in the model, as loggers
    real_runs_only = rank0_only = True

    def __init__(self, every: int = 1, n: int = 16, folder: str | Path | None = None, seed: int = 0):
        if every < 1 or n < 1:
            raise ValueError(f"GANSamples(every={every}, n={n}): epochs and images are counted from 1.")
        self.every, self.n, self.folder, self.seed = every, n, folder, seed

    def before_fit(self, learn: Any) -> None:
        if not hasattr(learn, "sample"):
            raise TypeError(
                f"GANSamples shows what learn.sample makes: {type(learn).__name__} has none, see GANLearner."
            )

    def after_epoch(self, learn: Any) -> None:
        if learn.epochs_begun % self.every:
            return
        images, n_rows = learn.sample(self.n, self.seed), max(1, int(self.n**0.5))
        if self.folder is None:
            show_images([*images], nrows=n_rows)
        else:
            content = io.BytesIO()
            image_grid(images, n_rows).save(content, "png")
            save_bytes(content.getvalue(), Path(self.folder) / f"{learn.epochs_begun:04}.png")


def image_grid(images: Tensor, n_rows: int) -> Image.Image:
    """One picture of images `(n, 1 or 3, h, w)` in [0, 1], row by row, two pixels apart."""
    from torchvision.utils import make_grid

    grid = make_grid(images, nrow=-(-len(images) // n_rows))
    return Image.fromarray(grid.mul(255).round().byte().permute(1, 2, 0).numpy())
