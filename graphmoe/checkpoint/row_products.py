"""Products of incidences on disk, a bounded number of paths at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from graphmoe.checkpoint.disk_rows import DiskRows

#: Paths that are followed together; bounds the memory of a product (some 60 bytes each).
BLOCK_PATHS = 1 << 21

#: First row, row pointers, columns, values.
Piece = tuple[int, np.ndarray, np.ndarray, np.ndarray]


def count_paths(left: DiskRows, right: DiskRows) -> int:
    """Paths of the product, counted without following them."""
    sizes = right.sizes()
    return sum(int(sizes[col].sum()) for _, _, col in left.arrays())


def row_products(left: DiskRows, right: DiskRows, first: int = 0) -> Iterator[Piece]:
    """Rows of ``left @ right`` from row ``first`` on: columns, ascending, and numbers of paths.

    Of ``left`` one block is in memory, of ``right`` the rows that are met; besides a number for
    each row and each column of ``right``.
    """
    sizes = right.sizes()
    for start, crow, col in left.arrays(first):
        paths = np.concatenate(([0], np.cumsum(sizes[col])))[crow]
        begin, rows = max(first - start, 0), len(crow) - 1
        while begin < rows:
            limit = paths[begin] + BLOCK_PATHS
            end = int(np.searchsorted(paths, limit, side="right")) - 1
            end = min(max(end, begin + 1), rows)
            part = col[crow[begin] : crow[end]]
            if end == begin + 1 and paths[end] > limit:
                product = _long_row(part, right, sizes)
            else:
                product = _product(crow[begin : end + 1] - crow[begin], part, right)
            yield start + begin, *product
            begin = end


def _product(
    crow: np.ndarray, col: np.ndarray, right: DiskRows
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    met, place = np.unique(col, return_inverse=True)
    other, reached = right.take(met)
    columns = right.shape[1]
    one = np.ones(len(col), dtype=np.int64)
    two = np.ones(len(reached), dtype=np.int64)
    total = sp.csr_array((one, place, crow), shape=(len(crow) - 1, len(met)))
    total = total @ sp.csr_array((two, reached, other), shape=(len(met), columns))
    total.sort_indices()
    return total.indptr, total.indices, total.data


def _long_row(
    col: np.ndarray, right: DiskRows, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A single row with more paths than are followed together."""
    total = np.zeros(right.shape[1], dtype=np.int64)
    place = np.cumsum(sizes[col]) // BLOCK_PATHS
    for part in np.split(col, np.flatnonzero(np.diff(place)) + 1):
        _, reached = right.take(np.sort(part))
        total += np.bincount(reached, minlength=len(total))
    (found,) = total.nonzero()
    return np.array([0, len(found)]), found, total[found]
