"""The normalisation that a network's weights expect, found for its channels and given to the data."""

import warnings
from collections.abc import Sequence

from torchvision.transforms import v2

from ..data import DataBunch
from .transforms import Normalize

__all__ = ["Stats", "for_channels", "given_stats", "normalised"]

Stats = tuple[Sequence[float], Sequence[float]]  # mean and std of each channel, of images in [0, 1]


def for_channels(stats: Stats | None, n_in: int) -> Stats | None:
    """`stats` for `n_in` channels: their average where there are fewer; further ones stay in [0, 1]."""
    if stats is None:
        return None
    (mean, std), n = stats, len(stats[0])
    if n_in < n or n == 1:
        return (sum(mean) / n,) * n_in, (sum(std) / n,) * n_in
    return (*mean, *(0.0,) * (n_in - n)), (*std, *(1.0,) * (n_in - n))


def given_stats(data: DataBunch) -> Stats | None:
    """Mean and std of the `Normalize`, ours or torchvision's, that the data has; None where it has none."""
    if not data.blocks:
        return None
    tfms = [getattr(tfm, "transform", tfm) for tfm in (*data.batch_tfms, *data.train_ds.item_tfms)]
    given = next((tfm for tfm in tfms if isinstance(tfm, (Normalize, v2.Normalize))), None)
    return None if given is None else (tuple(given.mean), tuple(given.std))


def normalised(data: DataBunch, stats: Stats | None) -> DataBunch:
    """`data` normalised by `stats`, unless it is already: a copy, since other learners may use the same data.

    Warns where the data is normalised by others. Loaders without blocks stay as they are.
    """
    given = given_stats(data)
    if not _same(given, stats):
        warnings.warn(
            f"The data is normalised by {given}, but the weights expect {stats}, which are used if the data "
            "has no Normalize. Leave it out, unless you mean it.",
            stacklevel=4,  # where the recipe is called, or the learner is given data
        )
    if stats is None or given is not None or not data.blocks:
        return data
    mean, std = stats
    return data.with_batch_tfms([*data.batch_tfms, Normalize(tuple(mean), tuple(std))])


def _same(one: Stats | None, other: Stats | None) -> bool:
    """Whether two statistics differ by less than matters; anything agrees with None, which is not known."""
    if one is None or other is None:
        return True
    return all(abs(a - b) < 0.01 for a, b in zip((*one[0], *one[1]), (*other[0], *other[1]), strict=False))
