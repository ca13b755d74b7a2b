"""What content says of items, and what an item's content says of the users who took it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphmoe.nn.recommend.modality_projection import ModalityProjection
from graphmoe.ops import SparseOperator

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


class ModalityCues(nn.Module):
    r"""Cues of items from content, and of users from the history of their items.

    .. math::
        z_i^m = \sum_j \hat{S}^m_{ij}\; e_j \odot \sigma(W_m x_j^m + b_m), \qquad
        c_u^m = \sum_{i \in N(u)} \hat{R}_{ui}\, z_i^m

    History-induced modality cues are of `"Modality-Guided Mixture of Graph Experts with
    Entropy-Triggered Routing for Multimodal Recommendation" <https://arxiv.org/abs/2602.20723>`_.
    How a cue is made is ours, after the gates of `"Multi-View Graph Convolutional Network for
    Multimedia Recommendation" <https://arxiv.org/abs/2308.03588>`_: features decide which channels
    of the learnt vectors pass, and the vectors come from content neighbours :math:`S^m`.

    **Leave-one-out** (ours): a training pair :math:`(u, i)` is scored with what the *other* items
    of the user say,

    .. math::
        c_{u \setminus i}^m = \sqrt{\frac{n_u}{n_u - 1}} \left( c_u^m - \hat{R}_{ui} z_i^m \right),

    which is the cue on a graph without the pair, item degrees kept; a user without another item
    has a learnt vector. Otherwise users of one item see their own target as their whole history.

    Args:
        graph: Training interactions and features.
        channels: Width :math:`d`.
        train_features: Train the features along.

    **Shapes:** item vectors :math:`(I, d)` to cues of users :math:`(U, M d)` and items
    :math:`(I, M d)`, modality after modality.
    """

    item_present: Tensor | None
    user_degree: Tensor
    item_degree: Tensor

    def __init__(
        self,
        graph: InteractionGraph,
        channels: int = 64,
        train_features: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.modalities = list(graph.modalities)
        self.gates = nn.ModuleList(
            ModalityProjection(x, graph.present[name], channels, train_features=train_features)
            for name, x in graph.modalities.items()
        )
        self.unknown = nn.Parameter(torch.empty(len(self.modalities) * channels))
        present = None
        if self.modalities:
            there = torch.stack(list(graph.present.values()), dim=1)
            present = None if bool(there.all()) else there
        self.register_buffer("item_present", present, persistent=False)
        self.register_buffer("user_degree", graph.user_degree.float(), persistent=False)
        self.register_buffer("item_degree", graph.item_degree.float(), persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the maps anew, and go back to the features as given."""
        for module in self.gates:
            module.reset_parameters()  # type: ignore[operator]
        self.unknown.zero_()

    def forward(
        self, item: Tensor, neighbours: list[SparseOperator], history: SparseOperator
    ) -> tuple[Tensor, Tensor]:
        """Cues of all users and items.

        Args:
            item: Learnt vectors of the items ``[I, d]``.
            neighbours: Of each modality, ``[I, I]``.
            history: From items to users, ``[U, I]``.
        """
        if not self.modalities:
            return item.new_zeros(history.shape[0], 0), item.new_zeros(item.size(0), 0)
        items = torch.cat([op @ (item * self.gate(m)) for m, op in enumerate(neighbours)], dim=1)
        return history @ items, items

    def gate(self, m: int) -> Tensor:
        """Which channels of the items' vectors pass in modality number ``m``, ``[I, d]``."""
        gate: Tensor = self.gates[m]().sigmoid()
        return gate if self.item_present is None else gate * self.item_present[:, m : m + 1]

    def leave_one_out(self, users: Tensor, items: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """The cues of ``user`` without ``item``, which is one of theirs, ``[B, M d]``.

        Args:
            users: Cues of all users.
            items: Cues of all items.
            user: ``[B]``.
            item: ``[B]``.
        """
        count = self.user_degree[user].unsqueeze(1)
        own = (count * self.item_degree[item].unsqueeze(1)).rsqrt()
        rest = (users[user] - own * items[item]) * (count / (count - 1).clamp_min(1)).sqrt()
        return torch.where(count > 1, rest, self.unknown)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, modalities={self.modalities})"
