"""Propagation without weights over a user-item graph, averaged over layers."""

from __future__ import annotations

from torch import Tensor

from graphmoe.ops.bipartite import bipartite_step
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
    to as many PyG ``LGConv`` on the undirected graph; each half is a product in compressed rows.

    Args:
        op: The half :math:`\hat{R}`, normalised, shape :math:`(U, I)`.
        user: :math:`E^{(0)}` of users, shape :math:`(U, d)`.
        item: :math:`E^{(0)}` of items, shape :math:`(I, d)`.
        layers: :math:`L`; zero returns the arguments.
    """
    if layers < 0:
        raise ValueError(f"expected a number of layers >= 0, got {layers}")
    users, items = user, item
    for _ in range(layers):
        user, item = bipartite_step(op, user, item)
        users, items = users + user, items + item
    return users / (layers + 1), items / (layers + 1)
