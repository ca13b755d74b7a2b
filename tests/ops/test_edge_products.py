"""Sparse products over edges against dense ones, to any order of differentiation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.ops import edge_dot, edge_sum, sort_edges

SIZES = st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 20), st.integers(0, 4))


def draw(rows: int, cols: int, edges: int) -> tuple[Tensor, Tensor]:
    edges = edges if rows and cols else 0
    return torch.randint(max(rows, 1), (edges,)), torch.randint(max(cols, 1), (edges,))


@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_equal_to_the_products_of_each_edge_and_their_gradients(
    sizes: tuple[int, int, int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    rows, cols, count, width = sizes
    row, col = draw(rows, cols, count)
    a = torch.randn(rows, width, dtype=torch.float64, requires_grad=True)
    b = torch.randn(cols, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(row.numel(), dtype=torch.float64, requires_grad=True)
    edges, order = sort_edges(row, col, rows, cols)
    dot = edge_dot(a, b, edges)
    total = edge_sum(weight[order], b, edges)
    expected_dot = (a[row] * b[col]).sum(dim=1)
    expected_total = a.new_zeros(rows, width).index_add(0, row, weight[:, None] * b[col])
    torch.testing.assert_close(dot, expected_dot[order])
    torch.testing.assert_close(total, expected_total)
    mark, other = torch.randn_like(dot), torch.randn_like(total)
    got = torch.autograd.grad((dot * mark).sum() + (total * other).sum(), (a, b, weight))
    expected = torch.autograd.grad(
        (expected_dot[order] * mark).sum() + (expected_total * other).sum(), (a, b, weight)
    )
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_differentiable_twice_and_registered_as_torch_wants_it() -> None:
    row, col = draw(4, 5, 12)
    edges, _ = sort_edges(row, col, 4, 5)
    a = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, dtype=torch.float64, requires_grad=True)

    def both(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        return edge_dot(a, b, edges).sin().sum() + edge_sum(weight, b, edges).sin().sum()

    assert torch.autograd.gradcheck(both, (a, b, weight))
    assert torch.autograd.gradgradcheck(both, (a, b, weight))
    ops = torch.ops.graphmoe
    torch.library.opcheck(ops.sort_edges.default, (row, col, 4, 5, True))
    torch.library.opcheck(ops.sort_edges.default, (row, col, 4, 5, False))
    torch.library.opcheck(ops.edge_dot.default, (a, b, list(edges)))
    for transpose, x in ((False, b), (True, a)):
        torch.library.opcheck(ops.edge_sum.default, (weight, x, list(edges), transpose))


def test_edges_come_sorted_and_say_where_they_were() -> None:
    row, col = torch.tensor([2, 0, 2, 0]), torch.tensor([1, 1, 0, 1])
    edges, order = sort_edges(row, col, 3, 2)
    assert edges.row.tolist() == [0, 0, 2, 2]
    assert edges.col.tolist() == [1, 1, 0, 1]
    assert order.tolist() == [1, 3, 2, 0]
    assert edges.start.tolist() == [0, 2, 2, 4]
    assert edges.start_by_col.tolist() == [0, 1, 4]
    assert edges.row[edges.by_col].tolist() == edges.row_by_col.tolist() == [2, 0, 0, 2]
    with torch.no_grad():  # what only gradients need is not made
        assert sort_edges(row, col, 3, 2)[0].by_col.numel() == 0


@pytest.mark.parametrize(("row", "col"), [(3, 0), (0, 2), (-1, 0), (0, -1)])
def test_edges_out_of_range_are_named(row: int, col: int) -> None:
    with pytest.raises(ValueError, match=r"edge (ends|starts) at token -?\d, but there are \d tok"):
        sort_edges(torch.tensor([0, row]), torch.tensor([1, col]), 3, 2)
