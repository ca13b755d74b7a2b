"""Operators against dense arithmetic: products, gradients, scaling, moves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import to_dense_adj

from graphmoe.ops import (
    BinaryPathOperator,
    LinearOperator,
    SparseOperator,
    gcn_normalize,
    metapath_operator,
    propagate,
)


def explicit(seed: int = 0, n: int = 9) -> SparseOperator:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(n, n, generator=generator, dtype=torch.float64)
    dense = dense * (torch.rand(n, n, generator=generator) < 0.3)
    return SparseOperator.from_torch(dense.to_sparse_coo())


def lazy(seed: int = 0, n: int = 9) -> BinaryPathOperator:
    generator = torch.Generator().manual_seed(seed)
    row, col = (torch.rand(n, 4, generator=generator) < 0.4).nonzero().t()
    half = SparseOperator.from_edges(row, col, (n, 4), dtype=torch.float64)
    weight = torch.rand(n, generator=generator, dtype=torch.float64)
    surplus = SparseOperator.from_edges(
        torch.tensor([0, 1, n - 1]), torch.tensor([1, 0, n - 1]), (n, n), weight[:3]
    )
    dense = half.to_sparse().to_dense()
    diagonal = (dense @ dense.t() - surplus.to_sparse().to_dense()).diagonal()
    return BinaryPathOperator([half, half.t()], surplus, diagonal, symmetric=False)


OPERATORS = {"sparse": explicit, "lazy": lazy}


@pytest.fixture(params=OPERATORS, ids=list(OPERATORS))
def op(request: pytest.FixtureRequest) -> LinearOperator:
    return OPERATORS[request.param]()


def dense(op: LinearOperator) -> torch.Tensor:
    return op.to_sparse().to_dense()


def test_products_equal_dense_products(op: LinearOperator) -> None:
    x = torch.randn(9, 5, dtype=torch.float64)
    torch.testing.assert_close(op @ x, dense(op) @ x)
    torch.testing.assert_close(op.rmatmul(x), dense(op).t() @ x)
    torch.testing.assert_close(op.degree(), dense(op).sum(dim=1))


def test_gradients_are_those_of_the_dense_product(op: LinearOperator) -> None:
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(op.matmul, (x,))
    assert torch.autograd.gradcheck(op.rmatmul, (x,))
    assert torch.autograd.gradgradcheck(lambda x: (op @ x) ** 2, (x,))


def test_scaling_multiplies_rows_and_columns(op: LinearOperator) -> None:
    left, right = torch.rand(2, 9, dtype=torch.float64)
    expected = left[:, None] * dense(op) * right
    torch.testing.assert_close(dense(op.scaled(left, right)), expected)
    x = torch.randn(9, 2, dtype=torch.float64)
    torch.testing.assert_close(op.scaled(left, right).rmatmul(x), expected.t() @ x)


def test_self_loops_fill_only_empty_places(op: LinearOperator) -> None:
    before, after = dense(op), dense(op.with_self_loops())
    expected = before + torch.diag((before.diagonal() == 0).double())
    torch.testing.assert_close(after, expected)
    torch.testing.assert_close(dense(op.with_self_loops().with_self_loops()), expected)


def test_moves_between_types(op: LinearOperator) -> None:
    x = torch.randn(9, 2)
    single = op.to(dtype=torch.float32)
    torch.testing.assert_close(single @ x, (op @ x.double()).float())
    assert op.to(dtype=torch.float64).dtype == torch.float64
    with pytest.raises(TypeError, match=r"features of type torch.float32, got torch.float64"):
        single @ x.double()


def test_moves_between_devices(op: LinearOperator) -> None:
    ghost = op.to(device="meta")
    assert ghost.device.type == "meta"
    assert ghost.shape == op.shape
    assert op.device.type == "cpu"


def test_wrong_shapes_are_told(op: LinearOperator) -> None:
    with pytest.raises(ValueError, match=r"shape \(9, F\).*got \(8, 2\)"):
        op @ torch.randn(8, 2, dtype=torch.float64)


def test_entries_are_binary_or_add_up() -> None:
    row, col = torch.tensor([0, 1, 0]), torch.tensor([1, 0, 1])
    assert dense(SparseOperator.from_edges(row, col, (2, 2))).tolist() == [[0, 1], [1, 0]]
    weighted = SparseOperator.from_edges(row, col, (2, 2), torch.tensor([1.0, 2.0, 3.0]))
    assert dense(weighted).tolist() == [[0, 4], [2, 0]]
    with pytest.raises(ValueError, match=r"column indices must lie in \[0, 1\)"):
        SparseOperator.from_edges(row, col, (2, 1))
    with pytest.raises(ValueError, match=r"row indices must lie in \[0, 1\)"):
        SparseOperator.from_edges(row, col, (1, 2))


def test_repr_names_shape_and_cost() -> None:
    op = SparseOperator.from_edges(torch.tensor([0]), torch.tensor([1]), (2, 3))
    assert repr(op) == "SparseOperator(2, 3, nnz=1)"


@given(seed=st.integers(0, 1000), n=st.integers(1, 15))
def test_normalisation_is_that_of_pyg(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(n, (2, 2 * n), generator=generator)
    edges = torch.cat([edges, edges.flip(0)], dim=1).unique(dim=1)
    op = gcn_normalize(SparseOperator.from_edges(*edges, (n, n), symmetric=True))
    index, weight = gcn_norm(edges, None, n, add_self_loops=True)
    torch.testing.assert_close(dense(op), to_dense_adj(index, None, weight, n)[0])


@given(seed=st.integers(0, 1000), K=st.integers(0, 4))
def test_propagation_is_permutation_equivariant(seed: int, K: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    row, col = (torch.rand(11, 4, generator=generator) < 0.3).nonzero().t()
    order = torch.randperm(11, generator=generator)
    place = order.argsort()  # node order[i] becomes node i
    x = torch.randn(11, 3, generator=generator, dtype=torch.float64)

    def view(row: torch.Tensor) -> LinearOperator:
        half = SparseOperator.from_edges(row, col, (11, 4), dtype=torch.float64)
        return gcn_normalize(metapath_operator([half, half.t()]))

    expected = propagate(view(row), x, K)[order]
    torch.testing.assert_close(propagate(view(place[row]), x[order], K), expected)


def test_propagation_is_the_power_of_the_operator(op: LinearOperator) -> None:
    x = torch.randn(9, 2, dtype=torch.float64)
    expected = torch.linalg.matrix_power(dense(op), 3) @ x
    torch.testing.assert_close(propagate(op, x, 3), expected)
    assert propagate(op, x, 0) is x
    with pytest.raises(ValueError, match="K >= 0, got -1"):
        propagate(op, x, -1)


def test_degrees_are_exact_where_path_counts_are_not_in_single_precision() -> None:
    # 4097² needs 25 bits: in single precision it rounds to the surplus, and the degree to zero.
    factor = SparseOperator.from_torch(torch.tensor([[4097.0]]).to_sparse_coo())
    surplus = SparseOperator.from_torch(torch.tensor([[4097.0**2 - 1]]).to_sparse_coo())
    op = BinaryPathOperator([factor, factor], surplus, torch.ones(1))
    assert (op @ torch.ones(1, 1)).item() == 0
    assert op.degree().item() == 1


def test_products_do_not_depend_on_what_lay_in_memory_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full_of_nan(self: torch.Tensor, *shape: int) -> torch.Tensor:
        return torch.full(shape, float("nan"), dtype=self.dtype)

    none = torch.zeros(0, dtype=torch.int64)
    op = SparseOperator.from_edges(torch.tensor([1, 1]), torch.tensor([2, 0]), (5, 4))
    empty = SparseOperator.from_edges(none, none, (5, 4))
    monkeypatch.setattr(torch.Tensor, "new_empty", full_of_nan)
    expected = torch.zeros(5, 3)
    expected[1] = 2.0
    assert torch.equal(op @ torch.ones(4, 3), expected)
    assert torch.equal(empty @ torch.ones(4, 3), torch.zeros(5, 3))
    assert torch.equal(empty.rmatmul(torch.ones(5, 3)), torch.zeros(4, 3))
