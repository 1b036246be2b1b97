"""Decoded items are kept, in memory or on disk, so that later epochs do not decode them again.

    data = block.databunch(source, cache="memory")
    data = block.databunch(source, cache=Cache("disk", limit="200GB", folder="/local"))

`data/kept.py` says what is kept and by which key, `data/store.py` how processes share the bytes, and
`data/cache_folder.py` lists and removes the caches on disk.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

from .blocks import Block
from .cache_folder import cache_folder, caches_folder, default_limit, make_room, mark_used
from .items import kind
from .kept import FileIdentity, Kept, file_identity, said
from .packing import pack, unpack
from .randomness import kept_generators
from .sizes import as_bytes, free_memory, in_words
from .store import Store, StoreFull
from .transforms import Transform

__all__ = ["Cache", "ItemCache", "open_cache"]

N_LOOKED_AT = 200  # items that say which folder the files have in common


@dataclass(frozen=True)
class Cache:
    """Where items are kept: "memory" or "disk".

    `limit`, as "20GB" or in bytes, is for this cache in memory, and for all caches in the folder together on disk; by
    default half of the memory that is available, or half of what is free on the disk. `folder` on disk is by default
    `$WARMSTART_HOME/items`. The least recently used caches there are removed when they take more than half of the
    limit. Memory is shared by a process and its workers; several that train at once share a cache on disk.

    Raises ValueError for another place, and a limit that is no size.
    """

    where: str
    limit: str | int | None = None
    folder: str | Path | None = None

    def __post_init__(self):
        if self.where not in ("memory", "disk"):
            raise ValueError(f"cache={self.where!r}: the options are None, 'memory' and 'disk'.")
        if self.folder is not None and self.where == "memory":
            raise ValueError(
                f"A cache in memory has no folder, and {str(self.folder)!r} was given: use Cache('disk', …)."
            )
        if self.limit is not None:
            as_bytes(self.limit)

    @property
    def n_bytes(self) -> int | None:
        """The limit in bytes."""
        return None if self.limit is None else as_bytes(self.limit)


class ItemCache:
    """Begins samples: reads from the store what it has of them, or makes it and puts it there."""

    def __init__(self, store: Store):
        self.store = store
        self._plan: Kept | None = None
        self._is_full = False

    def __repr__(self) -> str:
        where = "in memory" if self.store.folder is None else f"in {self.store.folder}"
        return f"ItemCache({len(self.store)} items, {in_words(self.store.n_bytes)} {where})"

    def begin(self, blocks: Sequence[Block], tfms: Sequence[Transform], raws: Sequence[Any],
              encode: Callable[[int], Tensor], transform: Callable[[Transform, Callable, tuple], tuple],
              ) -> tuple[tuple, int]:  # fmt: skip
        """The encoded values of the item with these raw values, and how many item transforms are done on them.

        `encode(which)` encodes a raw value, `transform(tfm, function, sample)` applies what `tfm` or a part of it does.
        """
        kept = self._kept(blocks, tfms)
        files = kept.files(raws)
        values = {which: encode(which) for which in range(len(blocks)) if which not in files}
        key = kept.key(files, values) if files else None
        if key is not None and (found := self._get(key, len(kept.places))) is not None:
            values |= zip(kept.places, found, strict=True)
            return _in_order(values), kept.n_whole
        values |= {which: encode(which) for which in files}
        if key is None:
            return _in_order(values), 0
        sample = _in_order(values)
        for tfm in tfms[: kept.n_whole]:
            sample = transform(tfm, lambda sample, tfm=tfm: tfm(sample, None), sample)
        for tfm in kept.presized:
            sample = transform(tfm, tfm.presize, sample)
        others_stay = all(sample[which] is value for which, value in values.items() if which not in kept.places)
        if others_stay and all(map(_is_as_it_was, files.values())):
            self._put(key, [sample[which] for which in kept.places])
        return sample, kept.n_whole

    def _kept(self, blocks: Sequence[Block], tfms: Sequence[Transform]) -> Kept:
        """What is kept of such samples, found out anew where somebody has changed a block or transform since."""
        if self._plan is None or self._plan.said != said(blocks, tfms):
            self._plan = Kept(blocks, tfms, lasting=self.store.folder is not None)
        return self._plan

    def _get(self, key: bytes, n: int) -> tuple | None:
        packed = self.store.get(key)
        if packed is None:
            return None
        try:
            values = unpack(packed)
        except ValueError:
            return None
        return values if len(values) == n else None

    def _put(self, key: bytes, values: Sequence[Any]) -> None:
        if self._is_full or (packed := pack(values)) is None:
            return
        try:
            self.store.put(key, packed)
        except StoreFull as reason:
            self._is_full = True
            self._say_full(reason)

    def _say_full(self, reason: StoreFull) -> None:
        worker = get_worker_info()
        if worker is not None and worker.id > 0:  # the first one says it
            return
        where, option = "memory", "Cache('memory', limit='…GB')"
        if self.store.folder is not None:
            where, option = str(self.store.folder), "Cache('disk', limit='…GB', folder=…)"
        warnings.warn(
            f"The cache in {where} takes no more items: {reason}. {len(self.store)} items "
            f"({in_words(self.store.n_bytes)}) are kept, the others are read anew each epoch. Smaller items need less "
            f"(Resize to fewer pixels), {option} gives more room; clear_cache() removes old caches from the disk.",
            stacklevel=2,
        )


def open_cache(cache: str | Cache | None, dataset: Any) -> ItemCache | None:
    """The cache for the samples of a `Dataset`; None where there is to be none, or none can be opened (a warning).

    Raises ValueError where nothing of the dataset's samples could be kept.
    """
    if cache is None:
        return None
    cache = Cache(cache) if isinstance(cache, str) else cache
    if not isinstance(cache, Cache):
        raise TypeError(f"cache is None, 'memory', 'disk' or a Cache(…), not {cache!r}.")
    if not hasattr(os, "preadv"):
        raise ValueError("cache needs a system with file locks and preadv, as Linux and macOS: leave it out here.")
    kept = Kept(dataset.blocks, dataset.item_tfms, lasting=cache.where == "disk")
    step = max(1, len(dataset) // N_LOOKED_AT)
    with kept_generators():  # from which a function of the user's own may draw
        raws = [dataset.raws(index) for index in range(0, len(dataset), step)]
    files = [file for raw in raws for file in kept.files(raw).values()]
    if not files:
        raise _nothing_to_keep(cache, kept, dataset.blocks, raws[0])
    if cache.where == "memory":
        return ItemCache(Store.in_memory(cache.n_bytes or free_memory() // 2))
    return _open_on_disk(cache, kept, os.path.commonpath([os.path.dirname(file.path) for file in files]))


def _open_on_disk(cache: Cache, kept: Kept, files: str) -> ItemCache | None:
    about = {"files": files, "item_tfms": kept.words, "pipeline": [kept.done, *kept.tokens.values()]}
    parent = caches_folder(cache.folder)
    folder = cache_folder(parent, about)
    try:
        limit = cache.n_bytes or default_limit(parent)
        store = Store.on_disk(folder, limit - make_room(parent, folder, limit // 2))
    except OSError as error:
        warnings.warn(f"There is no cache on disk, items are read anew each epoch: {error}.", stacklevel=4)
        return None
    mark_used(folder, about)
    return ItemCache(store)


def _nothing_to_keep(cache: Cache, kept: Kept, blocks: Sequence[Block], raws: Sequence[Any]) -> ValueError:
    for which in kept.places:
        if file_identity(raws[which]) is not None:
            name = type(blocks[which]).__name__
            return ValueError(
                f"cache='disk' keeps nothing of {name}, whose code is your own: a later run could not tell whether it "
                f"has changed. cache='memory' keeps it for this run."
            )
    kinds = ", ".join(kind(raws[which]) for which in kept.places) or "only labels"
    return ValueError(
        f"cache={cache.where!r} keeps what blocks make of files, and the first item has none: get_x and get_y give "
        f"{kinds}. Return the path of the file, which the block opens; or leave cache out."
    )


def _is_as_it_was(file: FileIdentity) -> bool:
    return file.is_settled and file_identity(file.path) == file


def _in_order(values: dict[int, Tensor]) -> tuple:
    return tuple(values[which] for which in range(len(values)))
