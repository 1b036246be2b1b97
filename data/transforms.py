"""What a step of the item or batch pipeline is.

Item transforms run in the loader's workers on one sample, batch transforms on the data's device on a whole batch; both
see the sample as a tuple of its values (inputs, then targets), so that an image and its mask move together. Three kinds
are welcome in `item_tfms` and `batch_tfms`:

- a `Transform` of this library, or your own subclass of it;
- any transform of `torchvision.transforms.v2`; those that are random act on training data only;
- any function of one argument, applied to the first input.

While an item is read, the global random generators follow from (seed, epoch, item), so a function or a v2 transform may
draw from them; while batch transforms run, they follow from the batch's first item.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from .items import ItemError
from .portable import Portable
from .randomness import Randomness

__all__ = ["Transform", "apply_transforms", "as_transforms", "decode_transforms"]


class Transform(Portable, ABC):
    """A step of a pipeline; subclasses are dataclasses whose fields are the parameters.

    `order` sorts the steps of a pipeline: smaller runs earlier, equal ones in the order given. Functions and v2's
    transforms have 0: of a batch of images they run after geometry (-20) and `ToFloat` (-10), and before light (40),
    colour (41) and `Normalize` (90; also v2's).
    """

    order: ClassVar[int] = 0
    is_fixed: ClassVar[bool] = False  # it needs no random numbers, nor does anything else tell training from validation
    clips: ClassVar[bool] = False  # it takes values to be in [0, 1], and cuts off what is not
    by_item: ClassVar[bool] = False  # of a batch, each item becomes what it would by itself, all of them equally large

    @abstractmethod
    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        """The transformed sample. `rand` holds these items' random numbers; None means: no randomness (validation)."""

    @property
    def name(self) -> str:
        """What messages call this step."""
        return type(self).__name__

    def presize(self, sample: tuple) -> tuple:
        """The first part of this step, as far as it needs no random numbers: a cache keeps what comes out.

        `self(self.presize(sample), rand)` has to be `self(sample, rand)`, to the bit. By default nothing is done.
        """
        return sample

    def decode(self, sample: tuple) -> tuple:
        """Undo, for showing, what would keep a person from recognising a batch. By default nothing."""
        return sample


@dataclass(repr=False)
class _V2(Transform):
    """A transform of `torchvision.transforms.v2`."""

    transform: Callable

    def __repr__(self) -> str:
        return repr(self.transform)

    @property
    def name(self) -> str:
        return type(self.transform).__name__

    @property
    def is_random(self) -> bool:
        return self.name.startswith("Random") or self.name in _RANDOM_V2

    @property
    def is_fixed(self) -> bool:  # type: ignore[override]  # each of torchvision's has its own answer
        return self.name in _FIXED_V2 and type(self.transform).__module__.startswith("torchvision.")

    @property
    def order(self) -> int:  # type: ignore[override]  # normalised values come after all that needs those in [0, 1]
        return 90 if isinstance(self.transform, v2.Normalize) else 0

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        if rand is None and self.is_random:
            return sample
        if self.name in _FLIPS_V2:
            sample = _shifted(sample, -0.5)
        value = self.transform(*sample)
        sample = value if isinstance(value, tuple) else (value,)
        return _shifted(sample, 0.5) if self.name in _FLIPS_V2 else sample

    def decode(self, sample: tuple) -> tuple:
        if not isinstance(self.transform, v2.Normalize):
            return sample
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.transform.mean, self.transform.std))
        return tuple(v * std.to(v) + mean.to(v) if isinstance(v, tv_tensors.Image) else v for v in sample)


def _shifted(sample: tuple, by: float) -> tuple:
    """Key points moved: for torchvision's flips the middle of the first pixel is (0, 0), for all else (0.5, 0.5)."""
    return tuple(
        tv_tensors.wrap(v + by, like=v) if isinstance(v, tv_tensors.KeyPoints) else v  # type: ignore[call-issue]
        for v in sample
    )


_RANDOM_V2 = {"AugMix", "AutoAugment", "ColorJitter", "CutMix", "ElasticTransform", "GaussianBlur", "GaussianNoise",
              "JPEG", "MixUp", "RandAugment", "ScaleJitter", "TrivialAugmentWide"}  # fmt: skip
_FLIPS_V2 = {"RandomHorizontalFlip", "RandomVerticalFlip"}
_FIXED_V2 = {"CenterCrop", "Grayscale", "Pad", "RGB", "Resize"}


@dataclass(repr=False)
class _Function(Transform):
    """A function applied to the first input of each sample."""

    function: Callable

    def __repr__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        return (self.function(sample[0]), *sample[1:])


def as_transforms(tfms: Callable | Iterable[Callable] | None) -> list[Transform]:
    """`tfms` (one, several or None) as a list of `Transform`s sorted by `order`; v2's `Compose` is taken apart.

    Raises TypeError for what is not callable, a class instead of an instance, and a transform of torchvision's v1.
    """
    return [] if tfms is None else sorted(_convert(tfms), key=lambda t: t.order)


def _convert(tfm: Any) -> list[Transform]:
    if isinstance(tfm, v2.Compose):
        tfm = tfm.transforms
    if isinstance(tfm, (list, tuple)):  # or a list inside the list, as in [Normalize(...), aug_transforms()]
        return [t for inner in tfm for t in _convert(inner)]
    if isinstance(tfm, Transform):
        return [tfm]
    if isinstance(tfm, type):
        raise TypeError(f"{tfm.__name__} is a class: pass an instance, {tfm.__name__}(...).")
    if isinstance(tfm, v2.Transform):
        return [_V2(tfm)]
    if type(tfm).__module__.startswith("torchvision.transforms"):
        name = type(tfm).__name__
        raise TypeError(f"{name} is of torchvision's old transforms: pass torchvision.transforms.v2.{name}(...).")
    if callable(tfm):
        return [_Function(tfm)]
    raise TypeError(f"A transform is a Transform, a torchvision.transforms.v2 transform or a function, not {tfm!r}.")


def apply_transforms(tfms: Sequence[Transform], sample: tuple, rand: Randomness | None, first_stream: int = 0) -> tuple:
    """Run a batch through `tfms` in order, each with its own stream of random numbers, from `first_stream` on.

    Raises ItemError that names the one which fails.
    """
    for number, tfm in enumerate(tfms, first_stream):
        try:
            sample = tfm(sample, rand.with_stream(number) if rand else None)
        except Exception as error:
            name, reason = type(error).__name__, str(error).rstrip(". ")
            raise ItemError(f"batch transform {tfm.name} failed: {name}: {reason}.") from error
    return sample


def decode_transforms(tfms: Sequence[Transform], sample: tuple) -> tuple:
    """Undo `tfms` for showing, last one first."""
    for tfm in reversed(tfms):
        sample = tfm.decode(sample)
    return sample
