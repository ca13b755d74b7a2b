"""What an import is given: files of the nodes of each type, of the links of each kind, settings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphmoe.checkpoint.block_files import STORAGE
from graphmoe.data.description import FileSpec
from graphmoe.errors import ConfigError, DataError

_HEAD = 1 << 20  #: Bytes at either end of an input that tell it from another.

OnStep = Callable[[str, int], None]


@dataclass(frozen=True)
class Nodes:
    """Nodes of one type.

    Attributes:
        name: Of the type; empty where there is one only.
        count: How many there are, where that is said.
        features: File of their features.
        labels: File of their classes.
    """

    name: str = ""
    count: int | None = None
    features: FileSpec | None = None
    labels: FileSpec | None = None


@dataclass(frozen=True)
class Edges:
    """Links of one kind.

    Attributes:
        files: Of node numbers, one behind the other.
        source: Which of the types of nodes the first number is of.
        target: Which the second.
        loops: Whether loops are kept.
    """

    files: Sequence[FileSpec]
    source: int = 0
    target: int = 0
    loops: bool = False


@dataclass(frozen=True)
class ImportSettings:
    """How an import is carried out.

    Attributes:
        storage: Type of the stored features: ``"float32"`` or ``"bfloat16"``.
        memory: Bytes for sorting, about; at least 1 MiB.
        block_entries: Matrix entries of a row block; a longer row is a block by itself.
    """

    storage: str = "float32"
    memory: int = 1 << 30
    block_entries: int = 1 << 22

    def __post_init__(self) -> None:
        if self.storage not in STORAGE:
            known = " or ".join(STORAGE)
            raise ConfigError(f"unknown storage {self.storage!r}; expected {known}")
        if self.memory < 1 << 20 or self.block_entries < 1:
            raise ConfigError(
                "expected memory of at least 1 MiB and block_entries of at least 1, "
                f"got {self.memory} bytes and {self.block_entries}"
            )


def about_file(path: Path) -> dict[str, Any]:
    """What tells a file from another without reading it all."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(file.read(_HEAD))
            file.seek(max(size - _HEAD, 0))
            digest.update(file.read(_HEAD))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return {"name": path.name, "size": size, "ends": digest.hexdigest()}
