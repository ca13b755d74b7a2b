"""Distinct numbers in ascending order, more of them than memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from graphmoe.errors import DataError

#: Ends of an edge below this fit into one signed 64-bit number together.
MAX_NODES = 2**31 - 1
#: Added to the nodes of one of two types, so that both directions of a link between them are sorted
#: as one list: nodes of either type have numbers below it.
SPLIT = 2**30
_LOW = np.int64(2**32 - 1)


def edge_keys(source: np.ndarray, target: np.ndarray, loops: bool = False) -> np.ndarray:
    """Both directions of each edge as numbers that sort by row, then by column.

    Args:
        source: One end of each edge, int64 ``[E]``, in [0, 2³¹ - 1).
        target: The other.
        loops: Whether loops are kept.

    Returns:
        Sorted, without repeats.
    """
    apart = slice(None) if loops else source != target
    low, high = source[apart], target[apart]
    keys = np.empty(2 * len(low), dtype=np.int64)
    np.left_shift(low, 32, out=keys[: len(low)])
    keys[: len(low)] |= high
    np.left_shift(high, 32, out=keys[len(low) :])
    keys[len(low) :] |= low
    return distinct(keys)


def edge_ends(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of :func:`edge_keys`."""
    return keys >> 32, keys & _LOW


def distinct(keys: np.ndarray) -> np.ndarray:
    """``keys`` sorted in place, and those of them that differ from the one before."""
    keys.sort()
    if len(keys) < 2:
        return keys
    return keys[np.concatenate(([True], keys[1:] != keys[:-1]))]


def merge_runs(runs: Sequence[np.ndarray], window: int, start: int = 0) -> Iterator[np.ndarray]:
    """The union of sorted runs, as pieces that follow one another.

    From each run at most ``window`` numbers are looked at. The smallest of the last numbers seen
    bounds what can be given away: everything up to it has been seen in every run. That empties
    at least one window each time, so every number is read about once, by whole arrays.

    Args:
        runs: Each ascending and without repeats; memory-mapped files serve.
        window: Numbers of each run in memory, at least 1.
        start: Numbers below it are left out.

    Yields:
        Ascending numbers without repeats, each above those of the piece before.

    Raises:
        DataError: A run is not ascending: its file was damaged.
    """
    if window < 1:
        raise ValueError(f"expected a window of at least 1, got {window}")
    place = [int(np.searchsorted(run, start)) for run in runs]
    while True:
        open_runs = [i for i, run in enumerate(runs) if place[i] < len(run)]
        if not open_runs:
            return
        seen = {i: np.asarray(runs[i][place[i] : place[i] + window]) for i in open_runs}
        if any((piece[1:] <= piece[:-1]).any() for piece in seen.values()):
            raise DataError("a sorted run is out of order: its file was damaged")
        bound = min(piece[-1] for piece in seen.values())
        parts = []
        for i, piece in seen.items():
            count = int(np.searchsorted(piece, bound, side="right"))
            place[i] += count
            parts.append(piece[:count])
        yield distinct(np.concatenate(parts))
