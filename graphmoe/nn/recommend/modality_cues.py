"""What content says of items, and what an item's content says of the users who took it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphmoe.ops import SparseOperator

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph


class ModalityCues(nn.Module):
    r"""Cues of items from content, and of users from the history of their items.

    .. math::
        z_i^m = \sum_j \hat{S}^m_{ij}\; e_j, \qquad
        c_u^m = \sum_{i \in N(u)} \hat{R}_{ui}\, z_i^m

    History-induced modality cues are of `"Modality-Guided Mixture of Graph Experts with
    Entropy-Triggered Routing for Multimodal Recommendation" <https://arxiv.org/abs/2602.20723>`_.
    How a cue is made is ours: it is what the learnt vectors of an item's content neighbours
    :math:`S^m` say, itself among them; an item without the modality has no cue of it and gives
    none. (Gates by features, as `"Multi-View Graph Convolutional Network for Multimedia
    Recommendation" <https://arxiv.org/abs/2308.03588>`_ has them, brought nothing here.)

    **Leave-one-out** (ours): a training pair :math:`(u, i)` is scored with what the *other* items
    of the user say,

    .. math::
        c_{u \setminus i}^m = \sqrt{\frac{n_u}{n_u - 1}} \left( c_u^m - \hat{R}_{ui} z_i^m \right),

    which is the cue on a graph without the pair, item degrees kept; a user without another item
    has a learnt vector. Otherwise users of one item see their own target as their whole history.

    Args:
        graph: Training interactions and features.
        channels: Width :math:`d`.

    **Shapes:** item vectors :math:`(I, d)` to cues of users :math:`(U, M d)` and items
    :math:`(I, M d)`, modality after modality.
    """

    item_present: Tensor | None
    user_degree: Tensor
    item_degree: Tensor

    def __init__(self, graph: InteractionGraph, channels: int = 64) -> None:
        super().__init__()
        self.channels = channels
        self.modalities = list(graph.modalities)
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
        """Forget the vector of users without another item."""
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
        items = torch.cat([op @ self.heard(item, m) for m, op in enumerate(neighbours)], dim=1)
        return history @ items, items

    def heard(self, item: Tensor, m: int) -> Tensor:
        """``item`` with rows of 0 where modality number ``m`` is missing, ``[I, d]``."""
        return item if self.item_present is None else item * self.item_present[:, m : m + 1]

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
