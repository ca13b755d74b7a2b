from __future__ import annotations

import torch
from planted_graph import COLD_ITEM, USERS, planted_graph

from graphmoe.nn.recommend import InteractionGraph, Popularity


def test_the_score_is_the_number_of_distinct_takers() -> None:
    user, item = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 1, 1, 1, 0])
    model = Popularity(InteractionGraph.from_edges(user, item, 3, 4))
    expected = torch.tensor([1.0, 3.0, 0.0, 0.0])
    torch.testing.assert_close(model.score(model.prepare(), torch.arange(3)), expected.expand(3, 4))


def test_everybody_sees_the_same_order_with_the_cold_item_last() -> None:
    graph = planted_graph()
    model = Popularity(graph)
    scores = model.score(model.prepare(), torch.arange(USERS))
    assert (scores == scores[0]).all()
    assert scores[0].argmin() == COLD_ITEM
    assert scores[0].sum() == graph.user.numel()
    assert not model.state_dict()
