"""The files of a `Checkpoint`: numbered, written whole, and read without trust."""

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from .files import FileError, load_file, one_line, save_file
from .ranks import RankError, Ranks
from .shards import load_parts, mesh_of, part_out, put_back, save_parts

__all__ = ["CheckpointFolder", "in_order"]

KIND = "warmstart checkpoint"
FORMAT = 1
PARTS = {"finished": bool, "records": str, "place": dict, "model": dict, "buffers": dict, "trained": list, "opt": dict,
         "callbacks": list, "random": list, "at_epoch": list, "parts": dict}  # fmt: skip


class CheckpointFolder:
    """A folder of checkpoints, `checkpoint-1.pt` and so on, of which the last `keep` stay.

    Rank 0 reads and writes for all. Tensors that are parted over the ranks are in a folder beside their file.
    """

    def __init__(self, path: Path, keep: int):
        self.path, self.keep = path, keep

    def newest(self, ranks: Ranks, model: nn.Module) -> dict[str, Any] | None:
        """The content of the newest file that can be read, and its name as "file"; None where there is none.

        Warns of files that cannot be read, and raises FileError where all are such.
        """
        failures: list[str] = []
        for file in reversed(ranks.from_first(self._files)):
            try:
                content = ranks.from_first(lambda file=file: _read(file))
                if content["parts"]:
                    content = put_back(content, load_parts(_parts_of(file), content["parts"], ranks, mesh_of(model)))
            except (FileError, RankError) as error:
                failures.append(str(error))
                continue
            if failures:
                warnings.warn(f"{failures[0]} Going on from {file.name}, the one before.", stacklevel=2)
            return content | {"file": str(file)}
        if failures:
            raise FileError(f"No checkpoint in {self.path} can be used; remove them to start afresh. {failures[0]}")
        return None

    def write(self, content: dict[str, Any], records: list[dict], ranks: Ranks) -> None:
        """Write a new file, then remove those too many; all ranks have to call it."""
        content, parted = part_out(content | {"kind": KIND, "format": FORMAT, "records": json.dumps(records)})
        file = ranks.from_first(self._next_file)
        content["parts"] = save_parts(parted, _parts_of(file), ranks) if parted else {}
        ranks.from_first(lambda: save_file(content, file))
        ranks.from_first(self._remove_old)

    def _files(self) -> list[Path]:
        """The checkpoints, oldest first."""
        files = [file for file in self.path.glob("checkpoint-*.pt") if re.fullmatch(r"checkpoint-\d+", file.stem)]
        return sorted(files, key=_number)

    def _next_file(self) -> Path:
        files = self._files()
        return self.path / f"checkpoint-{_number(files[-1]) + 1 if files else 1}.pt"

    def _remove_old(self) -> None:
        for file in self._files()[: -self.keep]:
            file.unlink()
        for parts in self.path.glob("checkpoint-*.parts"):
            if not parts.with_suffix(".pt").exists():  # also of a process that was killed in between
                shutil.rmtree(parts, ignore_errors=True)


def _number(file: Path) -> int:
    return int(file.stem.removeprefix("checkpoint-"))


def _parts_of(file: Path) -> Path:
    """The folder of a checkpoint's parted tensors, where it has such."""
    return file.with_suffix(".parts")


def _read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint. Raises FileError for any other file, and where a part of it is not as it should."""
    content = load_file(file)
    if not isinstance(content, dict) or (content.get("kind"), content.get("format")) != (KIND, FORMAT):
        raise FileError(f"{file} is not a checkpoint that this version can read.")
    if wrong := [name for name, kind in PARTS.items() if not isinstance(content.get(name), kind)]:
        raise FileError(f"{file} is damaged: {', '.join(wrong)} are not as a checkpoint has them.")
    try:
        records = json.loads(content["records"])
    except (ValueError, RecursionError):
        raise FileError(f"{file} is damaged: its record of the run is no JSON.") from None
    return content | {"records": records}


@contextmanager
def in_order(file: str) -> Iterator[None]:
    """Inside, what a checkpoint holds is used: where it is not what it should be, a FileError says so."""
    try:
        yield
    except ValueError:  # among them those of another architecture, which say it better
        raise
    except Exception as error:  # it can be wrong in any way
        raise FileError(f"{file} holds what no checkpoint of this fit does: {one_line(error, 300)}") from error
