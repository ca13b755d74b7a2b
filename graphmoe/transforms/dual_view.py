"""Two views of the interactions: as they are, and with edges that content adds to rare items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from graphmoe.errors import ConfigError, DataError
from graphmoe.ops import SparseOperator
from graphmoe.ops.bipartite import bipartite_normalize
from graphmoe.ops.co_occurrence import expand_rows

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph

#: Paths item → neighbour → user that are looked at together; a single item may have more.
WORK = 2**22


class PseudoEdges(NamedTuple):
    """Edges that content suggests, ordered by user and item."""

    user: Tensor  #: int64, ``[n]``
    item: Tensor  #: int64, ``[n]``
    weight: Tensor  #: float32 in (0, gamma], ``[n]``


class DualView:
    r"""The views A and B of a recommender, each the normalised half of a bipartite graph.

    View A is :math:`\hat{R}`; view B is :math:`D_u^{-1/2} (R + \hat{P}) D_i^{-1/2}` by sums of
    weights, :math:`\hat{P}` being the edges of :func:`content_view`. Two views, the second with
    edges induced by content, are those of `"Modality-Guided Mixture of Graph Experts with
    Entropy-Triggered Routing for Multimodal Recommendation"
    <https://arxiv.org/abs/2602.20723>`_; which edges, and their weights, is our own choice.

    Args:
        graph: Training interactions.
        neighbours: Content neighbours :math:`S` of the items, shape :math:`(I, I)`.
        min_degree: Interactions :math:`d^*` below which an item is given edges.
        gamma: Weight of an item's strongest edge, a real one having 1.

    Attributes:
        a: View A, shape :math:`(U, I)`.
        b: View B, likewise.
        pseudo: The edges that only view B has.
    """

    def __init__(
        self,
        graph: InteractionGraph,
        neighbours: SparseOperator,
        min_degree: int = 5,
        gamma: float = 0.5,
    ) -> None:
        self.min_degree, self.gamma = min_degree, gamma
        self.pseudo = content_view(graph, neighbours, min_degree, gamma)
        self.a = graph.normalized
        user = torch.cat([graph.user, self.pseudo.user])
        item = torch.cat([graph.item, self.pseudo.item])
        weight = torch.cat([self.pseudo.weight.new_ones(graph.user.numel()), self.pseudo.weight])
        self.b = bipartite_normalize(SparseOperator.from_edges(user, item, self.a.shape, weight))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.a}, {self.pseudo.user.numel()} pseudo edges)"


def content_view(
    graph: InteractionGraph,
    neighbours: SparseOperator,
    min_degree: int = 5,
    gamma: float = 0.5,
) -> PseudoEdges:
    r"""Edges from rare items to the users who took what is like them (our own rule).

    .. math::
        P = D_u^{-1/2} R\, S^\top, \quad
        w_{ui} = \gamma\, P_{ui} / \max_v P_{vi}

    Items of fewer than ``min_degree`` interactions choose in the order of their degrees, ties by
    number: each takes the users of largest :math:`P_{ui} > 0` who do not have it, ties by number,
    until it has ``min_degree`` edges. A user takes part in at most
    :math:`\max(2, \deg u)` of them; a user who is full is passed over. Only rare items' rows of
    :math:`P` are computed, some at a time.

    Args:
        graph: Training interactions.
        neighbours: Content neighbours :math:`S`, non-negative, shape :math:`(I, I)`.
        min_degree: Edges :math:`d^*` that every item is to have.
        gamma: Weight of an item's strongest affinity, in (0, 1].

    Raises:
        ConfigError: A setting is out of range.
        DataError: The neighbours are of other items.
    """
    if min_degree < 0 or not 0 < gamma <= 1:
        raise ConfigError(
            f"expected min_degree >= 0 and gamma in (0, 1], got {min_degree} and {gamma}"
        )
    if neighbours.shape != (graph.num_items, graph.num_items):
        raise DataError(
            f"expected neighbours of {graph.num_items} items, "
            f"got an operator of shape {neighbours.shape}"
        )
    # Stable: items of one degree stay in order of their numbers.
    order = graph.item_degree.argsort(stable=True)
    order = order[graph.item_degree[order] < min_degree]
    room = graph.user_degree.clamp_min(2)
    users, items, weights = [order.new_empty(0)], [order.new_empty(0)], [neighbours.value[:0]]
    for some in _blocks(graph, neighbours, order):
        place, user, affinity, largest = _candidates(graph, neighbours, some)
        free = room[user] > 0
        place, user, affinity = place[free], user[free], affinity[free]
        chosen = _choose(place, user, min_degree - graph.item_degree[some], room)
        place, user, affinity = place[chosen], user[chosen], affinity[chosen]
        room = room - torch.bincount(user, minlength=graph.num_users)
        users.append(user)
        items.append(some[place])
        weights.append((gamma * affinity / largest[place]).to(neighbours.dtype))
    user, item, weight = torch.cat(users), torch.cat(items), torch.cat(weights)
    by = (user * graph.num_items + item).argsort()
    return PseudoEdges(user[by], item[by], weight[by])


def _blocks(graph: InteractionGraph, near: SparseOperator, order: Tensor) -> Iterator[Tensor]:
    """``order`` in pieces of about :data:`WORK` paths."""
    position, place = expand_rows(near, order)
    paths = torch.zeros_like(order)
    paths.index_add_(0, position, graph.item_degree[near.col[place].long()])
    number = torch.div(paths.cumsum(0) - paths, WORK, rounding_mode="floor")
    sizes = torch.unique_consecutive(number, return_counts=True)[1]
    yield from order.split(sizes.tolist()) if order.numel() else ()


def _candidates(
    graph: InteractionGraph, near: SparseOperator, items: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Users with an affinity to some items, the best of each item first.

    Returns:
        The item's position in ``items``, the user and the affinity of each candidate ``[n]``; and
        the largest affinity of anybody to each item ``[len(items)]``.
    """
    takers = graph.normalized.t()
    position, place = expand_rows(near, items)
    path, step = expand_rows(takers, near.col[place].long())
    key = position[path] * graph.num_users + takers.col[step].long()
    key, of = torch.unique(key, return_inverse=True)
    # Sums of a few float32 are exact in double precision: equals stay equal in any order.
    total = torch.zeros(key.numel(), dtype=torch.float64, device=key.device)
    total.index_add_(0, of, near.value[place].double()[path])
    position = torch.div(key, max(graph.num_users, 1), rounding_mode="floor")
    user = key - position * graph.num_users
    affinity = total * graph.user_degree[user].double().rsqrt()
    largest = affinity.new_zeros(items.numel()).scatter_reduce_(0, position, affinity, "amax")
    new = (affinity > 0) & ~_taken(graph, user, items[position])
    position, user, affinity = position[new], user[new], affinity[new]
    order = affinity.argsort(descending=True, stable=True)
    order = order[position[order].argsort(stable=True)]
    return position[order], user[order], affinity[order], largest


