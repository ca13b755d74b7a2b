"""Random walks by powers of the transition matrix."""

from __future__ import annotations

import pytest
import torch
from planted_graph import COLD_ITEM, ITEMS, NEW_USER, USERS, planted_graph

from graphmoe.errors import ConfigError
from graphmoe.nn.recommend import InteractionGraph, RandomWalk, add_users
from graphmoe.ops import SparseOperator


def transition(graph: InteractionGraph) -> tuple[torch.Tensor, torch.Tensor]:
    """Who took what, and the chances to go from one item to another."""
    R = torch.zeros(USERS, ITEMS, dtype=torch.float64)
    R[graph.user, graph.item] = 1
    to_users = R.t() / R.sum(0).clamp_min(1)[:, None]
    return R, to_users @ (R / R.sum(1).clamp_min(1)[:, None])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_scores_are_powers_of_the_transition_matrix(steps: int) -> None:
    graph = planted_graph()
    R, P = transition(graph)
    expected = R @ torch.linalg.matrix_power(P, steps)
    model = RandomWalk(graph, steps)
    prepared = model.prepare()
    found = model.score(prepared, torch.arange(USERS)).double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # Walks end somewhere: each item of a user sends out one.
    torch.testing.assert_close(found.sum(1), R.sum(1), rtol=1e-4, atol=1e-4)
    assert not found[NEW_USER].any()
    assert not found[:, COLD_ITEM].any()
    users, items = torch.arange(USERS).repeat_interleave(ITEMS), torch.arange(ITEMS).repeat(USERS)
    gave = model.explain(prepared, users, items)["walks"].double().view(USERS, ITEMS)
    torch.testing.assert_close(gave, expected, rtol=1e-4, atol=1e-5)


def test_a_user_handed_over_as_new_is_scored_as_before() -> None:
    graph = planted_graph()
    model = RandomWalk(graph, 3)
    items = graph.item[graph.user == 4]
    history = SparseOperator.from_edges(torch.zeros_like(items), items, (1, ITEMS))
    prepared = add_users(model, model.prepare(), history)
    scores = model.score(prepared, torch.tensor([4, USERS]))
    torch.testing.assert_close(scores[1], scores[0])


def test_a_walk_takes_a_step() -> None:
    with pytest.raises(ConfigError, match="steps >= 1, got 0"):
        RandomWalk(planted_graph(), 0)
