"""How well known a node is, and what the choices around it have in common: what routing may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphmoe.nn.recommend.content_profile import ContentProfile
from graphmoe.ops import SparseOperator

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph

#: Pairs whose profiles are held at once.
_BLOCK = 8192


class NodeTraits(nn.Module):
    r"""Traits of users and items that a router sees beside their cues; nothing of it is learnt.

    .. math::
        t_n = \Big[\log(1 + \deg n),\; \frac{\kappa_n^1 - \mu^1}{\sigma^1}, \dots\Big], \quad
        \kappa_u^m = \frac{1}{n_u} \sum_{i \in N(u)} \langle p_{u \setminus i}^m, q_i^m \rangle

    :math:`\kappa_u^m` says how alike the items of a user are in modality :math:`m`, each compared
    with the rest of the history (:class:`ContentProfile`); :math:`\kappa_i^m` is the mean of the
    same products over those who took item :math:`i`. So a router need not guess from vectors whose
    choices a modality explains. All of this is ours. Users of a single item, and items that only
    such users took, have 0, which stands for the mean.

    Args:
        graph: Training interactions.
        profile: Their content profile.

    **Shapes:** :attr:`users` :math:`(U, M)` and :attr:`items` :math:`(I, M)`, :math:`M - 1` being
    the number of modalities.
    """

    users: Tensor
    items: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, graph: InteractionGraph, profile: ContentProfile) -> None:
        super().__init__()
        alike = pair_likeness(profile, profile.sums, graph.user, graph.item)
        told = graph.user_degree[graph.user] > 1
        of_users, known_users = _means(alike, graph.user, told, graph.num_users)
        of_items, known_items = _means(alike, graph.item, told, graph.num_items)
        centre, scale = _centre(of_users[known_users])
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        users = _traits(graph.user_degree, of_users, known_users, centre, scale)
        # Items by what is usual among items: a mean over many users spreads less.
        usual = _centre(of_items[known_items])
        items = _traits(graph.item_degree, of_items, known_items, *usual)
        self.register_buffer("users", users, persistent=False)
        self.register_buffer("items", items, persistent=False)

    def new_users(self, profile: ContentProfile, history: SparseOperator) -> Tensor:
        """Traits of users by the histories that they bring, ``[N, M]``.

        Args:
            profile: That of the training interactions.
            history: Ones where a new user has an item, shape :math:`(N, I)`.
        """
        row, item = history.row(), history.col.long()
        degree = history.crow.long().diff()
        alike = pair_likeness(profile, history @ profile.items, row, item)
        kappa, known = _means(alike, row, degree[row] > 1, degree.numel())
        return _traits(degree, kappa, known, self.centre, self.scale)

    def new_items(self, count: int) -> Tensor:
        """Traits of items that nobody took, ``[N, M]``."""
        return self.items.new_zeros(count, self.items.size(1))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.users.size(0)}, {self.items.size(0)})"


def pair_likeness(profile: ContentProfile, sums: Tensor, user: Tensor, item: Tensor) -> Tensor:
    r"""What a user's other items have in common with each of them, by modality, ``[n, M - 1]``.

    Args:
        profile: Gives :math:`q_i`.
        sums: Sums of :math:`q` over the items of each user.
        user: Users of some pairs ``[n]``.
        item: Their items ``[n]``.
    """
    if not profile.widths:
        return sums.new_zeros(user.numel(), 0)
    found = [sums.new_zeros(0, len(profile.widths))]
    for u, i in zip(user.split(_BLOCK), item.split(_BLOCK), strict=True):
        own = profile.items[i]
        rest = torch.nn.functional.normalize(sums[u] - own, dim=1, eps=1e-6)
        parts = (rest * own).split(profile.widths, dim=1)
        found.append(torch.stack([part.sum(dim=1) for part in parts], dim=1))
    return torch.cat(found)


def _means(values: Tensor, node: Tensor, told: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Means over the pairs of each node that tell something, and who has such pairs."""
    count = torch.bincount(node[told], minlength=size)
    total = values.new_zeros(size, values.size(1)).index_add_(0, node[told], values[told])
    return total / count.clamp_min(1).unsqueeze(1), count > 0


def _centre(values: Tensor) -> tuple[Tensor, Tensor]:
    if values.size(0) < 2:
        return values.new_zeros(values.size(1)), values.new_ones(values.size(1))
    std = values.std(dim=0)
    return values.mean(dim=0), torch.where(std > 1e-6, std.reciprocal(), 0.0)


def _traits(degree: Tensor, kappa: Tensor, known: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    scaled = ((kappa - centre) * scale).masked_fill(~known[:, None], 0.0)
    return torch.cat([degree.to(kappa.dtype).log1p().unsqueeze(1), scaled], dim=1)
