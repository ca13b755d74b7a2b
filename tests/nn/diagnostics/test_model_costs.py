from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.diagnostics import (
    RoutingRecorder,
    forward_flops,
    parameters_active,
    parameters_total,
    routing_losses,
)
from graphmoe.nn.models import MoEFFN, TaskShape, build_model
from graphmoe.ops import importance_loss, switch_loss, z_loss

NODES = TaskShape("node", 4, "float", in_channels=8)


@pytest.fixture
def graph():
    return Data(x=torch.randn(20, 8), edge_index=torch.randint(20, (2, 60)), num_nodes=20)


def test_parameters_in_use():
    layer = MoEConv(8, 4, expert="GCNConv", num_experts=5, k=2, shared_expert=True)
    expert, router = 8 * 4 + 4, 8 * 5 + 5
    assert parameters_total(layer) == 6 * expert + router
    assert parameters_active(layer) == 3 * expert + router
    dense = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    assert parameters_active(dense) == parameters_total(dense) == 8 + 6
    stacked = MoEFFN(8, hidden_channels=16, num_experts=4, k=1)
    assert parameters_total(stacked) - parameters_active(stacked) == 3 * (8 * 16 + 16 + 16 * 8 + 8)
    with pytest.raises(ValueError, match="cannot tell what the experts"):
        parameters_active(MoEConv(-1, 4))


@pytest.mark.parametrize("k", [1, 3])
def test_flops_are_those_of_the_experts_that_run(graph, k):
    model = build_model("moe-sage", NODES, hidden_channels=6, num_layers=2, num_experts=5, k=k)
    routers = 2 * 20 * 5 * (8 + 6)
    experts = 2 * 20 * k * (2 * 8 * 6 + 2 * 6 * 4)
    assert forward_flops(model, graph) == routers + experts
    assert model.training
    assert all(module.training for module in model.modules())


def test_flops_of_stacked_experts():
    layer, x = MoEFFN(8, hidden_channels=16, num_experts=4, k=2).eval(), torch.randn(10, 8)
    assert forward_flops(layer, x) == 2 * 10 * (8 * 4 + 2 * 2 * 8 * 16)
    assert not layer.training


def test_losses_are_weighted_sums_over_layers(graph):
    model = build_model("moe-gcn", NODES, hidden_channels=6, num_layers=3)
    with RoutingRecorder(model) as recorder:
        _, routings = model(graph, return_routing=True)
    weights = {"switch": 0.5, "importance": 0.25, "z": 0.125}
    expected = sum(
        0.5 * switch_loss(r.probs, r.index)
        + 0.25 * importance_loss(r.weight, r.index, 4)
        + 0.125 * z_loss(r.logits)
        for r in routings
    )
    found = routing_losses(routings, **weights)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(recorder.loss(**weights), expected)
    torch.testing.assert_close(
        routing_losses(routings, switch=1.0, shares=[0, 0, 2]),
        2 * switch_loss(routings[2].probs, routings[2].index),
    )
    found.backward()
    assert all(conv.router.lin.weight.grad.abs().sum() > 0 for conv in model.mixtures)
    with pytest.raises(ValueError, match="no recorded router gives its load"):
        routing_losses(routings, load=1.0)
    with pytest.raises(ValueError, match="at least one layer, got none"):
        routing_losses([])
