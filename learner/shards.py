"""Tensors that are parted over processes, as FSDP makes them: written in parts, and read by any number of processes.

The parts are written by torch.distributed.checkpoint. Its index is a pickle, so it is read by a reader of our own that
knows the few classes such an index is made of, and refuses anything else.
"""

import hashlib
import pickle
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import metadata as index
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, empty

from ..callbacks.nested import map_tensors
from .files import FileError
from .ranks import Ranks

__all__ = ["like", "load_parts", "mesh_of", "part_out", "put_back", "save_parts", "whole"]

MARK = "parted tensor"  # stands for one in the rest of the content


def whole(content: Any) -> Any:
    """`content` with every parted tensor put together, on the CPU; all ranks have to call it."""
    return map_tensors(lambda t: t.full_tensor().cpu() if isinstance(t, DTensor) else t, content)


def like(value: Any, own: Any) -> Any:
    """A whole tensor parted as `own` is, if that is; all ranks have to call it."""
    if not isinstance(own, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def mesh_of(model: nn.Module) -> Any:
    """The processes that a model's parameters are parted over; None where they are whole."""
    return next((p.device_mesh for p in model.parameters() if isinstance(p, DTensor)), None)


def part_out(content: Any) -> tuple[Any, dict[str, Tensor]]:
    """`content` without its parted tensors, and these by the names that stand in their places."""
    parted: dict[str, Tensor] = {}

    def without(value: Any) -> Any:
        if isinstance(value, DTensor):
            name = str(len(parted))
            parted[name] = value
            return {MARK: name}
        if isinstance(value, Mapping):
            return {key: without(part) for key, part in value.items()}
        return type(value)(map(without, value)) if type(value) in (list, tuple) else value

    return without(content), parted


def put_back(content: Any, parted: Mapping[str, Tensor]) -> Any:
    """The content that `part_out` took apart."""
    if isinstance(content, dict):
        if content.keys() == {MARK}:
            return parted[content[MARK]]
        return {key: put_back(part, parted) for key, part in content.items()}
    return type(content)(put_back(part, parted) for part in content) if type(content) in (list, tuple) else content


def save_parts(parted: dict[str, Tensor], folder: Path, ranks: Ranks) -> dict[str, str]:
    """Write parted tensors into a new `folder`, each rank its own; the SHA-256 of each file by its name."""
    ranks.from_first(lambda: shutil.rmtree(folder, ignore_errors=True))
    with ranks.watched():
        dcp.save(parted, storage_writer=dcp.FileSystemWriter(folder), process_group=ranks.host)
    sums = ranks.gather({name: _sha256(folder / name) for name in _names(folder, ranks.rank)})
    return {name: digest for part in sums for name, digest in part.items()}


def _names(folder: Path, rank: int) -> Iterator[str]:
    """The files that a rank has written."""
    yield from sorted(file.name for file in folder.glob(f"__{rank}_*"))
    if rank == 0:
        yield ".metadata"


def load_parts(folder: Path, sums: Mapping[str, str], ranks: Ranks, mesh: Any) -> dict[str, Tensor]:
    """What `save_parts` wrote, parted over the ranks of now, or whole without a `mesh`. FileError if it has changed."""
    mine = sorted(sums)[ranks.rank :: ranks.n]
    wrong = [name for name in mine if not (folder / name).is_file() or _sha256(folder / name) != sums[name]]
    if wrong := [name for names in ranks.gather(wrong) for name in names]:
        raise FileError(f"{folder} is damaged: {', '.join(wrong)} has changed since it was written, or is missing.")
    reader = _Reader(folder)
    entries = reader.read_metadata().state_dict_metadata
    tensors = {name: _empty(entry, mesh) for name, entry in entries.items()}
    with ranks.watched():
        dcp.load(tensors, storage_reader=reader, process_group=ranks.host, no_dist=ranks.n == 1)
    return tensors


def _empty(entry: Any, mesh: Any) -> Tensor:
    if mesh is None:
        return torch.empty(entry.size, dtype=entry.properties.dtype)
    return empty(
        entry.size, dtype=entry.properties.dtype, device_mesh=mesh, placements=[Shard(0) if entry.size else Replicate()]
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


class _Reader(dcp.FileSystemReader):
    """Reads the index without running anything that is in it."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> index.Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            found = _IndexUnpickler(file).load()
        if any(Path(info.relative_path).name != info.relative_path for info in found.storage_data.values()):
            raise FileError(f"{self.path} has an index that leads out of its folder.")
        found.storage_meta = index.StorageMeta(load_id=self.load_id)
        return found


class _IndexUnpickler(pickle.Unpickler):
    """Makes nothing but what an index of torch.distributed.checkpoint consists of."""

    CLASSES = ("ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
               "TensorStorageMetadata", "_MEM_FORMAT_ENCODING")  # fmt: skip
    OTHERS = (
        ("pathlib", "PosixPath"),
        ("pathlib", "WindowsPath"),
        ("torch", "Size"),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
    )

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module == index.__name__ and name in self.CLASSES) or (module, name) in self.OTHERS:
            return super().find_class(module, name)
        raise FileError(f"An index of parted tensors asks for {module}.{name}: it was refused, and nothing was run.")
