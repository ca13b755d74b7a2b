"""Sorting what does not fit gives what sorting in memory gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmoe.data.big.external_sort import distinct, edge_ends, edge_keys, merge_runs
from graphmoe.errors import DataError


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 60), max_size=25), max_size=5),
    st.integers(1, 7),
    st.integers(0, 40),
)
def test_merged_runs_are_the_sorted_union(runs: list[list[int]], window: int, start: int) -> None:
    ready = [distinct(np.array(run, dtype=np.int64)) for run in runs]
    pieces = list(merge_runs(ready, window, start))
    found = [number for piece in pieces for number in piece.tolist()]
    assert found == sorted({number for run in runs for number in run if number >= start})
    assert all(0 < len(piece) <= window * max(len(runs), 1) for piece in pieces)


def test_edges_are_kept_in_both_directions_once_and_without_loops() -> None:
    big = 2**31 - 2
    keys = edge_keys(np.array([0, 1, 5, 5, big]), np.array([1, 0, 5, 2, 3]))
    row, col = edge_ends(keys)
    assert list(zip(row.tolist(), col.tolist(), strict=True)) == [
        (0, 1),
        (1, 0),
        (2, 5),
        (3, big),
        (5, 2),
        (big, 3),
    ]


def test_a_damaged_run_does_not_hang() -> None:
    with pytest.raises(DataError, match="out of order"):
        list(merge_runs([np.array([5, 9, 1]), np.array([4, 2])], 2))
    with pytest.raises(ValueError, match="window of at least 1"):
        list(merge_runs([], 0))
