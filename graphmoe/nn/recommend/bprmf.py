"""Matrix factorisation by pairwise ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphmoe.nn.recommend.base import Recommender, draw_vectors
from graphmoe.nn.recommend.losses import bpr_loss, l2_loss
from graphmoe.registry import recommenders

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


@recommenders.add
class BPRMF(Recommender):
    r"""A vector for each user and each item, learnt by ranking what was chosen above what was not.

    .. math::
        y_{ui} = p_u^\top q_i, \quad
        L = -\frac1B \sum \log\sigma(y_{ui} - y_{uj}) + \frac{\lambda}{2B} \sum \|p_u\|^2 +
        \|q_i\|^2 + \|q_j\|^2

    From `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_ (UAI 2009), section 4.3.1.

    Args:
        graph: Training interactions.
        embedding_dim: Width :math:`d`.
        reg_weight: :math:`\lambda`.
        init_std: Of the vectors at the start; see :func:`draw_vectors`. (default: Xavier-uniform)

    Shapes:
        - **users:** :math:`(U, d)`
        - **items:** :math:`(I, d)`
    """

    def __init__(
        self,
        graph: InteractionGraph,
        embedding_dim: int = 64,
        reg_weight: float = 1e-2,
        init_std: float | None = None,
    ) -> None:
        super().__init__(graph)
        self.embedding_dim, self.reg_weight, self.init_std = embedding_dim, reg_weight, init_std
        self.user = nn.Parameter(torch.empty(self.num_users, embedding_dim))
        self.item = nn.Parameter(torch.empty(self.num_items, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        draw_vectors(self.init_std, self.user, self.item)

    def loss(self, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Ranking, and the penalty on the vectors of the batch."""
        rows = (
            self.user.index_select(0, user),
            self.item.index_select(0, positive),
            self.item.index_select(0, negative),
        )
        return {"bpr": bpr_loss(*rows), "l2": self.reg_weight * l2_loss(*rows)}

    def vectors(self) -> tuple[Tensor, Tensor]:
        """The learnt vectors."""
        return self.user, self.item
