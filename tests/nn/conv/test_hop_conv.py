from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import GCNConv, SAGEConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import to_dense_adj

from graphmoe.nn.conv import MoEConv
from graphmoe.nn.conv.gin import gin_conv, gine_conv
from graphmoe.nn.conv.hop_conv import HopConv


@pytest.fixture
def graph():
    edge_index = torch.randint(10, (2, 40))
    return torch.randn(10, 5, dtype=torch.double), edge_index


def without_norm(i, o):
    return gin_conv(i, o, norm=False)


def adjacency(edge_index):
    """Row: where edges end."""
    return to_dense_adj(edge_index, max_num_nodes=10)[0].t().double()


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_powers_of_the_adjacency(graph, hops):
    x, edge_index = graph
    gcn = GCNConv(5, 4).double()
    index, weight = gcn_norm(edge_index, None, 10, dtype=torch.double)
    normal = to_dense_adj(index, edge_attr=weight, max_num_nodes=10)[0].t()
    expected = torch.linalg.matrix_power(normal, hops) @ gcn.lin(x) + gcn.bias
    torch.testing.assert_close(HopConv(gcn, hops, 3)(x, edge_index), expected)

    sage, a = SAGEConv(5, 4).double(), adjacency(edge_index)
    mean = torch.linalg.matrix_power(a / a.sum(1, keepdim=True).clamp_min(1), hops)
    expected = sage.lin_l(mean @ x) + sage.lin_r(x)
    torch.testing.assert_close(HopConv(sage, hops, 3)(x, edge_index), expected)

    gin = without_norm(5, 4).double()
    torch.nn.init.constant_(gin.eps, 0.3)
    expected = gin.nn(1.3 * x + torch.linalg.matrix_power(a, hops) @ x)
    torch.testing.assert_close(HopConv(gin, hops, hops)(x, edge_index), expected)


def test_edge_features_at_every_hop(graph):
    x, edge_index = graph
    attr = torch.randn(40, 5, dtype=torch.double)
    conv = gine_conv(5, 4, norm=False).double()
    received = x
    for _ in range(2):
        message = (received[edge_index[0]] + attr).relu()
        received = torch.zeros_like(x).index_add(0, edge_index[1], message)
    out = HopConv(conv, 2, 2)(x, edge_index, edge_attr=attr)
    torch.testing.assert_close(out, conv.nn(x + received))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("expert", [without_norm, "GCNConv", "SAGEConv"])
def test_sparse_is_dense(graph, expert, grad, shared):
    x, edge_index = graph
    layers = []
    for compute in ("update", "dense"):
        torch.manual_seed(0)
        layer = MoEConv(
            5, 4, expert=expert, num_experts=3, k=2, hops=(1, 2, 1), compute=compute,
            shared_expert=shared,
        ).double()  # fmt: skip
        layers.append(layer)
    with torch.set_grad_enabled(grad):
        out, expected = (layer(x, edge_index) for layer in layers)
        torch.testing.assert_close(out, expected)
        if not grad:
            return
    out.square().sum().backward()
    expected.square().sum().backward()
    for own, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_of_one_hop_it_is_the_mixture_without(graph):
    x, edge_index = graph
    layer = MoEConv(5, 4, expert=without_norm, num_experts=3, hops=[1, 1, 1]).double()
    plain = MoEConv(5, 4, expert=without_norm, num_experts=3).double()
    plain.load_state_dict(
        {key.replace(".conv.", "."): value for key, value in layer.state_dict().items()}
    )
    torch.testing.assert_close(layer(x, edge_index), plain(x, edge_index))


def test_messages(graph):
    with pytest.raises(ValueError, match="one number an expert: expected 4, got 2"):
        MoEConv(5, 4, hops=[1, 2])
    with pytest.raises(ValueError, match="expected hops in 1 .. 2, got 0"):
        MoEConv(5, 4, num_experts=2, hops=[0, 2])
    with pytest.raises(ValueError, match="GATConv has no update adapter"):
        MoEConv(5, 4, expert="GATConv", num_experts=2, hops=[1, 2])
    with pytest.raises(ValueError, match="expected train_eps=True"):
        MoEConv(5, 4, expert="GINConv", num_experts=2, hops=[1, 2])
    x, edge_index = graph
    with pytest.raises(ValueError, match="one kind of nodes, got a pair"):
        MoEConv(5, 4, num_experts=2, hops=[1, 2]).double()((x, x), edge_index)
    with pytest.raises(ValueError, match="does not take any: expected edge_attr=None"):
        MoEConv(5, 4, num_experts=2, hops=[1, 2]).double()(x, edge_index, edge_attr=x)
