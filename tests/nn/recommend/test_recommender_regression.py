"""What the baselines gave when they were written: a change here is a change of the method."""

from __future__ import annotations

import pytest
import torch
from planted_graph import USERS, planted_batch, planted_graph

from graphmoe.registry import recommenders

#: Total loss of the tenth batch, and the mean score of the training pairs after it.
KNOWN: dict[str, tuple[float, float]] = {
    "BPRMF": (0.61476, 0.1685),
    "FREEDOM": (0.67657, 0.26509),
    "LightGCN": (0.62673, 0.13532),
    "MGCN": (0.83128, 0.12096),
    "VBPR": (0.5665, 0.71655),
}
SETTINGS = {
    "BPRMF": {"embedding_dim": 8},
    "LightGCN": {"embedding_dim": 8},
    "VBPR": {"embedding_dim": 8},
    "FREEDOM": {"embedding_dim": 8, "k": 4, "dropout": 0.3, "feature_weight": 0.1},
    "MGCN": {"embedding_dim": 8, "k": 4, "contrast_weight": 0.1},
}


@pytest.mark.new_torch
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_ten_steps_end_where_they_did(name: str) -> None:
    torch.manual_seed(0)
    model = recommenders.lookup(name)(planted_graph(), **SETTINGS[name])
    optimizer, gen = torch.optim.Adam(model.parameters(), lr=0.02), torch.Generator().manual_seed(0)
    loss = torch.zeros(())
    for epoch in range(10):
        model.begin_epoch(epoch, gen)
        loss = torch.stack(list(model.loss(*planted_batch(model.graph, epoch)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = model.score(model.prepare(), torch.arange(USERS))
    mean = scores[model.graph.user, model.graph.item].mean()
    assert (loss.item(), mean.item()) == pytest.approx(KNOWN[name], rel=2e-3)
