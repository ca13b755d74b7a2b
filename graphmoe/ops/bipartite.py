r"""Normalised user-item matrices: one half stands for the whole of a bipartite graph."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmoe.ops.sparse import SparseOperator


def bipartite_normalize(op: SparseOperator) -> SparseOperator:
    r"""Symmetric normalisation of a bipartite graph, :math:`D_u^{-1/2} R\, D_i^{-1/2}`.

    From `"LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_, equation 8. :math:`\hat{R}` and its transpose are the
    two blocks of :math:`\hat{A} = D^{-1/2} [0\; R; R^\top\; 0] D^{-1/2}`, which is never built.
    Degrees are sums of weights. A user or an item without edges keeps an empty row or column.

    Args:
        op: Non-negative weights :math:`R`, shape :math:`(U, I)`.
    """
    row, col, weight = op.row(), op.col.long(), op.value.double()
    user = weight.new_zeros(op.shape[0]).index_add_(0, row, weight)
    item = weight.new_zeros(op.shape[1]).index_add_(0, col, weight)
    # Root by root: the product of two large degrees overflows before its root would not.
    value = weight * _inverse_root(user)[row] * _inverse_root(item)[col]
    return op.with_value(value.to(op.dtype))


def bipartite_step(op: SparseOperator, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
    r"""One step along a bipartite graph, :math:`(\hat{R} X_i,\; \hat{R}^\top X_u)`.

    Differentiable in both; the gradient is exact.

    Args:
        op: The half :math:`\hat{R}`, shape :math:`(U, I)`.
        user: Features of users, shape :math:`(U, F)`.
        item: Features of items, shape :math:`(I, F)`.
    """
    return op.matmul(item), op.rmatmul(user)


def _inverse_root(degree: Tensor) -> Tensor:
    return torch.where(degree > 0, degree.rsqrt(), 0.0)
