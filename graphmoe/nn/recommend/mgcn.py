"""Multi-view graph convolution with features purified by behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from graphmoe.errors import ConfigError, DataError
from graphmoe.nn.recommend.base import Recommender, draw_vectors
from graphmoe.nn.recommend.behaviour_aware_fuser import BehaviourAwareFuser
from graphmoe.nn.recommend.losses import bpr_loss, info_nce, l2_loss
from graphmoe.nn.recommend.modality_projection import ModalityProjection
from graphmoe.ops import gcn_normalize
from graphmoe.ops.light_propagation import light_propagate
from graphmoe.registry import recommenders

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


@recommenders.add
class MGCN(Recommender):
    r"""Collaborative vectors plus a side view: features purified by behaviour, smoothed over
    content neighbours, carried to users along interactions, fused by behaviour.

    .. math::
        H_m^{I} &= \hat{S}_m^{L'} \big(E_I \odot \sigma(W_m f_m(X_m) + b_m)\big), \quad
        H_m^{U} = \hat{R} H_m^{I} \\
        E &= \mathrm{mean}_l\, \hat{A}^l E^{(0)} + F(H_1, \dots, H_M) \\
        L &= L_{\mathrm{BPR}} + \lambda_c L_{\mathrm{InfoNCE}} + \frac{\lambda}{2B} \sum \|e\|^2

    From `"Multi-View Graph Convolutional Network for Multimedia Recommendation"
    <https://arxiv.org/abs/2308.03588>`_ (MM 2023); :math:`F` is the
    :class:`BehaviourAwareFuser`, :math:`\hat{S}_m` the normalised kNN graph of a modality, an item
    being its own first neighbour. The contrast is between the collaborative and the side view, of
    the distinct users and positive items of the batch; the penalty is on the final vectors. The
    features are trained along, as in the authors' system.

    Args:
        graph: Training interactions, and at least one modality.
        embedding_dim: Width :math:`d`.
        num_layers: Steps over interactions :math:`L`.
        num_item_layers: Steps over content neighbours :math:`L'`.
        k: Neighbours of an item in each modality, itself included.
        contrast_weight: :math:`\lambda_c`.
        temperature: Of the contrast.
        reg_weight: :math:`\lambda`.
        train_features: Train the features along.
        init_std: Of the vectors at the start; see :func:`draw_vectors`. (default: Xavier-uniform)

    Shapes:
        - **users:** :math:`(U, d)`
        - **items:** :math:`(I, d)`

    Raises:
        DataError: The items have no modality.
        ConfigError: ``k`` leaves no room for another item.
    """

    def __init__(
        self,
        graph: InteractionGraph,
        embedding_dim: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        k: int = 10,
        contrast_weight: float = 1e-3,
        temperature: float = 0.2,
        reg_weight: float = 1e-4,
        train_features: bool = True,
        init_std: float | None = None,
    ) -> None:
        super().__init__(graph)
        if not graph.modalities:
            raise DataError("MGCN needs features of items: expected a modality, got none")
        if k < 2:
            raise ConfigError(f"an item is its own first neighbour: expected k >= 2, got {k}")
        self.embedding_dim, self.num_layers = embedding_dim, num_layers
        self.num_item_layers, self.k = num_item_layers, k
        self.contrast_weight, self.temperature = contrast_weight, temperature
        self.reg_weight = reg_weight
        self.init_std = init_std
        self.operator = graph.normalized
        knn = graph.content_knn(k - 1)
        self.neighbours = [
            gcn_normalize(knn(x, graph.present[name])) for name, x in graph.modalities.items()
        ]
        self.user = nn.Parameter(torch.empty(self.num_users, embedding_dim))
        self.item = nn.Parameter(torch.empty(self.num_items, embedding_dim))
        self.projections = nn.ModuleList(
            ModalityProjection(x, graph.present[name], embedding_dim, train_features=train_features)
            for name, x in graph.modalities.items()
        )
        self.gates = nn.ModuleList(nn.Linear(embedding_dim, embedding_dim) for _ in self.neighbours)
        self.fuser = BehaviourAwareFuser(embedding_dim, len(self.neighbours))
        self.register_buffer("user_present", None, persistent=False)
        self.register_buffer("item_present", None, persistent=False)
        present = torch.stack(list(graph.present.values()), dim=1)
        if not bool(present.all()):
            self.item_present = present
            self.user_present = graph.normalized @ present.float() > 0
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw everything anew: the vectors, maps as PyTorch does."""
        draw_vectors(self.init_std, self.user, self.item)
        for module in (self.projections, self.gates, self.fuser):
            reset(module)

    def views(self) -> tuple[Tensor, Tensor]:
        """Each modality's view of all users and items, side by side: ``[U, M d]``, ``[I, M d]``."""
        parts = []
        for m, project in enumerate(self.projections):
            gate = self.gates[m](project()).sigmoid_()
            if self.item_present is not None:
                gate = gate * self.item_present[:, m : m + 1]
            part = self.item * gate
            for _ in range(self.num_item_layers):
                part = self.neighbours[m] @ part
            parts.append(part)
        items = torch.cat(parts, dim=1)
        return self.operator @ items, items

    def loss(self, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Ranking, contrast of the two views, and the penalty on the final vectors."""
        # What follows the propagation is done for the distinct nodes of the batch alone.
        users, u = user.unique(return_inverse=True)
        items, i = torch.cat([positive, negative]).unique(return_inverse=True)
        p, n = i.split(positive.numel())
        user_content, item_content = self.content()
        user_views, item_views = self.views()
        user_content = user_content.index_select(0, users)
        item_content = item_content.index_select(0, items)
        user_side = self._fuse(user_content, user_views, self.user_present, users)
        item_side = self._fuse(item_content, item_views, self.item_present, items)
        of_users, of_items = user_content + user_side, item_content + item_side
        rows = of_users.index_select(0, u), of_items.index_select(0, p), of_items.index_select(0, n)
        liked = p.unique()
        contrast = info_nce(user_side, user_content, self.temperature) + info_nce(
            item_side.index_select(0, liked), item_content.index_select(0, liked), self.temperature
        )
        return {
            "bpr": bpr_loss(*rows),
            "contrast": self.contrast_weight * contrast,
            "l2": self.reg_weight * l2_loss(*rows),
        }

    def content(self) -> tuple[Tensor, Tensor]:
        """Collaborative vectors of all users and items."""
        return light_propagate(self.operator, self.user, self.item, self.num_layers)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Collaborative vectors and side views, added."""
        user, item = self.content()
        user_views, item_views = self.views()
        return (
            user + self._fuse(user, user_views, self.user_present),
            item + self._fuse(item, item_views, self.item_present),
        )

    def _fuse(
        self, content: Tensor, views: Tensor, present: Tensor | None, rows: Tensor | None = None
    ) -> Tensor:
        if rows is not None:
            views = views.index_select(0, rows)
            present = None if present is None else present[rows]
        return self.fuser(content, views.unflatten(1, (len(self.neighbours), -1)), present)
