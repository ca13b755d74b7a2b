from __future__ import annotations

import pytest
import torch
from planted_graph import (
    COLD_ITEM,
    ITEMS,
    NEW_USER,
    dense_cosine_knn,
    planted_graph,
)

from graphmoe.errors import ConfigError
from graphmoe.nn.recommend import InteractionGraph, ItemKNN


def scores(model: ItemKNN) -> torch.Tensor:
    return model.score(model.prepare(), torch.arange(model.num_users))


def dense_history(graph: InteractionGraph) -> torch.Tensor:
    R = torch.zeros(graph.num_users, graph.num_items, dtype=torch.float64)
    R[graph.user, graph.item] = 1
    return R


def test_by_company_against_cosines_of_columns() -> None:
    graph = planted_graph()
    model = ItemKNN(graph, by="company", k=5)
    R = dense_history(graph)
    S = dense_cosine_knn(R.t(), torch.ones(ITEMS, dtype=torch.bool), 5)
    expected = (R @ S).float()
    torch.testing.assert_close(scores(model), expected)


def test_by_content_against_weighted_cosines() -> None:
    graph = planted_graph()
    model = ItemKNN(graph, k=4, weights={"image": 3.0, "audio": 1.0})
    total = torch.zeros(ITEMS, ITEMS, dtype=torch.float64)
    weight = {"image": 3.0, "audio": 1.0}
    norm = sum(weight[m] * graph.present[m].double() for m in weight)
    for m, x in graph.modalities.items():
        part = weight[m] / norm.clamp_min(1e-12)
        total += part[:, None] * dense_cosine_knn(x, graph.present[m], 4)
    keep = torch.zeros_like(total).scatter_(1, total.topk(4, dim=1).indices, 1.0)
    expected = (dense_history(graph) @ (total * keep)).float()
    torch.testing.assert_close(scores(model), expected)


def test_a_closed_form() -> None:
    """Items 0 and 1 share both users; 2 shares one of them; 3 is alone."""
    user, item = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 1, 0, 1, 2, 3])
    graph = InteractionGraph.from_edges(user, item, 4, 4)
    model = ItemKNN(graph, by="company", k=2)
    half = 0.5**0.5
    expected = torch.tensor(
        [
            [1.0, 1.0, 2 * half, 0.0],
            [1 + half, 1 + half, 2 * half, 0.0],
            [0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(scores(model), expected)


def test_a_cold_item_is_found_by_content_and_not_by_company() -> None:
    graph = planted_graph()
    assert scores(ItemKNN(graph, k=6))[:, COLD_ITEM].any()
    assert not scores(ItemKNN(graph, by="company"))[:, COLD_ITEM].any()
    assert not scores(ItemKNN(graph))[NEW_USER].any()


def test_an_unknown_kind_of_neighbour_is_told() -> None:
    with pytest.raises(ConfigError, match="by='price'"):
        ItemKNN(planted_graph(), by="price")  # type: ignore[arg-type]
