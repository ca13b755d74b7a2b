"""The lazy walk over several views against its explicit matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphmoe.ops import (
    BinaryPathOperator,
    LinearOperator,
    MeanOperator,
    SparseOperator,
    gcn_normalize,
    propagate,
)


def sparse_view(seed: int, n: int = 9, m: int = 9) -> SparseOperator:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(n, m, generator=generator, dtype=torch.float64)
    dense = dense * (torch.rand(n, m, generator=generator) < 0.3)
    return SparseOperator.from_torch(dense.to_sparse_coo())


def path_view(seed: int, n: int = 9) -> LinearOperator:
    generator = torch.Generator().manual_seed(seed)
    row, col = (torch.rand(n, 3, generator=generator) < 0.5).nonzero().t()
    half = SparseOperator.from_edges(row, col, (n, 3), dtype=torch.float64)
    whole = BinaryPathOperator([half, half.t()], None, (half.to_sparse().to_dense() ** 2).sum(1))
    return gcn_normalize(whole)


VIEWS = {
    "sparse": lambda: [sparse_view(0), sparse_view(1), sparse_view(2)],
    "mixed": lambda: [sparse_view(0), path_view(1)],
    "single": lambda: [sparse_view(3)],
}


@pytest.fixture(params=VIEWS, ids=list(VIEWS))
def views(request: pytest.FixtureRequest) -> list[LinearOperator]:
    return VIEWS[request.param]()


def explicit(views: list[LinearOperator], move: float) -> Tensor:
    mean = torch.stack([view.to_sparse().to_dense() for view in views]).mean(dim=0)
    return (1 - move) * torch.eye(9, dtype=torch.float64) + move * mean


@pytest.mark.parametrize("move", [0.5, 0.2, 1.0])
def test_equals_the_explicit_matrix(views: list[LinearOperator], move: float) -> None:
    op, matrix = MeanOperator(views, move), explicit(views, move)
    x = torch.randn(9, 4, dtype=torch.float64)
    torch.testing.assert_close(op @ x, matrix @ x)
    torch.testing.assert_close(op.rmatmul(x), matrix.T @ x)
    torch.testing.assert_close(op.degree(), matrix.sum(dim=1))
    torch.testing.assert_close(op.to_sparse().to_dense(), matrix)
    torch.testing.assert_close(propagate(op, x, 5), torch.linalg.matrix_power(matrix, 5) @ x)


def test_entries_are_coalesced_with_sorted_columns(views: list[LinearOperator]) -> None:
    entries = MeanOperator(views).to_sparse()
    crow, col = entries.crow_indices(), entries.col_indices()
    for i in range(9):
        assert (col[crow[i] : crow[i + 1]].diff() > 0).all()
    assert entries.values().numel() <= MeanOperator(views).nnz


@pytest.mark.parametrize("product", ["matmul", "rmatmul"])
def test_gradients(views: list[LinearOperator], product: str) -> None:
    op = MeanOperator(views, 0.3)
    x = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(getattr(op, product), (x,))
    assert torch.autograd.gradgradcheck(getattr(op, product), (x,))


def test_one_view_that_always_moves_is_that_view() -> None:
    view = sparse_view(4)
    x = torch.randn(9, 3, dtype=torch.float64)
    torch.testing.assert_close(MeanOperator([view], 1.0) @ x, view @ x, rtol=0, atol=0)


def test_scaled_and_self_loops_stay_explicit_and_exact(views: list[LinearOperator]) -> None:
    left, right = torch.rand(9).double(), torch.rand(9).double()
    matrix = explicit(views, 0.5)
    op = MeanOperator(views)
    torch.testing.assert_close(
        op.scaled(left, right).to_sparse().to_dense(), left[:, None] * matrix * right
    )
    looped = MeanOperator(views, 1.0).with_self_loops().to_sparse().to_dense()
    bare = explicit(views, 1.0)
    expected = bare + torch.diag((bare.diagonal() == 0).double())
    torch.testing.assert_close(looped, expected)


def test_cost_and_moves(views: list[LinearOperator]) -> None:
    op = MeanOperator(views, 0.4)
    assert op.shape == (9, 9)
    assert op.nnz == 9 + sum(view.nnz for view in views)
    single = op.to(dtype=torch.float32)
    assert (op.dtype, single.dtype, single.move) == (torch.float64, torch.float32, 0.4)
    x = torch.randn(9, 2)
    torch.testing.assert_close(single @ x, (op @ x.double()).float(), rtol=1e-5, atol=1e-6)
    elsewhere = op.to("meta") if len(views) == 1 else op
    assert elsewhere.device.type == ("meta" if len(views) == 1 else "cpu")


def test_rows_of_normalised_walks_sum_to_at_most_their_views() -> None:
    view = path_view(5)
    degree = MeanOperator([view, view]).degree()
    torch.testing.assert_close(degree, 0.5 + 0.5 * view.degree())


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="at least one view, got none"):
        MeanOperator([])
    with pytest.raises(ValueError, match="square views of one shape"):
        MeanOperator([sparse_view(0), sparse_view(0, 8, 8)])
    with pytest.raises(ValueError, match="square views of one shape"):
        MeanOperator([sparse_view(0, 9, 8)])
    for move in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match=r"move in \(0, 1\]"):
            MeanOperator([sparse_view(0)], move)
    with pytest.raises(ValueError, match=r"expected features of shape \(9, F\)"):
        MeanOperator([sparse_view(0)]) @ torch.randn(8, 2, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"expected features of type torch\.float64"):
        MeanOperator([sparse_view(0)]) @ torch.randn(9, 2)
