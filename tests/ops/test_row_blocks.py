"""Operators that are read by row blocks give what the ones in memory give."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from graphmoe.ops import MeanOperator, SparseOperator, gcn_normalize, propagate, row_blocks
from graphmoe.ops.row_blocks import RowBlockOperator, edge_uniform
from graphmoe.ops.strips import propagate_strips, strip_columns

N = 53


class Sliced:
    """Row blocks of a matrix in memory, of uneven sizes."""

    def __init__(self, op: SparseOperator, cuts: tuple[int, ...]) -> None:
        self.op, self.cuts = op, cuts

    @property
    def shape(self) -> tuple[int, int]:
        return self.op.shape

    @property
    def nnz(self) -> int:
        return self.op.nnz

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        bounds = (0, *self.cuts, self.op.shape[0])
        for start, stop in pairwise(bounds):
            crow = self.op.crow[start : stop + 1]
            yield start, crow - crow[0], self.op.col[crow[0] : crow[-1]]


@pytest.fixture
def graph() -> SparseOperator:
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(N - 3, (2, 160), generator=generator)  # the last three are isolated
    ends = ends[:, ends[0] != ends[1]]
    row, col = torch.cat([ends[0], ends[1]]), torch.cat([ends[1], ends[0]])
    return SparseOperator.from_edges(row, col, (N, N), symmetric=True, dtype=torch.float32)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, 7, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cuts", [(), (20,), (1, 2, 50), (10, 10, 30, 52)])
def test_normalised_propagation_is_that_of_the_matrix_in_memory(
    graph: SparseOperator, x: Tensor, cuts: tuple[int, ...]
) -> None:
    op = gcn_normalize(RowBlockOperator(Sliced(graph, cuts)))
    whole = gcn_normalize(graph)
    torch.testing.assert_close(op.to_sparse().to_dense(), whole.to_sparse().to_dense())
    torch.testing.assert_close(propagate(op, x, 3), propagate(whole, x, 3), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(op.degree(), whole.degree())


def test_transpose_and_gradient_swap_the_two_scales(graph: SparseOperator, x: Tensor) -> None:
    left, right = torch.rand(N) + 0.5, torch.rand(N) + 0.5
    op = RowBlockOperator(Sliced(graph, (17,))).with_self_loops().scaled(left, right)
    dense = op.to_sparse().to_dense()
    torch.testing.assert_close(op @ x, dense @ x)
    torch.testing.assert_close(op.rmatmul(x), dense.t() @ x)
    leaf = x.clone().requires_grad_()
    (op @ leaf).square().sum().backward()
    torch.testing.assert_close(leaf.grad, dense.t() @ (2 * dense @ x))


def test_dropped_edges_go_in_both_directions_whatever_the_blocks(graph: SparseOperator) -> None:
    ops = [RowBlockOperator(Sliced(graph, cuts), 0.4, key=5) for cuts in ((), (3, 30))]
    first, second = (op.to_sparse().to_dense() for op in ops)
    assert torch.equal(first, second)
    assert torch.equal(first, first.t())
    full = graph.to_sparse().to_dense()
    assert torch.equal(first, first * full)
    assert 0.4 < first.sum() / full.sum() < 0.8
    other = RowBlockOperator(Sliced(graph, ()), 0.4, key=6).to_sparse().to_dense()
    assert not torch.equal(first, other)
    looped = RowBlockOperator(Sliced(graph, (9,)), 0.4, key=5).with_self_loops()
    torch.testing.assert_close(looped.degree(), first.sum(dim=1) + 1)


def test_the_draw_is_uniform_and_keys_are_unrelated() -> None:
    row = torch.arange(100).repeat_interleave(100)
    col = torch.arange(100).repeat(100) + 100
    draws = torch.stack([edge_uniform(row, col, key) for key in range(8)])
    assert torch.equal(draws[0], edge_uniform(col, row, 0))
    # 10,000 draws each: a mean has a standard error of 0.0029, a correlation one of 0.01.
    assert (draws.mean(dim=1) - 0.5).abs().max() < 0.012
    assert (draws.var(dim=1) - 1 / 12).abs().max() < 0.004
    assert torch.corrcoef(draws).fill_diagonal_(0).abs().max() < 0.05
    tenths = torch.histc(draws[0], 10, 0, 1)
    assert ((tenths - 1000).square() / 1000).sum() < 27.9  # chi², 9 degrees, p = 0.001


@pytest.mark.parametrize("drop", [0.0, 1e-9, 0.3, 0.999])
def test_whole_numbers_decide_as_the_uniform_number_would(
    drop: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "_PIECE", 7)  # pieces meet, and the last one is short
    row, col = (torch.randint(2**31 - 1, (1000,)) for _ in range(2))
    kept = row_blocks._kept_edges(row, col.int(), 3, drop)
    assert torch.equal(kept, edge_uniform(row, col, 3) >= drop)


@pytest.mark.parametrize("columns", [1, 3, 7, 100])
def test_strips_give_the_whole(graph: SparseOperator, x: Tensor, columns: int) -> None:
    view = gcn_normalize(RowBlockOperator(Sliced(graph, (20,))))
    op = MeanOperator([view, view])
    out, told = torch.full_like(x, torch.nan), []
    propagate_strips(op, x, 2, out, columns, on_strip=told.append)
    torch.testing.assert_close(out, propagate(op, x, 2))
    assert told[-1] == 7
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    propagate_strips(op, x, 2, out, columns, order=order)
    torch.testing.assert_close(out, propagate(op, x[order], 2))


def test_strips_go_on_and_are_stored_in_bfloat16(graph: SparseOperator, x: Tensor) -> None:
    op = gcn_normalize(graph)
    out = torch.full(x.shape, 9.0, dtype=torch.bfloat16)
    propagate_strips(op, x.bfloat16(), 2, out, 2, first=4)
    assert (out[:, :4] == 9).all()
    exact = propagate(op, x.bfloat16().float(), 2)[:, 4:]
    assert torch.equal(out[:, 4:], exact.bfloat16())  # one rounding, at the very end


def test_width_of_strips() -> None:
    assert strip_columns(1000, 64, 12_000 * 5 + 11_999) == 5
    assert strip_columns(1000, 4, 1 << 30) == 4
    assert strip_columns(10**9, 64, 1) == 1


def test_what_cannot_be_is_refused(graph: SparseOperator, x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected drop in \[0, 1\), got 1"):
        RowBlockOperator(Sliced(graph, ()), 1)
    with pytest.raises(ValueError, match="before scaling"):
        gcn_normalize(RowBlockOperator(Sliced(graph, ()))).with_self_loops()
    with pytest.raises(ValueError, match="at least 1 column a strip, got 0"):
        propagate_strips(gcn_normalize(graph), x, 1, torch.empty_like(x), 0)
    with pytest.raises(ValueError, match=r"room for \(53, 7\), got \(7,\)"):
        propagate_strips(gcn_normalize(graph), x, 1, torch.empty(7), 2)
