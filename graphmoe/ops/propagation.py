r"""Normalised propagation :math:`\hat{A}^K X` over any linear operator."""

from __future__ import annotations

from torch import Tensor

from graphmoe.ops.linear_operator import LinearOperator


def gcn_normalize(op: LinearOperator) -> LinearOperator:
    r"""Symmetric normalisation with self-loops,
    :math:`\hat{A} = D^{-1/2} (A + I) D^{-1/2}`.

    From `"Semi-supervised Classification with Graph Convolutional Networks"
    <https://arxiv.org/abs/1609.02907>`_, equation 2. A self-loop that is there already keeps its
    weight, as in PyG's ``gcn_norm``. The factors go into the operator's own entries, once: a
    product with :math:`\hat{A}` costs what one with :math:`A + I` does.

    Args:
        op: A square operator with non-negative entries, shape :math:`(N, N)`.
    """
    looped = op.with_self_loops()
    scale = looped.degree().rsqrt()
    return looped.scaled(scale, scale)


def propagate(op: LinearOperator, x: Tensor, K: int) -> Tensor:
    r"""The features after :math:`K` steps, :math:`A^K X`.

    Args:
        op: The operator :math:`A`, shape :math:`(N, N)`; usually from :func:`gcn_normalize`.
        x: Features, shape :math:`(N, F)`.
        K: The number of steps; zero returns ``x`` itself.
    """
    if K < 0:
        raise ValueError(f"expected a number of steps K >= 0, got {K}")
    for _ in range(K):
        x = op @ x
    return x
