"""Rows of a matrix written to a folder as they come, and gone on with where that was broken off."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from graphmoe.checkpoint.block_files import BlockFiles, RowBlock, covers, write_block
from graphmoe.checkpoint.disk_rows import DiskRows
from graphmoe.checkpoint.files import TEMPORARY, discard, make_folder, write_bytes
from graphmoe.checkpoint.row_products import Piece
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.errors import VerificationError

RECORD = "rows.json"
#: Entries of a block; pieces are put together up to it.
BLOCK_ENTRIES = 1 << 22
SECONDS = 1.0  #: Between two records of what is done.


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    shape: list[NonNegativeInt] = Field(min_length=2, max_length=2)
    finished: bool
    blocks: list[RowBlock]


class RowsWriter:
    """A folder that a matrix is written to, row by row.

    Its name says what the matrix is, so that one that is there already is the same one.

    Args:
        root: The folder.
        shape: Rows and columns.
    """

    def __init__(self, root: Path, shape: tuple[int, int]) -> None:
        self.root, self.shape, self.recorded = root, shape, time.monotonic()
        self.blocks: list[RowBlock] = []
        self.finished = False
        path = root / RECORD
        if path.exists():
            self._load(path)

    def _load(self, path: Path) -> None:
        content = load_sealed(path)
        try:
            found = _Record.model_validate(content)
        except ValidationError as error:
            raise VerificationError(f"{path}: {error.error_count()} wrong fields") from None
        stop = found.blocks[-1].stop if found.blocks else 0
        if tuple(found.shape) != self.shape or not covers(found.blocks, stop):
            raise VerificationError(f"{path}: it is of another matrix")
        self.blocks, self.finished = found.blocks, found.finished

    @property
    def next(self) -> int:
        """The first row that is not there."""
        return self.blocks[-1].stop if self.blocks else 0

    def write(self, pieces: Iterable[Piece], values: bool = False) -> None:
        """Write the rows that are not there, and that all of them are.

        Args:
            pieces: Consecutive rows from :attr:`next` on.
            values: Whether their values are kept.
        """
        make_folder(self.root / "rows")
        for folder in (self.root, self.root / "rows"):
            for stale in folder.glob(f"{TEMPORARY}*"):
                discard(stale)
        for start, crow, col, value in joined_pieces(pieces):
            arrays: dict[str, np.ndarray] = {
                "crow": crow.astype(np.int64),
                "col": col.astype(np.int32),
            }
            if values:
                arrays["value"] = value.astype(np.int32)
            rows = (start, start + len(crow) - 1)
            number = len(self.blocks)
            self.blocks.append(write_block(self.root, "rows", number, rows, len(col), arrays))
            if time.monotonic() - self.recorded >= SECONDS:
                self._record()
        self.finished = True
        self._record()

    def _record(self) -> None:
        blocks = [block.model_dump(mode="json") for block in self.blocks]
        content: dict[str, Any] = {"shape": list(self.shape), "finished": self.finished}
        write_bytes(self.root / RECORD, dump_sealed({**content, "blocks": blocks}))
        self.recorded = time.monotonic()

    def opened(self) -> DiskRows:
        """The matrix, which is finished."""
        return DiskRows(BlockFiles(self.root, self.blocks), self.blocks, self.shape)


def joined_pieces(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Consecutive pieces put together while they have few entries and rows."""
    held: list[Piece] = []
    entries = rows = 0
    for piece in pieces:
        if held and max(entries + len(piece[2]), rows + len(piece[1]) - 1) > BLOCK_ENTRIES:
            yield _joined(held)
            held, entries, rows = [], 0, 0
        held.append(piece)
        entries, rows = entries + len(piece[2]), rows + len(piece[1]) - 1
    if held:
        yield _joined(held)


def _joined(held: list[Piece]) -> Piece:
    sizes = np.concatenate([np.diff(crow) for _, crow, _, _ in held])
    crow = np.concatenate(([0], np.cumsum(sizes)))
    col, value = (np.concatenate([piece[i] for piece in held]) for i in (2, 3))
    return held[0][0], crow, col, value
