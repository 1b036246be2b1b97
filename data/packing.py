"""Tensors as bytes and back, for a cache: numbers and JSON, nothing that could run.

>>> unpack(pack((tv_tensors.Image(torch.zeros(3, 2, 2, dtype=torch.uint8)),)))
(Image([[[0, 0], …, dtype=torch.uint8),)
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

__all__ = ["pack", "unpack"]

ALIGN = 64  # bytes: where a value begins
LENGTH = 4  # bytes that say how long the JSON before the values is
KINDS = {kind.__name__: kind for kind in (Tensor, tv_tensors.BoundingBoxes, tv_tensors.Image, tv_tensors.KeyPoints,
                                          tv_tensors.Mask)}  # fmt: skip
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.complex128)}  # fmt: skip


def pack(values: Sequence[Any]) -> bytes | None:
    """The values as bytes; None where one is not a plain tensor on the CPU, or an image, mask, boxes or points.

    The order of the axes in memory is kept: functions of torch may round in another way for another one.
    """
    if not all(map(_can_be_packed, values)):
        return None
    head = json.dumps([_describe(value) for value in values]).encode()
    body = [len(head).to_bytes(LENGTH, "little") + head, *map(_bytes, values)]
    return b"".join(part.ljust(_aligned(len(part)), b"\0") for part in body)


def unpack(packed: bytearray) -> tuple:
    """What `pack` packed; the tensors share their memory with `packed`. Raises ValueError where that is damaged."""
    try:
        return tuple(_values(packed))
    except Exception as error:  # bytes that may be anything
        raise ValueError(f"these bytes are no packed values: {error}") from error


def _can_be_packed(value: Any) -> bool:
    if KINDS.get(type(value).__name__) is not type(value) or value.device.type != "cpu" or value.requires_grad:
        return False
    return value.layout == torch.strided and str(value.dtype).removeprefix("torch.") in DTYPES


def _aligned(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


def _order(value: Tensor) -> list[int]:
    """The axes, from that of the longest steps in memory to that of the shortest."""
    return sorted(range(value.ndim), key=lambda axis: -value.stride(axis))


def _describe(value: Tensor) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": type(value).__name__, "dtype": str(value.dtype).removeprefix("torch.")}
    said |= {"shape": list(value.shape), "order": _order(value.as_subclass(Tensor))}
    if isinstance(value, (tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)):
        said["canvas"] = list(value.canvas_size)
    if isinstance(value, tv_tensors.BoundingBoxes):
        said |= {"format": value.format.name, "clamping": getattr(value, "clamping_mode", None)}
    return said


def _bytes(value: Tensor) -> bytes:
    plain = value.as_subclass(Tensor)
    return plain.permute(_order(plain)).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _values(packed: bytearray) -> Iterator[Tensor]:
    begin = LENGTH + int.from_bytes(packed[:LENGTH], "little")
    head, begin = json.loads(packed[LENGTH:begin]), _aligned(begin)
    for said in head:
        shape, order, dtype = said["shape"], said["order"], DTYPES[said["dtype"]]
        count = torch.Size(shape).numel()
        if count:
            flat = torch.frombuffer(packed, dtype=dtype, count=count, offset=begin)
        else:
            flat = torch.empty(0, dtype=dtype)
        back = sorted(range(len(order)), key=order.__getitem__)
        yield _typed(flat.view([shape[axis] for axis in order]).permute(back), said)
        begin += _aligned(count * dtype.itemsize)


def _typed(value: Tensor, said: dict[str, Any]) -> Tensor:
    typed: Any = value.as_subclass(KINDS[said["kind"]])
    if "canvas" in said:
        typed.canvas_size = tuple(said["canvas"])
    if "format" in said:
        typed.format, typed.clamping_mode = tv_tensors.BoundingBoxFormat[said["format"]], said["clamping"]
    return typed
