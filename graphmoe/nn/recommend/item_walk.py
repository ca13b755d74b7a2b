"""Where walks from a user's items lead, along the interactions; nothing is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphmoe.ops.co_occurrence import expand_rows

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph
    from graphmoe.ops import SparseOperator


#: Users that walk together: what they meet stays in a processor's cache.
_TOGETHER = 64
#: Most interactions with which every walk is followed: it passes through all of them for each
#: few users. With more, a step is looked up in a table, and a user costs the same however many
#: others there are.
FOLLOWED = 2**18
#: Users whose walks are held at once where single pairs are asked for.
_BLOCK = 1024


def item_walks(
    graph: InteractionGraph,
    users: Tensor,
    history: SparseOperator | None = None,
    steps: int = 1,
) -> Tensor:
    r"""The chances of all items to be met, summed over the items of each user.

    .. math::
        w(u, i) = \sum_{j \in N(u)} (P^s)_{ji}, \qquad
        P_{ji} = \sum_{v \in N(j) \cap N(i)} \frac{1}{d_j\, n_v}

    :math:`P_{ji}` being a random walk from item :math:`j` to one of its users and on to one of
    theirs: the :math:`P^3` of `"Random Walks in Recommender Systems: Exact Computation and
    Simulations" <https://doi.org/10.1145/2567948.2579244>`_ (WWW 2014). Two sparse products a step
    for a few users at a time; with one step and more than :data:`FOLLOWED` interactions, the
    largest chances of each item, from a table of bounded size
    (:attr:`~graphmoe.nn.recommend.InteractionGraph.transitions`). No array of items times items.

    Args:
        graph: Training interactions.
        users: Their numbers ``[B]``.
        history: Whose places are the items of each user, new ones behind those of the graph,
            ``[U + N, I]``. (default: those of the graph)
        steps: Steps :math:`s` of a walk.

    **Shapes:** ``[B]`` to ``[B, I]``.
    """
    own = graph.mean_of_history if history is None else history
    if steps == 1 and looked_up(graph):
        return _from_table(graph.transitions, users, own)
    mean, taken = (op.to(dtype=own.dtype) for op in (graph.mean_of_history, graph.taken))
    # An item that nobody trained on leads nowhere, whatever it is divided by.
    inverse = 1 / graph.item_degree.clamp_min(1).to(mean.dtype)
    found = torch.empty(users.numel(), graph.num_items, dtype=mean.dtype, device=users.device)
    for some, out in zip(users.split(_TOGETHER), found.split(_TOGETHER), strict=True):
        position, place = expand_rows(own, some)
        item = own.col[place].long()
        walks = out.new_zeros(graph.num_items, some.numel())
        walks[item, position] = 1.0
        for _ in range(steps):
            # From items to those who took them, and from each of these on to one of theirs.
            walks = mean.rmatmul(taken @ (walks * inverse.unsqueeze(1)))
        out.copy_(walks.t())
    return found


def looked_up(graph: InteractionGraph) -> bool:
    """Whether walks of one step come from a table, :attr:`InteractionGraph.transitions`."""
    return graph.user.numel() > FOLLOWED


def _from_table(table: SparseOperator, users: Tensor, own: SparseOperator) -> Tensor:
    size = table.shape[1]
    found = torch.zeros(users.numel(), size, dtype=own.dtype, device=users.device)
    for some, out in zip(users.split(_TOGETHER), found.split(_TOGETHER), strict=True):
        position, place = expand_rows(own, some)
        item = own.col[place].long()
        known = item < size  # an item that came later leads nowhere
        walk, place = expand_rows(table, item[known])
        end = position[known][walk] * size + table.col[place].long()
        out.view(-1).index_add_(0, end, table.value[place].to(own.dtype))
    return found


def walked_pairs(
    graph: InteractionGraph,
    users: Tensor,
    items: Tensor,
    history: SparseOperator | None = None,
    steps: int = 1,
) -> Tensor:
    """The same for single pairs ``[B]``; items that came after training are not reached.

    Args:
        graph: Training interactions.
        users: Their numbers ``[B]``.
        items: One for each ``[B]``.
        history: As of :func:`item_walks`.
        steps: Likewise.
    """
    distinct, row = users.unique(return_inverse=True)
    dtype = None if history is None else history.dtype
    found = torch.zeros(items.numel(), dtype=dtype, device=items.device)
    for part in distinct.split(_BLOCK):
        walks = item_walks(graph, part, history, steps)
        here = torch.isin(users, part) & (items < graph.num_items)
        place = torch.searchsorted(part, distinct[row[here]])
        found[here] = walks[place, items[here]]
    return found
