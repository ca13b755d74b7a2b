"""A graph on disk: row blocks of its matrix and blocks of its features, read where they lie."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.checkpoint.files import real_folder, storage_errors
from graphmoe.checkpoint.sealed import load_sealed
from graphmoe.errors import DataError, MissingDataError, VerificationError
from graphmoe.typing import PathLike

MANIFEST = "graph.json"
WORK = "import"  #: What an import needs until it is finished.
FORMAT = "graphmoe-large-graph"
VERSION = 1

#: Types that features can be stored in.
STORAGE = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_READ = 1 << 24


class ArrayRecord(BaseModel):
    """One NPY file: its name in the folder, its hash and its size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[a-z]+/[0-9]{6}\.[a-z]+\.npy$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class RowBlock(BaseModel):
    """Consecutive rows: of the matrix (``crow`` and ``col``), or of the features (``x``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=0)
    stop: int = Field(ge=0)
    entries: int = Field(ge=0)
    arrays: dict[str, ArrayRecord]


class LargeGraphManifest(BaseModel):
    """What is in the folder of a :class:`LargeGraph`."""

    model_config = ConfigDict(extra="forbid")

    num_nodes: int = Field(ge=0, lt=2**31)
    num_features: int = Field(ge=0)
    storage: str = "float32"
    made_from: dict[str, Any] = {}
    blocks: list[RowBlock]
    features: list[RowBlock] = []


class LargeGraph:
    """An undirected graph without loops and repeated edges, memory-mapped from its folder.

    :func:`~graphmoe.checkpoint.import_graph.import_graph` writes it.
    As the source of a :class:`~graphmoe.ops.row_blocks.RowBlockOperator` it stands for its
    adjacency matrix.

    Args:
        path: The folder.

    Raises:
        MissingDataError: There is no such folder, or its import is not finished.
        VerificationError: The manifest is damaged, or a file is missing or of another size.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        if not (self.path / MANIFEST).exists():
            known = "its import is not finished" if self.path.is_dir() else "there is no folder"
            raise MissingDataError(f"no graph at {self.path}: {known}")
        self.manifest = _read_manifest(self.path / MANIFEST)
        for record in self._records():
            path = self.path / record.file
            if not real_folder(path.parent) or path.is_symlink() or not path.is_file():
                raise VerificationError(f"{path}: the file is missing")
            if path.stat().st_size != record.size:
                raise VerificationError(
                    f"{path}: expected {record.size} bytes, got {path.stat().st_size}"
                )

    @property
    def num_nodes(self) -> int:
        """Nodes N."""
        return self.manifest.num_nodes

    @property
    def num_features(self) -> int:
        """Width F of the features; 0: there are none."""
        return self.manifest.num_features

    @property
    def shape(self) -> tuple[int, int]:
        """Of the adjacency matrix."""
        return self.num_nodes, self.num_nodes

    @property
    def nnz(self) -> int:
        """Entries of the adjacency matrix: twice the undirected edges."""
        return sum(block.entries for block in self.manifest.blocks)

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each block's first row, row pointers ``[R + 1]`` int64 and columns, ascending, int32.

        Raises:
            VerificationError: A file is not what was written.
        """
        for index in range(len(self.manifest.blocks)):
            yield self.block(index)

    def block(self, index: int) -> tuple[int, Tensor, Tensor]:
        """One of :meth:`blocks`.

        Raises:
            VerificationError: A file is not what was written.
        """
        block = self.manifest.blocks[index]
        crow = self._tensor(block.arrays["crow"], np.int64, (block.stop - block.start + 1,))
        col = self._tensor(block.arrays["col"], np.int32, (block.entries,))
        # What a damaged file could point a product at lies outside of the features.
        good = int(crow[0]) == 0 and int(crow[-1]) == block.entries
        good = good and bool((crow.diff() >= 0).all())
        if block.entries and good:
            good = int(col.min()) >= 0 and int(col.max()) < self.num_nodes
        if not good:
            file = self.path / block.arrays["crow"].file
            raise VerificationError(f"{file}: damaged, it or its columns are out of range")
        return block.start, crow, col

    def feature_blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Each block's first row and its features ``[R, F]``, in the type they are stored in.

        Raises:
            DataError: The graph has no features.
        """
        if not self.num_features:
            raise DataError(f"{self.path}: the graph has no features")
        for block in self.manifest.features:
            shape = (block.stop - block.start, self.num_features)
            kind = np.float32 if self.manifest.storage == "float32" else np.int16
            part = self._tensor(block.arrays["x"], kind, shape)
            yield block.start, part.view(STORAGE[self.manifest.storage])

    def to_data(self) -> Data:
        """All of it in memory, as any other graph: for those that fit."""
        ends = [
            torch.stack([torch.repeat_interleave(crow.diff()).add_(start), col.long()])
            for start, crow, col in self.blocks()
        ]
        edge_index = torch.cat(ends, dim=1) if ends else torch.empty(2, 0, dtype=torch.long)
        x = None
        if self.num_features:
            x = torch.cat([block.float() for _, block in self.feature_blocks()])
        return Data(x=x, edge_index=edge_index, num_nodes=self.num_nodes)

    def fingerprint(self) -> str:
        """SHA-256 over the hashes of all files: equal content in equal blocks, equal name."""
        lines = [f"{record.file} {record.sha256}" for record in self._records()]
        return hashlib.sha256("\n".join([str(self.num_nodes), *lines]).encode()).hexdigest()

    def verify(self) -> None:
        """Read every file and compare it with its recorded hash.

        Raises:
            VerificationError: The first file that differs.
        """
        for record in self._records():
            path, digest = self.path / record.file, hashlib.sha256()
            with storage_errors(path, "read"), open(path, "rb") as file:
                while piece := file.read(_READ):
                    digest.update(piece)
            if digest.hexdigest() != record.sha256:
                raise VerificationError(f"{path}: its content does not match its hash")

    def _records(self) -> Iterator[ArrayRecord]:
        for block in (*self.manifest.blocks, *self.manifest.features):
            yield from block.arrays.values()

    def _tensor(self, record: ArrayRecord, kind: Any, shape: tuple[int, ...]) -> Tensor:
        path = self.path / record.file
        try:
            # Copy on write: torch wants memory it may write to, and the file must stay.
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise VerificationError(f"{path}: not a whole NPY file: {error}") from None
        if array.dtype != np.dtype(kind) or array.shape != shape:
            raise VerificationError(
                f"{path}: expected {np.dtype(kind)} {shape}, got {array.dtype} {array.shape}"
            )
        return torch.from_numpy(array)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_nodes} nodes, {self.nnz // 2} edges, "
            f"{self.num_features} features, {self.path})"
        )


def is_large_graph(path: PathLike) -> bool:
    """Whether there is a folder of :func:`~graphmoe.checkpoint.import_graph.import_graph`."""
    return (Path(path) / MANIFEST).is_file() or (Path(path) / WORK).is_dir()


def dump_array(array: np.ndarray) -> bytes:
    """An array as the bytes of an NPY file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def _read_manifest(path: Path) -> LargeGraphManifest:
    content = load_sealed(path)
    found = (content.pop("format", None), content.pop("version", None))
    if found != (FORMAT, VERSION):
        raise VerificationError(f"{path}: expected format {FORMAT!r} version {VERSION}")
    try:
        manifest = LargeGraphManifest.model_validate(content)
    except ValidationError as error:
        raise VerificationError(f"{path}: {error.error_count()} wrong fields") from None
    lists = [manifest.blocks] + ([manifest.features] if manifest.num_features else [])
    for blocks in lists:
        ends = [0, *(block.stop for block in blocks)]
        starts = [*(block.start for block in blocks), manifest.num_nodes]
        if starts != ends or manifest.storage not in STORAGE:
            raise VerificationError(f"{path}: its blocks do not cover the nodes one after another")
    return manifest
