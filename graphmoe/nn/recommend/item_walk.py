"""Where a walk from a user's items leads: two steps along the interactions, nothing learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphmoe.ops.co_occurrence import expand_rows

if TYPE_CHECKING:
    from graphmoe.nn.recommend.graph import InteractionGraph
    from graphmoe.ops import SparseOperator


def item_walks(
    graph: InteractionGraph, users: Tensor, history: SparseOperator | None = None
) -> Tensor:
    r"""The chances of all items to be met, summed over the items of each user.

    .. math::
        w(u, i) = \sum_{j \in N(u)} P(i \mid j), \qquad
        P(i \mid j) = \sum_{v \in N(j) \cap N(i)} \frac{1}{d_j\, n_v}

    :math:`P(i \mid j)` being a random walk from item :math:`j` to one of its users and on to one of
    theirs: the :math:`P^3` of `"Random Walks in Recommender Systems: Exact Computation and
    Simulations" <https://doi.org/10.1145/2567948.2579244>`_ (WWW 2014). Two sparse products, linear
    in interactions; no array of items times items.

    Args:
        graph: Training interactions.
        users: Their numbers ``[B]``.
        history: Whose places are the items of each user, new ones behind those of the graph,
            ``[U + N, I]``. (default: those of the graph)

    **Shapes:** ``[B]`` to ``[B, I]``.
    """
    mean = graph.mean_of_history
    own = mean if history is None else history
    position, place = expand_rows(own, users)
    item = own.col[place].long()
    start = torch.zeros(graph.num_items, users.numel(), dtype=mean.dtype, device=users.device)
    # An item that nobody trained on leads nowhere, whatever it is divided by.
    start[item, position] = 1 / graph.item_degree[item].clamp_min(1).to(mean.dtype)
    met = mean @ start  # how much of it each user sees, over the length of their history
    degree = graph.user_degree.to(mean.dtype).unsqueeze(1)
    return mean.rmatmul(met * degree).t()
