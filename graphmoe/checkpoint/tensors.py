"""Tensors as safetensors: written from memory, read only after the header has been checked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from graphmoe.checkpoint.files import read_bytes
from graphmoe.checkpoint.sealed import describe
from graphmoe.errors import VerificationError

#: No expert of this package comes near; a larger file is refused unread.
MAX_TENSOR_BYTES = 8 << 30
MAX_HEADER_BYTES = 4 << 20

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "F32": 4, "I64": 8, "F64": 8,
}  # fmt: skip


def dump_tensors(tensors: dict[str, Tensor]) -> bytes:
    """``tensors`` as the bytes of a safetensors file; equal tensors give equal bytes."""
    # Views of one storage (tied or sliced weights) cannot be written as they are.
    own = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    return safetensors.torch.save(own)


def load_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in ``data``, the content of ``path``; at most a copy of it is allocated.

    Raises:
        VerificationError: It is not a whole, well-formed safetensors file.
    """
    _check_header(data, path)
    try:
        return {key: value.clone() for key, value in safetensors.torch.load(data).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise VerificationError(f"{path}: not a whole safetensors file: {error}") from None


def read_tensors(path: Path, size: int | None = None) -> dict[str, Tensor]:
    """Read a safetensors file of any origin; see :func:`load_tensors`."""
    return load_tensors(read_bytes(path, MAX_TENSOR_BYTES, size), path)


def _check_header(data: bytes, path: Path) -> None:
    """Refuse a header that promises anything but exactly the bytes that follow it."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or data[8:9] != b"{" or length > len(data) - 8:
        raise VerificationError(f"{path}: expected a safetensors file, got {describe(data)}")
    if length > MAX_HEADER_BYTES:
        raise VerificationError(f"{path}: its header of {length} bytes exceeds {MAX_HEADER_BYTES}")
    try:
        header = json.loads(data[8 : 8 + length])
        entries = [entry for key, entry in header.items() if key != "__metadata__"]
        promised = sum(_promised_bytes(entry) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise VerificationError(f"{path}: its safetensors header is damaged") from None
    if promised != len(data) - 8 - length:
        raise VerificationError(
            f"{path}: its header promises {promised} bytes of tensors, "
            f"but {len(data) - 8 - length} are there"
        )


def _promised_bytes(entry: dict[str, Any]) -> int:
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if any(type(extent) is not int or extent < 0 for extent in [*shape, start, end]):
        raise ValueError("not a size")
    size = math.prod(shape) * _ITEM_BYTES[entry["dtype"]]
    if size != end - start:
        raise ValueError("shape and offsets disagree")
    return size
