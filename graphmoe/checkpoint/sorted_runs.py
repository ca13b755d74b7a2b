"""Sorted runs on disk: merged in passes, so that few files are open however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from graphmoe.checkpoint.files import discard, make_folder, storage_errors, write_bytes
from graphmoe.data.big.external_sort import distinct, merge_runs
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
    merges = min(FAN_IN, len(paths) - FAN_IN + 1)
    pieces = merged(paths[:merges], memory)
    write_bytes(out, (piece.astype(_KIND, copy=False).tobytes() for piece in pieces))
    return merges


def _mapped(path: Path) -> np.ndarray:
    with storage_errors(path, "read"):
        if path.stat().st_size == 0:  # cannot be mapped
            return np.empty(0, dtype=_KIND)
        try:
            return np.memmap(path, dtype=_KIND, mode="r")
        except ValueError:
            raise DataError(f"{path}: not whole numbers of 8 bytes: it was damaged") from None


def sorted_keys(pieces: Iterable[np.ndarray], folder: Path, memory: int) -> Iterator[np.ndarray]:
    """Distinct numbers in ascending order, by way of runs in ``folder`` where they are many.

    Args:
        pieces: In any order.
        folder: Of the runs, which are there while this lasts.
        memory: Bytes for sorting, about.
    """
    held: list[np.ndarray] = []
    runs: list[Path] = []
    made = count(0)

    def write() -> None:
        make_folder(folder)
        runs.append(folder / f"{next(made):06d}{SUFFIX}")
        write_run(runs[-1], distinct(np.concatenate(held)))
        held.clear()

    discard(folder)  # of a process that was killed
    try:
        for piece in pieces:
            held.append(piece)
            if sum(map(len, held)) * 32 > memory:
                write()
        if not runs:
            if held:
                yield distinct(np.concatenate(held))
            return
        if held:
            write()
        while len(runs) > FAN_IN:
            out = folder / f"{next(made):06d}{SUFFIX}"
            merges = merge_some(runs, out, memory)
            for path in runs[:merges]:
                discard(path)
            runs = [*runs[merges:], out]
        yield from merged(runs, memory)
    finally:
        discard(folder)
