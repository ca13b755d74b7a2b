"""The largest entries of each row, against a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.ops import SparseOperator
from graphmoe.ops.prune_rows import prune_rows


@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 8),
    cols=st.integers(1, 8),
    k=st.integers(1, 9),
)
def test_against_a_loop_with_ties_and_negatives(seed: int, rows: int, cols: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randint(-2, 3, (rows, cols), generator=generator).float()
    expected = torch.zeros_like(dense)
    for row in range(rows):
        best = sorted(range(cols), key=lambda col: (-dense[row, col], col))[:k]
        for col in best:
            expected[row, col] = dense[row, col].clamp_min(0)
    pruned = prune_rows(SparseOperator.from_torch(dense.to_sparse()), k)
    assert torch.equal(pruned.to_sparse().to_dense(), expected)
    assert pruned.nnz == int((expected > 0).sum())
    columns = [pruned.col[a:b] for a, b in zip(pruned.crow[:-1], pruned.crow[1:], strict=True)]
    assert all(bool((part.diff() > 0).all()) for part in columns)


def test_none_is_no_number_of_entries() -> None:
    with pytest.raises(ValueError, match="k >= 1, got 0"):
        prune_rows(SparseOperator.from_torch(torch.eye(2).to_sparse()), 0)
