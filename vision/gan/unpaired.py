"""What training without pairs needs: any image of the other kind, and made images that are shown to a critic again."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...callbacks import Callback
from ...data import get_image_files
from ...data.portable import Portable

__all__ = ["ImageBuffer", "RandomImage"]


@dataclass
class RandomImage(Portable):
    """A getter that gives, whatever the item is, the path of any image below `folder`.

    In training it follows from (seed, epoch, item), in validation from (seed, item):

        DataBlock((ImageBlock, ImageBlock), get_items=get_image_files, get_y=RandomImage(path / "zebras"),
                  item_tfms=Resize(128)).databunch(path / "horses", bs=1)

    Raises FileNotFoundError where `folder` is none, or there is no image in it.
    """

    folder: Path

    def __post_init__(self):
        self.folder = Path(self.folder)

    @cached_property
    def files(self) -> list[Path]:
        """All images below the folder."""
        files = get_image_files(self.folder)
        if not files:
            raise FileNotFoundError(f"There is no image in {self.folder}, of which RandomImage should give one.")
        return files

    def __call__(self, item: Any) -> Path:
        return self.files[int(torch.randint(len(self.files), ()))]


class ImageBuffer(Callback):
    """The last `size` images that a generator made, to show its critic now and then (Shrivastava et al. 2017).

    Called with images `(bs, …)` it gives as many back, without their gradient: each, with probability 1/2, is kept and
    one made before is shown instead, as soon as `size` are kept (arXiv:1612.07828). So a generator cannot go in circles
    around what its critic has just learned. As a callback it is part of checkpoints; of several processes each keeps
    its own images, and all go on with those of the first.
    """

    state_names = ("images",)

    def __init__(self, size: int = 50):
        if size < 0:
            raise ValueError(f"ImageBuffer({size}): the number of images to keep, 0 for none.")
        self.size = size
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([self._shown(image) for image in images.detach()])

    def _shown(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image)
            return image
        if not self.size or torch.rand(()) < 0.5:
            return image
        which = int(torch.randint(self.size, ()))
        shown, self.images[which] = self.images[which], image
        return shown
