"""Sorted runs on disk: merged in passes, so that few files are open however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from graphmoe.checkpoint.files import storage_errors, write_bytes
from graphmoe.data.big.external_sort import merge_runs
from graphmoe.errors import DataError

#: Runs that are open at once.
FAN_IN = 64
SUFFIX = ".run"
_KIND = np.dtype("<i8")


def write_run(path: Path, keys: np.ndarray) -> None:
    """Write ascending numbers."""
    write_bytes(path, keys.astype(_KIND, copy=False).tobytes())


def merged(paths: Sequence[Path], memory: int, start: int = 0) -> Iterator[np.ndarray]:
    """The union of the runs at ``paths`` from ``start`` on; see :func:`merge_runs`.

    Args:
        paths: At most :data:`FAN_IN` of them.
        memory: Bytes for what is looked at of all runs together, about.
        start: Numbers below it are left out.
    """
    window = max(memory // (32 * max(len(paths), 1)), 1024)
    return merge_runs([_mapped(path) for path in paths], window, start)


def merge_some(paths: Sequence[Path], out: Path, memory: int) -> int:
    """Merge the first of ``paths`` into one longer run, written as it comes.

    No more than it takes to have :data:`FAN_IN` left, and no more than so many at once. Each
    number is copied about once for each factor of :data:`FAN_IN` in the number of runs, when the
    new run is put behind the others.

    Returns:
        How many were merged.
    """
    count = min(FAN_IN, len(paths) - FAN_IN + 1)
    pieces = merged(paths[:count], memory)
    write_bytes(out, (piece.astype(_KIND, copy=False).tobytes() for piece in pieces))
    return count


def _mapped(path: Path) -> np.ndarray:
    with storage_errors(path, "read"):
        if path.stat().st_size == 0:  # cannot be mapped
            return np.empty(0, dtype=_KIND)
        try:
            return np.memmap(path, dtype=_KIND, mode="r")
        except ValueError:
            raise DataError(f"{path}: not whole numbers of 8 bytes: it was damaged") from None
