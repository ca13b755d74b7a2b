"""Halves of bipartite graphs: normalisation and steps against the whole matrix, dense."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.ops import SparseOperator
from graphmoe.ops.bipartite import bipartite_normalize, bipartite_step


def weights(seed: int, users: int, items: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    there = torch.rand(users, items, generator=generator) < 0.4
    return torch.rand(users, items, generator=generator, dtype=torch.float64) * there


def whole(half: Tensor) -> Tensor:
    """The square matrix of which ``half`` is a half."""
    users, items = half.shape
    matrix = half.new_zeros(users + items, users + items)
    matrix[:users, users:], matrix[users:, :users] = half, half.t()
    return matrix


@given(seed=st.integers(0, 1000), users=st.integers(1, 8), items=st.integers(1, 8))
def test_normalisation_is_that_of_the_whole_matrix(seed: int, users: int, items: int) -> None:
    half = weights(seed, users, items)
    adjacency = whole(half)
    degree = adjacency.sum(dim=1)
    root = torch.where(degree > 0, degree.rsqrt(), 0.0)
    expected = (root[:, None] * adjacency * root)[:users, users:]
    op = bipartite_normalize(SparseOperator.from_torch(half.to_sparse()))
    torch.testing.assert_close(op.to_sparse().to_dense(), expected)


def test_degrees_whose_product_overflows() -> None:
    large = torch.tensor([[1e30, 0.0], [1e30, 1e30]])
    op = bipartite_normalize(SparseOperator.from_torch(large.to_sparse()))
    expected = torch.tensor([[0.5**0.5, 0.0], [0.5, 0.5**0.5]])
    torch.testing.assert_close(op.to_sparse().to_dense(), expected)


def test_a_step_and_its_gradients_are_those_of_the_whole_matrix() -> None:
    half = weights(3, 7, 5)
    op = SparseOperator.from_torch(half.to_sparse())
    x = torch.randn(12, 4, dtype=torch.float64, requires_grad=True)
    user, item = (part.detach().clone().requires_grad_() for part in x.split([7, 5]))
    weight = torch.randn(12, 4, dtype=torch.float64)
    dense = whole(half) @ x
    (dense * weight).sum().backward()
    sparse = torch.cat(bipartite_step(op, user, item))
    (sparse * weight).sum().backward()
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(torch.cat([user.grad, item.grad]), x.grad)
