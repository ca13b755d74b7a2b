from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.ops import SparseOperator
from graphmoe.ops.co_occurrence import co_occurrence_knn, expand_rows, transition_knn


def random_operator(seed: int, users: int = 12, items: int = 9) -> SparseOperator:
    taken = torch.rand(users, items, generator=torch.Generator().manual_seed(seed)) < 0.3
    row, col = taken.nonzero().unbind(1)
    return SparseOperator.from_edges(row, col, (users, items))


@given(seed=st.integers(0, 1000), k=st.integers(1, 9))
def test_against_all_pairs(seed: int, k: int) -> None:
    op = random_operator(seed)
    R = op.to_sparse().to_dense().double()
    norm = R.norm(dim=0).clamp_min(1e-12)
    S = R.t() @ R / (norm[:, None] * norm)
    S.fill_diagonal_(0)
    # Of equals the lower number: the stable order of a descending sort.
    order = S.argsort(dim=1, descending=True, stable=True)[:, :k]
    expected = S * torch.zeros_like(S).scatter_(1, order, 1.0)
    got = co_occurrence_knn(op, k).to_sparse().to_dense()
    assert (got > 0).sum(1).max() <= k
    # Which of two equals up to rounding is kept is open; what is kept is not.
    torch.testing.assert_close(
        got.sort(dim=1).values, expected.float().sort(dim=1).values, rtol=1e-6, atol=1e-7
    )
    torch.testing.assert_close(got, (S * (got > 0)).float(), rtol=1e-6, atol=1e-7)


@given(seed=st.integers(0, 1000), work=st.integers(1, 50))
def test_blocks_change_nothing(seed: int, work: int) -> None:
    op = random_operator(seed)
    whole, parts = co_occurrence_knn(op, 3), co_occurrence_knn(op, 3, work=work)
    assert torch.equal(whole.crow, parts.crow)
    assert torch.equal(whole.col, parts.col)
    assert torch.equal(whole.value, parts.value)


def test_nothing_taken_means_no_neighbours() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert co_occurrence_knn(SparseOperator.from_edges(none, none, (4, 3)), 2).nnz == 0
    with pytest.raises(ValueError, match="k >= 1, got 0"):
        co_occurrence_knn(random_operator(0), 0)


def test_entries_of_chosen_rows() -> None:
    op = SparseOperator.from_edges(
        torch.tensor([0, 0, 2]), torch.tensor([1, 3, 0]), (3, 4), torch.tensor([5.0, 6.0, 7.0])
    )
    position, place = expand_rows(op, torch.tensor([2, 1, 0, 2]))
    assert position.tolist() == [0, 2, 2, 3]
    assert op.value[place].tolist() == [7.0, 5.0, 6.0, 7.0]


@given(seed=st.integers(0, 1000), k=st.integers(1, 9), work=st.integers(1, 50))
def test_transitions_against_the_product(seed: int, k: int, work: int) -> None:
    op = random_operator(seed)
    R = op.to_sparse().to_dense().double()
    P = (R / R.sum(dim=0).clamp_min(1)).t() @ (R / R.sum(dim=1, keepdim=True).clamp_min(1))
    got = transition_knn(op, k, work=work).to_sparse().to_dense().double()
    torch.testing.assert_close(got, P * (got > 0), rtol=1e-6, atol=1e-7)
    largest = P.sort(dim=1, descending=True).values
    kept = torch.where(torch.arange(P.size(1)) < k, largest, 0.0)
    torch.testing.assert_close(got.sort(dim=1, descending=True).values, kept, rtol=1e-6, atol=1e-7)
    if k == P.size(1):
        total = got.sum(dim=1)
        torch.testing.assert_close(total, (R.sum(dim=0) > 0).double())
