"""Why users choose is planted; what content gave to their choices tells it again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphmoe.data.interactions.planted import DRIVES, planted_interactions
from graphmoe.nn.recommend import InteractionGraph
from graphmoe.nn.recommend.content_profile import ContentProfile


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
