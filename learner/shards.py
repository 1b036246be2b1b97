"""Tensors that are parted over processes, as FSDP makes them: written in parts, and read by any number of processes.

The parts are written and read by torch.distributed.checkpoint. Its index is a pickle, which a file that is not trusted
must not be: what it says stands in the checkpoint itself, as plain values, and the pickle is never opened.
"""

import hashlib
import math
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..callbacks.nested import map_tensors
from ..callbacks.parted import is_parted, put_together
from .files import FileError, WriteError, one_line
from .ranks import Ranks

__all__ = ["load_parts", "mesh_of", "part_out", "put_back", "save_parts", "whole"]

MARK = "parted tensor"  # stands for one in the rest of the content
FILE = re.compile(r"__\d+_\d+\.distcp")


def whole(content: Any) -> Any:
    """`content` with every parted tensor put together, on the CPU; all ranks have to call it."""
    return map_tensors(lambda t: put_together(t).cpu() if is_parted(t) else t, content)


def mesh_of(model: nn.Module) -> Any:
    """The processes that a model's parameters are parted over; None where they are whole."""
    return next((getattr(p, "device_mesh", None) for p in model.parameters() if is_parted(p)), None)


def part_out(content: Any) -> tuple[Any, dict[str, Tensor]]:
    """`content` without its parted tensors, and these by the names that stand in their places."""
    parted: dict[str, Tensor] = {}

    def without(value: Any) -> Any:
        if is_parted(value):
            name = str(len(parted))
            parted[name] = value
            return {MARK: name}
        if isinstance(value, Mapping):
            return {key: without(part) for key, part in value.items()}
        return type(value)(map(without, value)) if type(value) in (list, tuple) else value

    return without(content), parted


def put_back(content: Any, parted: Mapping[str, Tensor]) -> Any:
    """The content that `part_out` took apart. Raises FileError where it names another tensor."""
    if isinstance(content, dict):
        if content.keys() == {MARK}:
            if content[MARK] not in parted:
                raise FileError(f"A checkpoint is damaged: of its parts {one_line(content[MARK], 40)} is missing.")
            return parted[content[MARK]]
        return {key: put_back(part, parted) for key, part in content.items()}
    return type(content)(put_back(part, parted) for part in content) if type(content) in (list, tuple) else content


# ---- files


