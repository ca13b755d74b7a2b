"""Products of matrices on disk: the dense ones, a bounded number of paths at a time."""

from __future__ import annotations

import os
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from graphmoe.checkpoint.disk_rows import DiskRows, WithoutLoops
from graphmoe.checkpoint.row_products import Piece, count_paths, row_products
from graphmoe.checkpoint.rows_writer import RECORD, RowsWriter
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.checkpoint.sorted_runs import sorted_keys
from graphmoe.errors import VerificationError


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def stored(folder: Path, dense: np.ndarray, rows: int = 4) -> DiskRows:
    """A matrix in blocks of so many rows."""
    pieces: list[Piece] = []
    for start in range(0, len(dense), rows):
        part = dense[start : start + rows]
        row, col = part.nonzero()
        crow = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=len(part)))))
        pieces.append((start, crow, col, part[row, col]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphmoe.checkpoint.rows_writer.BLOCK_ENTRIES", 1)
        writer = RowsWriter(folder, dense.shape)
        writer.write(iter(pieces))
    return RowsWriter(folder, dense.shape).opened()


def dense_of(pieces: list[Piece], shape: tuple[int, int]) -> np.ndarray:
    total = np.zeros(shape, dtype=np.int64)
    for start, crow, col, value in pieces:
        row = np.repeat(np.arange(start, start + len(crow) - 1), np.diff(crow))
        total[row, col] = value
    return total


@pytest.mark.parametrize("limit", [3, 20, 10**6])
@pytest.mark.parametrize("first", [0, 7, 23])
def test_products_are_the_dense_ones(
    limit: int, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(limit)
    left = (random.random((23, 11)) < 0.2).astype(np.int64)
    left[5], left[6] = 1, 0  # a row with many paths, and one without any
    right = (random.random((11, 17)) < 0.4).astype(np.int64)
    a, b = stored(tmp_path / "a", left), stored(tmp_path / "b", right)
    monkeypatch.setattr("graphmoe.checkpoint.row_products.BLOCK_PATHS", limit)
    monkeypatch.setattr("graphmoe.checkpoint.disk_rows._OPEN", 2)
    pieces = list(row_products(a, b, first))
    want = left @ right
    kept = np.where(np.arange(23)[:, None] >= first, want, 0)
    assert np.array_equal(dense_of(pieces, (23, 17)), kept)
    assert count_paths(a, b) == want.sum()
    for start, crow, col, value in pieces:
        assert value.sum() <= limit or len(crow) == 2
        assert all((np.diff(col[i:j]) > 0).all() for i, j in pairwise(crow))
        assert start >= first


def test_a_hub_takes_memory_for_its_neighbours_not_for_its_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = np.ones((2, 400), dtype=np.int64)
    all_pairs = np.ones((400, 500), dtype=np.int64)
    a, b = stored(tmp_path / "a", wide, 1), stored(tmp_path / "b", all_pairs, 20)
    monkeypatch.setattr("graphmoe.checkpoint.row_products.BLOCK_PATHS", 2000)
    list(row_products(a, b))
    tracemalloc.start()
    pieces = list(row_products(a, b))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (dense_of(pieces, (2, 500)) == 400).all()
    assert peak < 1_200_000  # 200,000 paths a row took 60 bytes each otherwise


def test_what_was_written_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = (np.random.default_rng(0).random((20, 20)) < 0.3).astype(np.int64)
    whole = stored(tmp_path / "whole", dense, 3)
    monkeypatch.setattr("graphmoe.checkpoint.rows_writer.SECONDS", 0.0)
    monkeypatch.setattr("graphmoe.checkpoint.rows_writer.BLOCK_ENTRIES", 1)

    def pieces(first: int, ends: int) -> list[Piece]:
        eye = stored(tmp_path / f"eye{first}", np.eye(20, dtype=np.int64), 3)
        return [p for p in row_products(eye, whole, first) if p[0] < ends]

    class BrokenError(Exception):
        pass

    def broken(first: int) -> object:
        yield from pieces(first, 9)
        raise BrokenError

    writer = RowsWriter(tmp_path / "half", (20, 20))
    with pytest.raises(BrokenError):
        writer.write(broken(0))  # type: ignore[arg-type]
    writer = RowsWriter(tmp_path / "half", (20, 20))
    assert 0 < writer.next <= 9
    assert not writer.finished
    writer.write(pieces(writer.next, 20))
    assert writer.opened().lines() == whole.lines()
    with pytest.raises(VerificationError, match="of another matrix"):
        RowsWriter(tmp_path / "half", (20, 21))
    path = tmp_path / "half" / RECORD
    path.write_bytes(dump_sealed({**load_sealed(path), "blocks": [{"start": 0}]}))
    with pytest.raises(VerificationError, match="wrong fields"):
        RowsWriter(tmp_path / "half", (20, 20))


def test_loops_are_left_out(tmp_path: Path) -> None:
    dense = (np.random.default_rng(0).random((9, 9)) < 0.5).astype(np.int64)
    source = WithoutLoops(stored(tmp_path, dense))
    found = np.zeros((9, 9), dtype=np.int64)
    for start, crow, col in source.blocks():
        for row in range(len(crow) - 1):
            found[start + row, col[crow[row] : crow[row + 1]].numpy()] = 1
    assert np.array_equal(found, np.where(np.eye(9), 0, dense))


@pytest.mark.parametrize("memory", [1, 32 * 100, 1 << 30])
def test_numbers_are_sorted_in_any_memory(
    memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphmoe.checkpoint.sorted_runs.FAN_IN", 3)
    random = np.random.default_rng(0)
    pieces = [random.integers(0, 400, 60) for _ in range(20)]
    found = np.concatenate(list(sorted_keys(iter(pieces), tmp_path / "runs", memory)))
    assert np.array_equal(found, np.unique(np.concatenate(pieces)))
    assert list(sorted_keys(iter([]), tmp_path / "runs", memory)) == []
    assert not (tmp_path / "runs").exists()