def _taken(graph: InteractionGraph, user: Tensor, item: Tensor) -> Tensor:
    """Whether each pair is a training interaction."""
    known = graph.user * graph.num_items + graph.item  # in rising order
    if not known.numel():
        return torch.zeros_like(user, dtype=torch.bool)
    asked = user * graph.num_items + item
    at = torch.searchsorted(known, asked).clamp_max(known.numel() - 1)
    return known[at] == asked


def _choose(item: Tensor, user: Tensor, want: Tensor, room: Tensor) -> Tensor:
    """Which candidates are taken when items choose one after the other, all at once.

    All users prefer the item that comes first, so there is one stable matching: the one that
    choosing in turn gives. Here items ask their next best users together, and a user with too
    many keeps the first items (Gale and Shapley, 1962).

    Args:
        item: Rank of each candidate's item, rising; in an item the best user first ``[n]``.
        user: The user of each candidate ``[n]``.
        want: Users that each item wants.
        room: Items that each user has room for.
    """
    ranks = torch.arange(want.numel(), device=item.device)
    next_one = torch.searchsorted(item, ranks)
    end = torch.searchsorted(item, ranks, right=True)
    held, need = item.new_empty(0), want
    while True:
        asking = torch.minimum(need, end - next_one)
        count = int(asking.sum())
        if not count:
            return held.sort().values
        first = torch.repeat_interleave(next_one - asking.cumsum(0) + asking, asking)
        pool = torch.cat([held, first + torch.arange(count, device=item.device)])
        next_one = next_one + asking
        pool = pool[(user[pool] * want.numel() + item[pool]).argsort()]
        of = user[pool]
        rank = torch.arange(pool.numel(), device=item.device) - torch.searchsorted(of, of)
        held = pool[rank < room[of]]
        need = want - torch.bincount(item[held], minlength=want.numel())
