"""Frozen content neighbours, and interactions thinned anew each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from graphmoe.errors import ConfigError, DataError
from graphmoe.nn.recommend.base import Recommender, draw_vectors
from graphmoe.nn.recommend.losses import bpr_loss
from graphmoe.nn.recommend.modality_projection import ModalityProjection
from graphmoe.ops import SparseOperator
from graphmoe.ops.light_propagation import light_propagate
from graphmoe.registry import recommenders
from graphmoe.transforms.content_knn import merge_knn

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


@recommenders.add
class FREEDOM(Recommender):
    r"""LightGCN on thinned interactions, items smoothed once more over frozen content neighbours.

    .. math::
        H = S^{L'} E_I^{(0)}, \quad S = \sum_m \alpha_m D_m^{-1} A_m, \quad
        y_{ui} = \langle \bar{e}_u,\, \bar{e}_i + h_i \rangle, \quad
        L = L_{\mathrm{BPR}}(y) + \lambda \sum_m L_{\mathrm{BPR}}(\langle \bar{e}_u,
        f_m(x_{i,m}) \rangle)

    From `"A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal
    Recommendation" <https://arxiv.org/abs/2211.06924>`_ (MM 2023). :math:`A_m` holds an item's
    ``k`` nearest others, unweighted. In each epoch a share ``dropout`` of the interactions is left
    out, drawn without replacement, the others being kept with probability in proportion to
    :math:`1/\sqrt{d_u d_i}`; ranking uses all. The features are trained along, as in the authors'
    system.

    Args:
        graph: Training interactions, and at least one modality.
        embedding_dim: Width :math:`d`.
        num_layers: Steps over interactions.
        num_item_layers: Steps over content neighbours :math:`L'`.
        k: Content neighbours of an item.
        weights: :math:`\alpha_m` by modality, in proportion. (default: equal)
        dropout: Share of the interactions left out of an epoch.
        feature_weight: :math:`\lambda`.
        train_features: Train the features along.
        init_std: Of the vectors at the start; see :func:`draw_vectors`. (default: Xavier-uniform)

    Shapes:
        - **users:** :math:`(U, d)`
        - **items:** :math:`(I, d)`

    Raises:
        DataError: The items have no modality.
        ConfigError: ``dropout`` or ``weights`` are out of range.
    """

    def __init__(
        self,
        graph: InteractionGraph,
        embedding_dim: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        k: int = 10,
        weights: Mapping[str, float] | None = None,
        dropout: float = 0.8,
        feature_weight: float = 1e-3,
        train_features: bool = True,
        init_std: float | None = None,
    ) -> None:
        super().__init__(graph)
        if not graph.modalities:
            raise DataError("FREEDOM needs features of items: expected a modality, got none")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout is a share of interactions in [0, 1), got {dropout}")
        self.embedding_dim, self.num_layers = embedding_dim, num_layers
        self.num_item_layers, self.k = num_item_layers, k
        self.dropout, self.feature_weight = dropout, feature_weight
        self.weights = weights
        self.init_std = init_std
        self.operator = graph.normalized
        self.thinned = self.operator
        self.neighbours = _neighbour_means(graph, k, weights)
        self.user = nn.Parameter(torch.empty(self.num_users, embedding_dim))
        self.item = nn.Parameter(torch.empty(self.num_items, embedding_dim))
        self.projections = nn.ModuleList(
            ModalityProjection(x, graph.present[name], embedding_dim, train_features=train_features)
            for name, x in graph.modalities.items()
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw everything anew: the vectors, maps as PyTorch does."""
        draw_vectors(self.init_std, self.user, self.item)
        reset(self.projections)

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> None:
        """Draw the interactions of this epoch."""
        if self.dropout == 0:
            return
        weight = self.graph.normalized.value
        # The smallest of exponential variables with these rates are a draw without replacement;
        # unlike torch.multinomial this takes any number of interactions.
        wait = torch.empty(weight.shape).exponential_(generator=generator).to(weight.device)
        keep = int(weight.numel() * (1 - self.dropout))
        kept = (wait / weight).topk(keep, largest=False).indices
        self.thinned = self.graph.subset(kept).to(dtype=self.operator.dtype)

    def loss(self, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Ranking by the vectors, and by each modality's features."""
        users, items = self._propagate(self.thinned)
        of_users = users.index_select(0, user)
        terms = {
            "bpr": bpr_loss(
                of_users, items.index_select(0, positive), items.index_select(0, negative)
            )
        }
        for name, project in zip(self.graph.modalities, self.projections, strict=True):
            term = bpr_loss(of_users, project(positive), project(negative))
            terms[f"bpr_{name}"] = self.feature_weight * term
        return terms

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Smoothed vectors over all interactions and content neighbours."""
        return self._propagate(self.operator)

    def _propagate(self, operator: SparseOperator) -> tuple[Tensor, Tensor]:
        users, items = light_propagate(operator, self.user, self.item, self.num_layers)
        side: Tensor = self.item
        for _ in range(self.num_item_layers):
            side = self.neighbours @ side
        return users, items + side


def _neighbour_means(
    graph: InteractionGraph, k: int, weights: Mapping[str, float] | None
) -> SparseOperator:
    """The mean over an item's content neighbours; modalities that it lacks have no say."""
    knn, means = graph.content_knn(k), {}
    for name, features in graph.modalities.items():
        near = knn(features, graph.present[name])
        count = near.crow.long().diff().to(near.dtype)
        means[name] = near.with_value(count.reciprocal()[near.row()])
    return merge_knn(means, weights, graph.present, k * len(means))
