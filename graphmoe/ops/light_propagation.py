"""Propagation without weights over a user-item graph, averaged over layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphmoe.ops.sparse import SparseOperator


def light_propagate(
    op: SparseOperator, user: Tensor, item: Tensor, layers: int
) -> tuple[Tensor, Tensor]:
    r"""The mean of all layers of a linear propagation.

    .. math::
        E = \frac{1}{L + 1} \sum_{l=0}^{L} \hat{A}^l E^{(0)}, \quad
        \hat{A} = \begin{pmatrix} 0 & \hat{R} \\ \hat{R}^\top & 0 \end{pmatrix}

    From `"LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_, equations 3 and 4 with :math:`\alpha_l = 1/(L+1)`. Equal
    to as many PyG ``LGConv`` on the undirected graph.

    The sum is taken as :math:`X + \hat{A}(X + \hat{A} X)`, so that a step is one product in
    compressed rows that adds to what is there; and as :math:`\hat{A}` is symmetric, the gradient
    is the same sum again.

    Args:
        op: The half :math:`\hat{R}`, normalised, shape :math:`(U, I)`.
        user: :math:`E^{(0)}` of users, shape :math:`(U, d)`.
        item: :math:`E^{(0)}` of items, shape :math:`(I, d)`.
        layers: :math:`L`; zero changes nothing.
    """
    if layers < 0:
        raise ValueError(f"expected a number of layers >= 0, got {layers}")
    return _MeanOfLayers.apply(user, item, op, layers)


class _MeanOfLayers(torch.autograd.Function):
    """Its own transpose, hence its own backward."""

    @staticmethod
    def forward(
        ctx: Any, user: Tensor, item: Tensor, op: SparseOperator, layers: int
    ) -> tuple[Tensor, Tensor]:
        ctx.op, ctx.layers = op, layers
        first_user, first_item = user / (layers + 1), item / (layers + 1)
        user, item = first_user, first_item
        for _ in range(layers):
            user, item = op.plus_product(first_user, item), op.t().plus_product(first_item, user)
        return user, item

    @staticmethod
    def backward(ctx: Any, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor, None, None]:
        user, item = light_propagate(ctx.op, user, item, ctx.layers)
        return user, item, None, None
