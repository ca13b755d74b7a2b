"""A small bank and small graphs that every test of fusing shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch_geometric.data import HeteroData

import graphmoe
from graphmoe.checkpoint import ExpertBank

WIDTH = 16


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> ExpertBank:
    """Experts of two homogeneous graphs and a heterogeneous one, 30 epochs each."""
    folder = tmp_path_factory.mktemp("banks") / "bank"
    config = {
        "data": {"channels": WIDTH},
        "model": {"hidden_channels": WIDTH},
        "optim": {"max_epochs": 30, "lr": 0.01},
    }
    names = ["karate", "wine", "southern_women"]
    return graphmoe.pretrain(names, config=config, out=folder, progress=False)


@pytest.fixture(scope="session")
def bank_path(bank: ExpertBank) -> Path:
    """Its folder."""
    assert bank.path is not None
    return bank.path


@pytest.fixture
def small() -> dict[str, Any]:
    """Settings that fit the bank, with few members."""
    return {
        "channels": WIDTH,
        "members": {"depths": [2, 5], "other_depths": [2], "lazy_steps": [4], "view_steps": [2]},
    }


@pytest.fixture
def women() -> HeteroData:
    """The Southern women with the two cliques that Davis et al. (1941) saw: nine women each."""
    import torch

    data = graphmoe.load_graph("southern_women")
    data["woman"].y = (torch.arange(18) >= 9).long()
    return data
