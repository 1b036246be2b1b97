"""What a step of the item or batch pipeline is.

Item transforms run in the loader's workers on one sample, batch transforms on the data's device on a whole batch; both
see the sample as a tuple of its values (inputs, then targets), so that an image and its mask move together. Three kinds
are welcome in `item_tfms` and `batch_tfms`:

- a `Transform` of this library, or your own subclass of it;
- any transform of `torchvision.transforms.v2`; those that are random act on training data only;
- any function of one argument, applied to the first input.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn
from torchvision.transforms import v2

from .portable import Portable
from .randomness import Randomness

__all__ = ["Transform", "as_transforms", "apply_transforms", "decode_transforms"]


class Transform(Portable, ABC):
    """A step of a pipeline; subclasses are dataclasses whose fields are the parameters.

    `order` sorts the steps of a pipeline: smaller runs earlier, equal ones in the order given.
    """

    order: ClassVar[int] = 0

    @abstractmethod
    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        """The transformed sample. `rand` holds the random numbers of these items; None means: no randomness (validation)."""

    @property
    def name(self) -> str:
        """What messages call this step."""
        return type(self).__name__

    def decode(self, sample: tuple) -> tuple:
        """Undo, for showing, what would keep a person from recognising the sample. By default nothing."""
        return sample


@dataclass
class _V2(Transform):
    """A `torchvision.transforms.v2` transform; its draws from the global generators are seeded by (seed, epoch, item)."""

    transform: Callable

    @property
    def name(self) -> str:
        return type(self.transform).__name__

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        if not _is_random(self.transform):
            return _as_tuple(self.transform(*sample))
        if rand is None:
            return sample
        with rand.seeded():
            return _as_tuple(self.transform(*sample))


@dataclass
class _Function(Transform):
    """A function applied to the first input of each sample."""

    function: Callable

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __call__(self, sample: tuple, rand: Randomness | None) -> tuple:
        return (self.function(sample[0]), *sample[1:])


def _as_tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


_RANDOM_V2 = {"ColorJitter", "ElasticTransform", "ScaleJitter", "GaussianBlur", "GaussianNoise", "AutoAugment", "RandAugment",
              "TrivialAugmentWide", "AugMix", "JPEG", "MixUp", "CutMix"}  # fmt: skip


def _is_random(transform: Any) -> bool:
    return type(transform).__name__.startswith("Random") or type(transform).__name__ in _RANDOM_V2


def as_transforms(tfms: Callable | Iterable[Callable] | None) -> list[Transform]:
    """`tfms` (one, several or None) as a sorted list of `Transform`s; v2's `Compose` is taken apart.

    Raises TypeError for what is not callable, and for a class given instead of an instance.
    """
    if tfms is None:
        return []
    if not isinstance(tfms, (list, tuple)):
        tfms = [tfms]  # type: ignore[list-item]
    return sorted((t for tfm in tfms for t in _convert(tfm)), key=lambda t: t.order)


def _convert(tfm: Any) -> Sequence[Transform]:
    if isinstance(tfm, (list, tuple)):  # a list inside the list, as in [Normalize(...), aug_transforms()]
        return as_transforms(tfm)
    if isinstance(tfm, type):
        raise TypeError(f"{tfm.__name__} is a class: pass an instance, {tfm.__name__}(...).")
    if isinstance(tfm, Transform):
        return [tfm]
    if isinstance(tfm, v2.Compose):
        return [t for inner in tfm.transforms for t in _convert(inner)]
    if isinstance(tfm, v2.Transform):
        return [_V2(tfm)]
    if isinstance(tfm, nn.Module) or callable(tfm):
        return [_Function(tfm)]
    raise TypeError(f"A transform is a Transform, a torchvision.transforms.v2 transform or a function, not {tfm!r}.")


def apply_transforms(tfms: Sequence[Transform], sample: tuple, rand: Randomness | None) -> tuple:
    """Run `sample` through `tfms` in order, each with its own stream of random numbers."""
    for number, tfm in enumerate(tfms):
        sample = tfm(sample, rand.with_stream(number) if rand else None)
    return sample


def decode_transforms(tfms: Sequence[Transform], sample: tuple) -> tuple:
    """Undo `tfms` for showing, last one first."""
    for tfm in reversed(tfms):
        sample = tfm.decode(sample)
    return sample
