"""Matrix factorisation that also looks at the items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphmoe.errors import DataError
from graphmoe.nn.recommend.base import Recommender
from graphmoe.nn.recommend.losses import bpr_loss, l2_loss
from graphmoe.registry import recommenders

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


@recommenders.add
class VBPR(Recommender):
    r"""Matrix factorisation with a second set of factors that come from the items' features.

    .. math::
        y_{ui} = \beta_i + \gamma_u^\top \gamma_i + \theta_u^\top (E f_i) + \beta'^\top f_i, \quad
        L = L_{\mathrm{BPR}} + \frac{\lambda}{2B} \sum \|\gamma\|^2 + \|\theta_u\|^2 + \|E f_i\|^2
        + (\beta_i + \beta'^\top f_i)^2

    From `"VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1510.01784>`_ (AAAI 2016), equation 4; what is the same for all items
    of a user is left out, since it ranks nothing. :math:`f_i` are the features of all modalities
    side by side, those that an item lacks being 0. As in common implementations the penalty is on
    the vectors of the batch, hence on :math:`E f_i` in place of :math:`E`.

    Args:
        graph: Training interactions, and at least one modality.
        embedding_dim: Width of each of the two sets of factors.
        reg_weight: :math:`\lambda`.

    Shapes:
        - **users:** :math:`(U, 2d + 1)`
        - **items:** :math:`(I, 2d + 1)`

    Raises:
        DataError: The items have no modality.
    """

    features: Tensor

    def __init__(
        self, graph: InteractionGraph, embedding_dim: int = 64, reg_weight: float = 1e-2
    ) -> None:
        super().__init__(graph)
        if not graph.modalities:
            raise DataError("VBPR needs features of items: expected a modality, got none")
        self.embedding_dim, self.reg_weight = embedding_dim, reg_weight
        features = torch.cat(list(graph.modalities.values()), dim=1)
        self.register_buffer("features", features, persistent=False)
        self.user = nn.Parameter(torch.empty(self.num_users, 2 * embedding_dim))
        self.item = nn.Parameter(torch.empty(self.num_items, embedding_dim))
        self.item_bias = nn.Parameter(torch.empty(self.num_items, 1))
        # E and β' in one map: a feature is read once.
        self.visual = nn.Linear(features.size(1), embedding_dim + 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw everything anew: Xavier-uniform, no bias at first."""
        for weight in (self.user, self.item, self.visual.weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.item_bias)

    def loss(self, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Ranking, and the penalty on the vectors of the batch."""
        of_user = self.user.index_select(0, user)
        liked, other = self._items(positive), self._items(negative)
        one = of_user.new_ones(of_user.size(0), 1)
        return {
            "bpr": bpr_loss(torch.cat([of_user, one], dim=1), liked, other),
            "l2": self.reg_weight * l2_loss(of_user, liked, other),
        }

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Both sets of factors, and the bias beside a 1."""
        one = self.user.new_ones(self.num_users, 1)
        return torch.cat([self.user, one], dim=1), self._items()

    def _items(self, items: Tensor | None = None) -> Tensor:
        own: Tensor = self.item
        bias: Tensor = self.item_bias
        features = self.features
        if items is not None:
            own, bias = own.index_select(0, items), bias.index_select(0, items)
            features = features.index_select(0, items)
        seen, seen_bias = self.visual(features).split([self.embedding_dim, 1], dim=1)
        return torch.cat([own, seen, bias + seen_bias], dim=1)
