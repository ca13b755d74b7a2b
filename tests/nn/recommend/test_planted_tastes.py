"""Why users choose is planted; what content gave to their choices tells it again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphmoe.data.interactions.planted import DRIVES, planted_interactions
from graphmoe.nn.recommend import InteractionGraph
from graphmoe.nn.recommend.content_profile import ContentProfile
from graphmoe.training.recommend import RecommendSettings, train_recommender
from graphmoe.training.recommend_task import build_recommender


def auc(score: Tensor, positive: Tensor) -> float:
    """Chance that a positive stands above another one."""
    rank = score.argsort().argsort().double() + 1
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["visual", "textual"])
def test_likeness_to_the_rest_of_the_history_tells_the_type(name: str, seed: int) -> None:
    planted = planted_interactions(seed=seed)
    graph = InteractionGraph.from_interactions(planted.interactions)
    profile = ContentProfile(graph)
    rest = profile.split(profile.leave_one_out(graph.user, graph.item))[name]
    own = profile.split(profile.items[graph.item])[name]
    gave = torch.zeros(graph.num_users).index_add_(0, graph.user, (rest * own).sum(dim=1))
    assert auc(gave / graph.user_degree, planted.user_type == DRIVES.index(name)) >= 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_the_routing_of_users_tells_the_type(seed: int) -> None:
    """Shares of the cues in what a user's experts say: gates times templates, nothing else."""
    planted = planted_interactions(seed=seed)
    graph = InteractionGraph.from_interactions(planted.interactions)
    model = build_recommender("MAGNET", {}, graph, seed)
    settings = RecommendSettings(lr=5e-3, batch_size=256, max_epochs=12, patience=12)
    train_recommender(model, planted.interactions, settings, seed=seed)
    users, _ = model.expert_gates(model.prepare())
    shares = users @ model.templates()
    torch.testing.assert_close(shares.sum(1), torch.ones(graph.num_users))
    for place, name in enumerate(DRIVES):
        assert auc(shares[:, place], planted.user_type == place) >= 0.9, name
