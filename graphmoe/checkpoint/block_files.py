"""A folder of NPY files that hold consecutive rows: written whole, read where they lie."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from graphmoe.checkpoint.files import real_folder, sha256, storage_errors, write_bytes
from graphmoe.checkpoint.sealed import load_sealed
from graphmoe.errors import MissingDataError, VerificationError
from graphmoe.typing import PathLike

MANIFEST = "graph.json"
WORK = "import"  #: What an import needs until it is finished.

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
    """Consecutive rows: of a matrix (``crow`` and ``col``), of features (``x``), of labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=0)
    stop: int = Field(ge=0)
    entries: int = Field(ge=0)
    arrays: dict[str, ArrayRecord]


def write_block(
    root: Path,
    folder: str,
    index: int,
    rows: tuple[int, int],
    entries: int,
    arrays: dict[str, np.ndarray],
) -> RowBlock:
    """Write the arrays of some rows, a file each.

    Args:
        root: Of the folder.
        folder: Below it.
        index: The block's number there.
        rows: Its first row, and the one after its last.
        entries: Of the matrix in them.
        arrays: By name.
    """
    records = {}
    for name, array in arrays.items():
        file, data = f"{folder}/{index:06d}.{name}.npy", dump_array(array)
        write_bytes(root / file, data)
        records[name] = ArrayRecord(file=file, sha256=sha256(data), size=len(data))
    return RowBlock(start=rows[0], stop=rows[1], entries=entries, arrays=records)


