"""A small graph whose structure is known, with everything that real data has."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmoe.nn.recommend import InteractionGraph

USERS, ITEMS, GROUPS = 25, 20, 3
#: Never taken by anybody; has features.
COLD_ITEM = ITEMS - 1
#: Has taken nothing.
NEW_USER = USERS - 1
#: Lack the audio; the second of them lacks the image too.
SILENT = (4, 11)


def planted_graph(seed: int = 0) -> InteractionGraph:
    """Users take most items of their own group, and one of another."""
    gen = torch.Generator().manual_seed(seed)
    user_group = torch.arange(USERS) % GROUPS
    item_group = torch.arange(ITEMS) % GROUPS
    same = user_group[:, None] == item_group
    chance = torch.where(same, 0.7, 0.08)
    taken = torch.rand(USERS, ITEMS, generator=gen) < chance
    taken[:, COLD_ITEM] = False
    taken[NEW_USER] = False
    user, item = taken.nonzero().unbind(1)
    centre = torch.randn(GROUPS, 6, generator=gen)
    image = centre[item_group] + 0.5 * torch.randn(ITEMS, 6, generator=gen)
    audio = torch.randn(ITEMS, 4, generator=gen)
    heard, seen = torch.ones(ITEMS, dtype=torch.bool), torch.ones(ITEMS, dtype=torch.bool)
    heard[list(SILENT)] = False
    seen[SILENT[1]] = False
    return InteractionGraph.from_edges(
        user, item, USERS, ITEMS, {"image": image, "audio": audio}, {"image": seen, "audio": heard}
    )


def planted_batch(graph: InteractionGraph, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """All training pairs in some order, each with a training item that the user did not take."""
    gen = torch.Generator().manual_seed(seed)
    order = torch.randperm(graph.user.numel(), generator=gen)
    user, positive = graph.user[order], graph.item[order]
    free = torch.ones(USERS, ITEMS)
    free[graph.user, graph.item] = 0
    free[:, graph.item_degree == 0] = 0
    return user, positive, torch.multinomial(free[user], 1, generator=gen).squeeze(1)


def dense_bipartite(graph: InteractionGraph) -> Tensor:
    """D^-1/2 [0 R; Rᵀ 0] D^-1/2, float64, written out."""
    n = graph.num_users + graph.num_items
    A = torch.zeros(n, n, dtype=torch.float64)
    A[graph.user, graph.num_users + graph.item] = 1
    A = A + A.t()
    root = A.sum(1).clamp_min(1).rsqrt()
    return root[:, None] * A * root


def dense_mean_of_layers(graph: InteractionGraph, ego: Tensor, layers: int) -> Tensor:
    """Mean of all layers of LightGCN, users above items."""
    A, out = dense_bipartite(graph), [ego]
    for _ in range(layers):
        out.append(A @ out[-1])
    return torch.stack(out).mean(dim=0)


def dense_cosine_knn(features: Tensor, present: Tensor, k: int) -> Tensor:
    """The k largest positive cosines of each row, self left out, float64."""
    x = features.double()
    norm = x.norm(dim=1).clamp_min(1e-8)
    S = x @ x.t() / (norm[:, None] * norm)
    S.fill_diagonal_(-1)
    S[~present] = -1
    S[:, ~present] = -1
    keep = torch.zeros_like(S).scatter_(1, S.topk(min(k, S.size(1)), dim=1).indices, 1.0)
    return (S * keep).clamp_min(0)
