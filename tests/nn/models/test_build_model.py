from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv, GINConv, GINEConv, SAGEConv

from graphmoe.errors import ConfigError
from graphmoe.nn.conv import MoEConv
from graphmoe.nn.conv.hop_conv import HopConv
from graphmoe.nn.models import MODELS, TaskShape, build_model, dense_twin, match_width
from graphmoe.nn.models.build_model import MIXTURE_SETTINGS
from graphmoe.nn.routers import NoisyTopKRouter

MOLECULES = TaskShape("graph", 1, "atom", "bond", 9, 3)
NODES = TaskShape("node", 7, "float", in_channels=12)
SMALL = {"hidden_channels": 8, "num_layers": 2}


@pytest.mark.parametrize(
    ("name", "task", "conv"),
    [
        ("gcn", MOLECULES, GCNConv),
        ("gin", MOLECULES, GINEConv),
        ("gine", MOLECULES, GINEConv),
        ("sage", MOLECULES, SAGEConv),
        ("gat", MOLECULES, GATConv),
        ("gin", NODES, GINConv),
    ],
)
def test_names(name, task, conv):
    dense = build_model(name, task, **SMALL)
    assert [type(layer) for layer in dense.convs] == [conv, conv]
    mixture = build_model(f"moe-{name}", task, **SMALL)
    for layer in mixture.convs:
        assert isinstance(layer, MoEConv)
        assert [type(expert) for expert in layer.experts] == [conv] * 4
    expected = "update" if name != "gat" else "edge"
    assert {layer.compute for layer in mixture.convs} == {expected}


def test_settings_reach_the_layers():
    model = build_model(
        "moe-gin", MOLECULES, hidden_channels=8, num_layers=3, num_experts=[2, 3, 4], k=2,
        router="noisy_topk", moe_layers=[0, 2], shared_expert=True, expansion=0.5,
        expert_norm=False, hops=None,
    )  # fmt: skip
    kinds = [getattr(conv, "num_experts", None) for conv in model.convs]
    assert kinds == [2, None, 4]
    assert isinstance(model.convs[0].router, NoisyTopKRouter)
    assert model.convs[0].shared_expert is not None
    assert model.convs[1].nn[0].out_features == 4
    assert len(model.convs[1].nn) == 3
    hops = build_model("moe-gine", MOLECULES, **SMALL, num_experts=3, hops=[1, 1, 2])
    assert [expert.hops for expert in hops.convs[1].experts] == [1, 1, 2]
    assert isinstance(hops.convs[0].experts[0], HopConv)
    assert len(hops.edge_encoders) == 2


def test_what_is_read_off_a_task():
    def task(data, **about):
        about = {"level": "node", "num_outputs": 3, "edge_features": "none"} | about
        return SimpleNamespace(graphs=data, **about)

    data = Data(x=torch.rand(5, 4), edge_index=torch.zeros(2, 0, dtype=torch.long))
    assert TaskShape.of(task(data, features="float")) == TaskShape("node", 3, "float", "none", 4, 0)
    data.edge_attr = torch.rand(0)
    shape = TaskShape.of(task(data, features="float", edge_features="float"))
    assert shape.edge_channels == 1
    bare = Data(edge_index=data.edge_index, num_nodes=6)
    assert TaskShape.of(task(bare, features="index")).in_channels == 6
    assert TaskShape.of(task(bare, features="none")).in_channels == 0


@pytest.mark.parametrize(
    ("name", "task", "hyper", "message"),
    [
        ("moe-gim", NODES, {}, "unknown model 'moe-gim'.*did you mean 'moe-gin'"),
        ("moe-gine", NODES, {}, "'moe-gine' is for tasks whose edges have .* expected 'moe-gin'"),
        ("gin", NODES, {"num_expert": 2}, "unknown setting of model 'gin' 'num_expert'"),
        ("gin", NODES, {"num_experts": 2}, "'gin' is dense: expected the model 'moe-gin'"),
        ("gcn", NODES, {"expansion": 2}, "unknown setting of model 'gcn' 'expansion'"),
        ("gin", NODES, {"level": "graph"}, "unknown setting of model 'gin' 'level'"),
        ("gin", NODES, {"dropout": 1.5}, "model 'gin': expected dropout in"),
        ("moe-gin", NODES, {"k": 9}, "model 'moe-gin': k is the number of experts"),
        ("moe-gin", NODES, {"router": "topp"}, "unknown router 'topp'"),
        ("moe-gat", NODES, {"hops": [1, 1, 2, 2]}, "GATConv has no update adapter"),
    ],
)
def test_messages(name, task, hyper, message):
    with pytest.raises(ConfigError, match=message):
        build_model(name, task, **hyper)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("moe-")])
def test_the_width_comes_as_near_as_it_can(name):
    def size(width):
        model = build_model(name, MOLECULES, num_layers=2, hidden_channels=width)
        return sum(p.numel() for p in model.parameters())

    target = 7_000
    step = 4 if name == "gat" else 1  # its heads
    width = match_width(name, MOLECULES, target, {"num_layers": 2, "hidden_channels": 999})
    distance = abs(size(width) - target)
    assert distance <= min(abs(size(width - step) - target), abs(size(width + step) - target))
    assert match_width(name, MOLECULES, size(12), {"num_layers": 2}) == 12


def test_twins_have_as_many_parameters():
    hyper = {"hidden_channels": 40, "num_layers": 3, "num_experts": 6, "k": 2, "dropout": 0.1}
    mixture = build_model("moe-gin", MOLECULES, **hyper)
    experts = mixture.convs[0].experts[0]
    own = sum(p.numel() for p in experts.parameters())
    total = sum(p.numel() for p in mixture.parameters())
    active = total - 3 * 4 * own
    for equal, target in (("active", active), ("total", total)):
        name, settings = dense_twin("moe-gin", MOLECULES, hyper, equal)
        assert name == "gin"
        assert not set(settings) & set(MIXTURE_SETTINGS)
        assert settings["dropout"] == 0.1
        found = sum(p.numel() for p in build_model(name, MOLECULES, **settings).parameters())
        assert abs(found - target) < 0.02 * target
    with pytest.raises(ConfigError, match="one of active, total, got 'flops'"):
        dense_twin("moe-gin", MOLECULES, hyper, "flops")
    with pytest.raises(ConfigError, match="mixture such as 'moe-gin', got the dense model 'gin'"):
        dense_twin("gin", MOLECULES)
    with pytest.raises(ConfigError, match="as few as 3 parameters: width 1 has"):
        match_width("gin", MOLECULES, 3)
