"""Collaborative filtering by propagation alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphmoe.nn.recommend.base import Recommender, draw_vectors
from graphmoe.nn.recommend.losses import bpr_loss, l2_loss
from graphmoe.ops.light_propagation import light_propagate
from graphmoe.registry import recommenders

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


@recommenders.add
class LightGCN(Recommender):
    r"""Vectors of users and items, smoothed along the interactions without any weight.

    .. math::
        E = \frac{1}{L+1} \sum_{l=0}^{L} \hat{A}^l E^{(0)}, \quad
        L = L_{\mathrm{BPR}}(E) + \frac{\lambda}{2B} \sum \|e^{(0)}\|^2

    From `"LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_ (SIGIR 2020). The penalty is on the vectors before
    propagation, of the users and items of the batch.

    Args:
        graph: Training interactions.
        embedding_dim: Width :math:`d`.
        num_layers: Steps of propagation :math:`L`.
        reg_weight: :math:`\lambda`.
        init_std: Of the vectors at the start; ``None`` for Xavier-uniform. (default: 0.1, as in the
            authors' code; the paper says Xavier)

    Shapes:
        - **users:** :math:`(U, d)`
        - **items:** :math:`(I, d)`
    """

    def __init__(
        self,
        graph: InteractionGraph,
        embedding_dim: int = 64,
        num_layers: int = 2,
        reg_weight: float = 1e-4,
        init_std: float | None = 0.1,
    ) -> None:
        super().__init__(graph)
        self.embedding_dim, self.num_layers = embedding_dim, num_layers
        self.reg_weight, self.init_std = reg_weight, init_std
        self.operator = graph.normalized
        self.user = nn.Parameter(torch.empty(self.num_users, embedding_dim))
        self.item = nn.Parameter(torch.empty(self.num_items, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        draw_vectors(self.init_std, self.user, self.item)

    def loss(self, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Ranking by the smoothed vectors, and the penalty on the batch's own ones."""
        users, items = self.vectors()
        bpr = bpr_loss(
            users.index_select(0, user),
            items.index_select(0, positive),
            items.index_select(0, negative),
        )
        l2 = l2_loss(
            self.user.index_select(0, user),
            self.item.index_select(0, positive),
            self.item.index_select(0, negative),
        )
        return {"bpr": bpr, "l2": self.reg_weight * l2}

    def vectors(self) -> tuple[Tensor, Tensor]:
        """The mean of all layers."""
        return light_propagate(self.operator, self.user, self.item, self.num_layers)