def save_parts(parted: dict[str, Tensor], folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Write parted tensors into a new `folder`, each rank its own; returns what `load_parts` finds them by.

    That is the SHA-256 of each file, and of each tensor its dtype, shape, and the chunks that it was written in. Raises
    WriteError, on all ranks, where one of them could not write.
    """
    import torch.distributed.checkpoint as dcp

    ranks.from_first(lambda: shutil.rmtree(folder, ignore_errors=True))
    with ranks.watched(), _failing_as(WriteError, f"{folder} could not be written"):
        index = dcp.save(parted, storage_writer=dcp.FileSystemWriter(folder), process_group=ranks.host)
    own = {file.name: _sha256(file) for file in sorted(folder.glob(f"__{ranks.rank}_*"))}
    sums = {name: digest for of_rank in ranks.gather(own) for name, digest in of_rank.items()}
    return {"files": sums, "tensors": _plain_index(index)}


def load_parts(folder: Path, parts: Mapping[str, Any], ranks: Ranks, mesh: Any) -> dict[str, Tensor]:
    """What `save_parts` wrote, parted over the ranks of now, or whole without a `mesh`.

    Raises FileError where a file has changed or is missing, and where `parts` is not as it was returned.
    """
    import torch.distributed.checkpoint as dcp

    try:
        index = _index(parts["tensors"], parts["files"])
        _check_size(index, folder, parts["files"])
    except Exception as error:  # it can be wrong in any way
        raise FileError(
            f"{folder} cannot be read: its checkpoint does not say what is in it ({one_line(error)})."
        ) from error
    mine = sorted(parts["files"])[ranks.rank :: ranks.n]
    wrong = [name for name in mine if not (folder / name).is_file() or _sha256(folder / name) != parts["files"][name]]
    if wrong := [name for names in ranks.gather(wrong) for name in names]:
        raise FileError(f"{folder} is damaged: {', '.join(wrong)} has changed since it was written, or is missing.")

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            return index

    tensors = {name: _empty(entry, mesh) for name, entry in index.state_dict_metadata.items()}
    with ranks.watched(), _failing_as(FileError, f"{folder} cannot be read"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is", UserWarning)  # that no_dist is meant
        dcp.load(tensors, storage_reader=Reader(folder), process_group=ranks.host, no_dist=ranks.n == 1)
    return tensors


def _empty(entry: Any, mesh: Any) -> Tensor:
    if mesh is None:
        return torch.empty(entry.size, dtype=entry.properties.dtype)
    from torch.distributed.tensor import Replicate, Shard, empty

    placement = Shard(0) if entry.size else Replicate()
    return empty(entry.size, dtype=entry.properties.dtype, device_mesh=mesh, placements=[placement])


def _plain_index(index: Any) -> dict[str, Any]:
    """An index of torch.distributed.checkpoint as plain values: tensors by name, each with the chunks of it."""
    tensors: dict[str, Any] = {
        name: {"dtype": str(entry.properties.dtype).removeprefix("torch."), "size": list(entry.size), "chunks": []}
        for name, entry in index.state_dict_metadata.items()
    }
    sizes = {(name, chunk.offsets): chunk.sizes for name, entry in index.state_dict_metadata.items()
             for chunk in entry.chunks}  # fmt: skip
    for key, place in index.storage_data.items():
        tensors[key.fqn]["chunks"].append(
            {"at": list(key.offset), "size": list(sizes[key.fqn, key.offset]),
             "file": place.relative_path, "begin": place.offset, "length": place.length}
        )  # fmt: skip
    return tensors


def _index(tensors: Mapping[str, Any], files: Mapping[str, str]) -> Any:
    """The index that `_plain_index` described. Raises ValueError, or anything, where it is not as it should be."""
    from torch.distributed.checkpoint import metadata
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    if wrong := [name for name in files if not FILE.fullmatch(name)]:
        raise ValueError(f"{wrong[0]} is no name of a part")
    entries, places = {}, {}
    for name, tensor in tensors.items():
        dtype = getattr(torch, tensor["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{tensor['dtype']} is no dtype")
        size, chunks = torch.Size(tensor["size"]), []
        numbers = sum(math.prod(chunk["size"]) for chunk in tensor["chunks"])
        if min(size, default=0) < 0 or numbers != math.prod(size):
            raise ValueError(f"{name} is not the whole of a tensor")
        for chunk in tensor["chunks"]:
            ends = [at + n for at, n in zip(chunk["at"], chunk["size"], strict=True)]
            if min(*chunk["at"], *chunk["size"], 0) < 0 or any(e > n for e, n in zip(ends, size, strict=True)):
                raise ValueError(f"{name} has a chunk outside of itself")
            if chunk["file"] not in files:
                raise ValueError(f"{chunk['file']} is none of its parts")
            chunks.append(metadata.ChunkStorageMetadata(torch.Size(chunk["at"]), torch.Size(chunk["size"])))
            key = metadata.MetadataIndex(name, chunk["at"])
            places[key] = _StorageInfo(chunk["file"], int(chunk["begin"]), int(chunk["length"]))
        properties = metadata.TensorProperties(dtype=dtype)
        entries[name] = metadata.TensorStorageMetadata(properties, size, chunks)
    return metadata.Metadata(entries, storage_data=places)


def _check_size(index: Any, folder: Path, files: Mapping[str, str]) -> None:
    """Raise ValueError where tensors are said to be larger than the files, before there is memory taken for them."""
    said = sum(math.prod(entry.size) * entry.properties.dtype.itemsize for entry in index.state_dict_metadata.values())
    found = sum((folder / name).stat().st_size for name in files if (folder / name).is_file())
    if said > found:
        raise ValueError(f"{said:,} bytes of tensors in {found:,} bytes of files")


@contextmanager
def _failing_as(kind: type[Exception], what: str) -> Iterator[None]:
    """Inside, torch's report on the ranks on which it failed, which is no Exception, becomes an error of that kind."""
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        raise kind(f"{what}, on rank {rank}: {type(reason).__name__}: {one_line(reason, 300)}") from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
