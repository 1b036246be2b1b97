"""Text files, and which of them validate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data import get_files
from ..data.portable import Portable, portable

__all__ = ["FolderSplitter", "get_text_files"]


@portable
def get_text_files(path: str | Path, recurse: bool = True, folders: str | Sequence[str] | None = None) -> list[Path]:
    """All `.txt` files under `path`, sorted; see `get_files`."""
    return get_files(path, ".txt", recurse, folders)


@dataclass(frozen=True)
class FolderSplitter(Portable):
    """Files at any depth below `path/valid` validate, those below `path/train` train."""

    path: Path
    train: str = "train"
    valid: str = "valid"

    def __call__(self, items: Sequence[Path]) -> tuple[list[int], list[int]]:
        top = [Path(item).relative_to(self.path).parts[0] for item in items]
        return ([i for i, name in enumerate(top) if name == self.train],
                [i for i, name in enumerate(top) if name == self.valid])  # fmt: skip
