"""What of a sample a cache keeps, and the key that it is kept by.

Kept is what blocks make of files, and beside them everything that has to move with it, after the item transforms that
need no random numbers and come before all that do: an image with its mask or boxes, scaled, but not yet cropped.

The key is a hash of all that this depends on: the blocks and transforms; of a file its path, size and time of change;
of any other value, such as boxes from a table, the numbers themselves, which are read anew each time. So no function
that reads them can have changed unnoticed. Labels are neither kept nor part of the key.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .blocks import Block
from .packing import pack
from .portable import describe
from .transforms import Transform

__all__ = ["FileIdentity", "Kept", "file_identity"]

SETTLED = 10**8  # nanoseconds after which a change of a file has another time, whatever the file system's clock


class FileIdentity(NamedTuple):
    """What tells a file from any other and from what it was before."""

    path: str
    size: int
    mtime: int  # nanoseconds

    @property
    def is_settled(self) -> bool:
        """Whether a further change would be seen."""
        return abs(time.time_ns() - self.mtime) > SETTLED


def file_identity(raw: Any) -> FileIdentity | None:
    """Of a value that is the path of a file; None for any other."""
    if not isinstance(raw, (str, Path)):
        return None
    try:
        found = os.stat(raw)
    except (OSError, ValueError):
        return None
    return FileIdentity(os.path.abspath(raw), found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


class Kept:
    """What is kept of the samples that these blocks and item transforms make.

    `places` are the positions in the sample that are kept. Of the transforms the first `n_whole` are done before, and
    of the next one what its `presize` does; `words` says it to a person. With `lasting`, other processes will rely on
    it later: what is not wholly described, since its code may change, is left out.
    """

    def __init__(self, blocks: Sequence[Block], tfms: Sequence[Transform], lasting: bool):
        self.said = said(blocks, tfms)
        self.places = [which for which, block in enumerate(blocks) if _is_kept(block)]
        self.tokens = {which: _token(blocks[which], lasting) for which in self.places}
        described = [_token(tfm, lasting) for tfm in tfms]
        self.n_whole = next((n for n, tfm in enumerate(tfms) if described[n] is None or not _is_fixed(tfm)), len(tfms))
        partly = tfms[self.n_whole : self.n_whole + 1]
        self.presized = [tfm for tfm in partly if described[self.n_whole] is not None and _declares(tfm, "presize")]
        self.done = json.dumps(described[: self.n_whole + len(self.presized)])
        self.words = ", ".join(map(repr, tfms[: self.n_whole + len(self.presized)]))

    def files(self, raws: Sequence[Any]) -> dict[int, FileIdentity]:
        """Those of the raw values that are files whose content is kept, by their place."""
        found = {which: file_identity(raws[which]) for which in self.places if self.tokens[which] is not None}
        return {which: file for which, file in found.items() if file is not None}

    def key(self, files: Mapping[int, FileIdentity], values: Mapping[int, Tensor]) -> bytes | None:
        """16 bytes, of these files and of the other encoded values; None where one of those has no bytes."""
        digest = hashlib.blake2b(self.done.encode(), digest_size=16)
        for which in self.places:
            if which in files:
                digest.update(f"\0{which} {self.tokens[which]} {tuple(files[which])!r}\0".encode())
            elif (packed := pack([values[which]])) is not None:
                digest.update(f"\0{which} {len(packed)}\0".encode() + packed)
            else:
                return None
        others = [value for which, value in values.items() if which not in self.places]
        n_labels = [len(value) for value in others if _are_labels(value)]  # of which there must be as many as boxes
        digest.update(repr(n_labels).encode())
        return digest.digest()


def said(blocks: Sequence[Block], tfms: Sequence[Transform]) -> str:
    """Which tells whether a person has changed something since."""
    return repr([block for block in blocks if not block.learns or block.is_spatial]) + repr(tfms)


def _is_kept(block: Block) -> bool:
    return block.is_spatial or (block.reads_item and not block.learns)


def _are_labels(value: Tensor) -> bool:
    """Whether it is a label for each of several boxes."""
    return value.ndim == 1 and not value.is_floating_point()


def _token(part: Block | Transform, lasting: bool) -> str | None:
    """A block or transform in words; None where they have to last, and code of the user's own is part of it."""
    own: dict[str, Any] = {}
    try:
        words = json.dumps(describe(part, own), sort_keys=True)
    except (ValueError, TypeError):
        return None if lasting else repr(part)
    if not own:
        return words
    return None if lasting else repr(part)


def _is_fixed(tfm: Transform) -> bool:
    return _declares(tfm, "is_fixed") and tfm.is_fixed


def _declares(tfm: Transform, name: str) -> bool:
    """Whether the class that says what the transform does, or one derived from it, says `name` as well.

    A subclass that does something else must not inherit the promise.
    """
    first = next(cls for cls in type(tfm).__mro__ if name in vars(cls) or "__call__" in vars(cls))
    return name in vars(first)
