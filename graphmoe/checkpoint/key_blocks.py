"""From sorted numbers that stand for entries of a matrix to blocks of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from graphmoe.data.big.external_sort import edge_ends


def row_blocks(
    pieces: Iterable[np.ndarray], start: int, stop: int, limit: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Whole rows, as soon as there are ``limit`` entries of them or of empty rows.

    Args:
        pieces: Entries as :func:`~graphmoe.data.big.external_sort.edge_keys` numbers them,
            ascending, from row ``start`` on; those from row ``stop`` on are left out.
        start: First row.
        stop: Row after the last.
        limit: Entries of a block, and rows; a longer row is a block by itself.

    Yields:
        The first row of a block, its row pointers ``[R + 1]`` int64, its columns int64.
    """
    held = np.empty(0, dtype=np.int64)
    for piece in pieces:
        held = np.concatenate([held, piece[: int(np.searchsorted(piece, stop << 32))]])
        if not held.size or piece[-1] >> 32 >= stop:
            break
        # Its last row may go on in the next piece.
        last = int(held[-1] >> 32)
        whole = int(np.searchsorted(held, last << 32))
        for block in _cut(held[:whole], start, last, limit, force=False):
            yield block
            start = block[0] + len(block[1]) - 1
        held = held[int(np.searchsorted(held, start << 32)) :].copy()
    yield from _cut(held, start, stop, limit, force=True)


def _cut(
    keys: np.ndarray, start: int, stop: int, limit: int, force: bool
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Blocks of the rows ``start`` to ``stop``, of at most ``limit`` entries and rows.

    Args:
        keys: Everything in these rows, sorted.
        start: First row.
        stop: Row after the last.
        limit: A longer row is a block by itself.
        force: Give what is left although it is less.
    """
    while start < stop:
        end = min(start + limit, stop)
        inside = int(np.searchsorted(keys, end << 32))
        if inside > limit:
            end = max(int(keys[limit] >> 32), start + 1)
            inside = int(np.searchsorted(keys, end << 32))
        elif end == stop and not force:
            return
        row, col = edge_ends(keys[:inside])
        crow = np.zeros(end - start + 1, dtype=np.int64)
        np.cumsum(np.bincount(row - start, minlength=end - start), out=crow[1:])
        yield start, crow, col
        keys, start = keys[inside:], end
