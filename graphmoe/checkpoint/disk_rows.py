"""A binary matrix of any shape in row blocks on disk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.checkpoint.block_files import BlockFiles, RowBlock

#: Blocks whose files stay open, of those that rows were taken from.
_OPEN = 32


class DiskRows:
    """Rows of a matrix, block by block or picked out; nothing is kept in memory.

    As the source of a :class:`~graphmoe.ops.row_blocks.RowBlockOperator` it stands for the matrix,
    which then need be neither square nor symmetric.

    Args:
        files: The folder.
        blocks: Of consecutive rows.
        shape: Rows and columns.
        transpose: Blocks of the transpose, where they are kept too.
    """

    def __init__(
        self,
        files: BlockFiles,
        blocks: Sequence[RowBlock],
        shape: tuple[int, int],
        transpose: Sequence[RowBlock] | None = None,
    ) -> None:
        self.files, self._blocks, self.shape = files, list(blocks), shape
        self._starts = np.array([block.start for block in blocks], dtype=np.int64)
        self._opened: OrderedDict[int, Any] = OrderedDict()
        self._transpose: DiskRows | None = None
        if transpose is not None:
            self.joined(DiskRows(files, transpose, (shape[1], shape[0])))

    def joined(self, transpose: DiskRows) -> DiskRows:
        """Tell the two which is the transpose of which."""
        self._transpose, transpose._transpose = transpose, self
        return self

    @property
    def nnz(self) -> int:
        """Entries."""
        return sum(block.entries for block in self._blocks)

    def t(self) -> DiskRows:
        """The transpose."""
        if self._transpose is None:
            raise ValueError("the transpose of these rows is not on disk")
        return self._transpose

    def symmetric(self) -> DiskRows:
        """The matrix itself, which equals its transpose."""
        self._transpose = self
        return self

    def lines(self) -> list[str]:
        """Hashes of its files: equal matrices that were cut alike have equal ones."""
        return [record.sha256 for block in self._blocks for record in block.arrays.values()]

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each block's first row, row pointers ``[R + 1]`` int64 and columns, ascending, int32.

        Raises:
            VerificationError: A file is not what was written.
        """
        for start, crow, col in self.arrays():
            yield start, torch.from_numpy(crow), torch.from_numpy(col)

    def arrays(self, first: int = 0) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """As :meth:`blocks` in numpy, from the block on that has row ``first``."""
        for block in self._blocks:
            if block.stop > first:
                yield block.start, *self.files.rows(block, self.shape[1])

    def valued(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """As :meth:`blocks`, with the values of the entries, int32, where they have any."""
        for block in self._blocks:
            crow, col = self.files.rows(block, self.shape[1])
            value = self.files.array(self.files.record(block, "value"), np.int32, (block.entries,))
            crow_t, col_t, value_t = map(torch.from_numpy, (crow, col, value))
            yield block.start, crow_t, col_t, value_t

    def entries(self) -> Iterator[np.ndarray]:
        """Entries as numbers that sort by row, then by column, block by block."""
        for start, crow, col in self.arrays():
            row = np.repeat(np.arange(start, start + len(crow) - 1), np.diff(crow))
            yield row << 32 | col

    def sizes(self) -> np.ndarray:
        """Entries of each row, int64 ``[R]``."""
        parts = [np.diff(crow) for _, crow, _ in self.arrays()]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows as a matrix of their own.

        Args:
            rows: Ascending, ``[n]``.

        Returns:
            Row pointers ``[n + 1]`` and columns.
        """
        sizes, cols = [np.zeros(1, dtype=np.int64)], [np.zeros(0, dtype=np.int32)]
        where = np.searchsorted(self._starts, rows, side="right") - 1
        cuts = np.flatnonzero(np.diff(where)) + 1
        for part in np.split(rows, cuts) if len(rows) else []:
            start, crow, col = self._open(int(np.searchsorted(self._starts, part[0], "right")) - 1)
            begin = crow[part - start]
            size = crow[part - start + 1] - begin
            # Where each row lies, one behind the other.
            shift = np.repeat(begin - (np.cumsum(size) - size), size)
            sizes.append(size)
            cols.append(col[np.arange(len(shift)) + shift])
        return np.cumsum(np.concatenate(sizes)), np.concatenate(cols)

    def _open(self, index: int) -> tuple[int, np.ndarray, np.ndarray]:
        """A block that stays open while it is among the last ones used; checked once."""
        if index not in self._opened:
            block = self._blocks[index]
            self._opened[index] = (block.start, *self.files.rows(block, self.shape[1]))
            if len(self._opened) > _OPEN:
                self._opened.popitem(last=False)
        self._opened.move_to_end(index)
        return self._opened[index]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape[0]}, {self.shape[1]}, nnz={self.nnz})"


class WithoutLoops:
    """Blocks of a square matrix without what stands on its diagonal.

    Args:
        source: The matrix.
    """

    def __init__(self, source: DiskRows) -> None:
        self.source = source

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.source.shape

    @property
    def nnz(self) -> int:
        """Entries that are read."""
        return self.source.nnz

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """As those of ``source``."""
        for start, crow, col in self.source.arrays():
            row = np.repeat(np.arange(start, start + len(crow) - 1), np.diff(crow))
            apart = row != col
            if not apart.all():
                crow = np.concatenate(([0], np.cumsum(apart)))[crow]
                col = col[apart]
            yield start, torch.from_numpy(crow), torch.from_numpy(col)