def dump_array(array: np.ndarray) -> bytes:
    """An array as the bytes of an NPY file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


class BlockFiles:
    """What a sealed record says of a folder's files, and the files.

    Args:
        path: The folder.
        blocks: All of them.

    Raises:
        VerificationError: A file is missing or of another size.
    """

    def __init__(self, path: Path, blocks: Iterable[RowBlock]) -> None:
        self.path = path
        self.records = [record for block in blocks for record in block.arrays.values()]
        for record in self.records:
            file = path / record.file
            if not real_folder(file.parent) or file.is_symlink() or not file.is_file():
                raise VerificationError(f"{file}: the file is missing")
            if file.stat().st_size != record.size:
                raise VerificationError(
                    f"{file}: expected {record.size} bytes, got {file.stat().st_size}"
                )

    def lines(self) -> list[str]:
        """Each file and its hash: equal content in equal blocks, equal lines."""
        return [f"{record.file} {record.sha256}" for record in self.records]

    def verify(self) -> None:
        """Read every file and compare it with its recorded hash.

        Raises:
            VerificationError: The first file that differs.
        """
        for record in self.records:
            path, digest = self.path / record.file, hashlib.sha256()
            with storage_errors(path, "read"), open(path, "rb") as file:
                while piece := file.read(_READ):
                    digest.update(piece)
            if digest.hexdigest() != record.sha256:
                raise VerificationError(f"{path}: its content does not match its hash")

    def record(self, block: RowBlock, name: str) -> ArrayRecord:
        """That of one of the arrays of a block.

        Raises:
            VerificationError: It has none of that name.
        """
        if name not in block.arrays:
            raise VerificationError(
                f"{self.path}: rows {block.start} to {block.stop} have no array {name!r}, "
                f"only {', '.join(block.arrays)[:80] or 'none'}"
            )
        return block.arrays[name]

    def array(self, record: ArrayRecord, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A file, mapped copy on write: torch wants memory it may write to, the file must stay.

        Raises:
            VerificationError: It is not of that type and shape.
        """
        path = self.path / record.file
        try:
            array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
        except Exception as error:  # numpy reads the header as Python: there is no end of kinds
            raise VerificationError(f"{path}: not a whole NPY file: {error}") from None
        if array.dtype != np.dtype(kind) or array.shape != shape:
            raise VerificationError(
                f"{path}: expected {np.dtype(kind)} {shape}, got {array.dtype} {array.shape}"
            )
        return array

    def rows(self, block: RowBlock, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Row pointers ``[R + 1]`` int64 and columns int32 of a block of a matrix.

        Raises:
            VerificationError: A file is not what was written.
        """
        crow = self.array(self.record(block, "crow"), np.int64, (block.stop - block.start + 1,))
        col = self.array(self.record(block, "col"), np.int32, (block.entries,))
        # What a damaged file could point a product at lies outside of the features.
        good = int(crow[0]) == 0 and int(crow[-1]) == block.entries
        good = good and bool((crow[1:] >= crow[:-1]).all())
        if block.entries and good:
            good = int(col.min()) >= 0 and int(col.max()) < columns
        if not good:
            file = self.path / block.arrays["crow"].file
            raise VerificationError(f"{file}: damaged, it or its columns are out of range")
        return crow, col

    def features(self, blocks: Sequence[RowBlock], width: int, storage: str) -> Iterator[Any]:
        """Each block's first row and its features ``[R, F]``, in the type they are stored in."""
        kind = np.float32 if storage == "float32" else np.int16
        for block in blocks:
            part = self.array(self.record(block, "x"), kind, (block.stop - block.start, width))
            yield block.start, torch.from_numpy(part).view(STORAGE[storage])

    def labels(self, blocks: Sequence[RowBlock]) -> Tensor | None:
        """Classes ``[N]``; ``None`` where there are none."""
        if not blocks:
            return None
        parts = [self.array(self.record(b, "y"), np.int64, (b.stop - b.start,)) for b in blocks]
        return torch.from_numpy(np.concatenate(parts))


def covers(blocks: Sequence[RowBlock], rows: int) -> bool:
    """Whether they are ``rows`` rows one after another."""
    ends = [0, *(block.stop for block in blocks)]
    return [*(block.start for block in blocks), rows] == ends


class ImportedGraph:
    """A graph on disk, in a folder whose ``graph.json`` names every file; of either kind.

    Args:
        path: The folder.

    Raises:
        MissingDataError: There is no such folder, or its import is not finished.
        VerificationError: The manifest is damaged, or a file is missing or of another size.
    """

    FORMAT: ClassVar[str]
    VERSION: ClassVar[int] = 1
    MODEL: ClassVar[type[BaseModel]]

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.manifest: Any = self._read(self._content(self.path))
        self.files = BlockFiles(self.path, self._blocks())

    @staticmethod
    def _content(path: Path) -> dict[str, Any]:
        if not (path / MANIFEST).exists():
            known = "its import is not finished" if path.is_dir() else "there is no folder"
            raise MissingDataError(f"no graph at {path}: {known}")
        return load_sealed(path / MANIFEST)

    def _read(self, content: dict[str, Any]) -> Any:
        path = self.path / MANIFEST
        found = (content.pop("format", None), content.pop("version", None))
        if found != (self.FORMAT, self.VERSION):
            raise VerificationError(
                f"{path}: expected format {self.FORMAT!r} version {self.VERSION}, "
                f"got {found[0]!r} version {found[1]!r}"
            )
        try:
            manifest = self.MODEL.model_validate(content)
        except ValidationError as error:
            raise VerificationError(f"{path}: {error.error_count()} wrong fields") from None
        fault = self._fault(manifest)
        if fault:
            raise VerificationError(f"{path}: {fault}")
        return manifest

    def _fault(self, manifest: Any) -> str:
        """What does not hang together in a manifest; empty where all does."""
        raise NotImplementedError

    def _blocks(self) -> Iterator[RowBlock]:
        """All blocks, in a fixed order."""
        raise NotImplementedError

    @property
    def num_nodes(self) -> int:
        """Nodes N that are embedded."""
        raise NotImplementedError

    @property
    def num_features(self) -> int:
        """Width F of their features; 0: there are none."""
        raise NotImplementedError

    def feature_blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Each block's first row and its features ``[R, F]``, in the type they are stored in."""
        raise NotImplementedError

    def to_data(self) -> Any:
        """All of it in memory, as any other graph: for those that fit."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """SHA-256 over the hashes of all files: equal content in equal blocks, equal name."""
        lines = [*self._about(), *self.files.lines()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _about(self) -> list[str]:
        """What beside the files tells one graph from another."""
        return [str(self.num_nodes)]

    def verify(self) -> None:
        """Read every file and compare it with its recorded hash.

        Raises:
            VerificationError: The first file that differs.
        """
        self.files.verify()
