"""Every expert on every node, one node at a time: a mixture of convolutions by definition."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric import nn as pyg

from graphmoe.nn.conv import MoEConv

#: Convolutions, their arguments, what they take beside nodes and edges, and how they are run.
CASES: dict[str, tuple[Any, dict[str, Any], str | None, str]] = {
    "GCN": ("GCNConv", {}, "edge_weight", "update"),
    "GCN improved": ("GCNConv", {"improved": True, "bias": False}, None, "update"),
    "GCN plain": ("GCNConv", {"normalize": False}, "edge_weight", "update"),
    "SAGE": ("SAGEConv", {}, None, "update"),
    "SAGE max": ("SAGEConv", {"aggr": "max", "root_weight": False}, None, "update"),
    "SAGE many": ("SAGEConv", {"aggr": ["mean", "max"], "normalize": True}, None, "update"),
    "SAGE project": ("SAGEConv", {"project": True}, None, "edge"),
    "SAGE softmax": ("SAGEConv", {"aggr": "softmax", "aggr_kwargs": {"learn": True}}, None, "edge"),
    "Graph": ("GraphConv", {"aggr": "mean"}, "edge_weight", "update"),
    "GIN": ("GINConv", {"train_eps": True}, None, "update"),
    "GINE": ("GINEConv", {"eps": 0.5}, "edge_attr", "update"),
    "GINE eps": ("GINEConv", {"train_eps": True}, "edge_attr", "update"),
    "GINE edges": (
        lambda i, o: pyg.GINEConv(torch.nn.Linear(i, o), edge_dim=6, train_eps=True),
        {},
        "edge_attr",
        "edge",
    ),
    "SG": ("SGConv", {"K": 2}, "edge_weight", "update"),
    "TAG": ("TAGConv", {"K": 2}, "edge_weight", "update"),
    "GAT": ("GATConv", {}, None, "edge"),
    "GAT heads": ("GATConv", {"heads": 3, "residual": True}, None, "edge"),
    "GAT mean": ("GATConv", {"heads": 2, "concat": False, "bias": False}, None, "edge"),
    "GAT edges": ("GATConv", {"heads": 2, "edge_dim": 6}, "edge_attr", "edge"),
    "GAT no loops": ("GATConv", {"add_self_loops": False}, None, "edge"),
    "GATv2": ("GATv2Conv", {"heads": 2, "edge_dim": 6}, "edge_attr", "edge"),
    "Transformer": ("TransformerConv", {"edge_dim": 6, "beta": True}, "edge_attr", "edge"),
    "ResGated": ("ResGatedGraphConv", {"edge_dim": 6}, "edge_attr", "edge"),
    "NN": ("NNConv", {"nn": torch.nn.Linear(6, 6 * 4)}, "edge_attr", "edge"),
    "GEN": ("GENConv", {"norm": None, "edge_dim": 6}, "edge_attr", "edge"),
    "LE": ("LEConv", {}, "edge_weight", "edge"),
    "ClusterGCN": ("ClusterGCNConv", {}, None, "edge"),
    "FeaSt": ("FeaStConv", {"heads": 2}, None, "edge"),
    "MF": ("MFConv", {}, None, "edge"),
    "General": ("GeneralConv", {"in_edge_channels": 6}, "edge_attr", "edge"),
    "Edge": (lambda i, o: pyg.EdgeConv(torch.nn.Linear(2 * i, o)), {}, None, "edge"),
    "Cheb": ("ChebConv", {"K": 2}, "edge_weight", "dense"),
    "ARMA": ("ARMAConv", {}, "edge_weight", "dense"),
}


def make(case: str, **kwargs: Any) -> tuple[MoEConv, dict[str, Tensor]]:
    """A layer in double precision, 6 wide to 4, and what it takes beside nodes and edges."""
    expert, expert_kwargs, extra, _ = CASES[case]
    layer = MoEConv(6, 4, expert=expert, expert_kwargs=expert_kwargs, **kwargs).double()
    for parameter in layer.parameters():  # biases and ε start at zero, and would hide a mistake
        torch.nn.init.uniform_(parameter, -0.7, 0.7)
    shapes = {"edge_weight": (EDGES.size(1),), "edge_attr": (EDGES.size(1), 6)}
    given = {} if extra is None else {extra: torch.rand(shapes[extra], dtype=torch.double)}
    return layer, given


#: 9 nodes: 7 has no edge, 8 none that comes in; two edges are the same, and two are self-loops.
EDGES = torch.tensor(
    [
        [0, 1, 2, 2, 3, 4, 5, 6, 8, 8, 0, 1, 1, 4],
        [1, 2, 0, 3, 3, 5, 6, 4, 1, 5, 4, 2, 1, 0],
    ]
)


def nodes(count: int = 9, width: int = 6) -> Tensor:
    return torch.randn(count, width, dtype=torch.double)


def brute_force(layer: MoEConv, x: Any, edge_index: Any, **given: Any) -> Tensor:
    """Each node's chosen experts one after the other, each run on the whole graph."""
    routing = layer.router(x, edge_index)
    whole = [conv(x, edge_index, **given) for conv in layer.experts]
    rows = []
    for node in range(routing.index.size(0)):
        row = torch.zeros_like(whole[0][node])
        for slot in range(routing.index.size(1)):
            if routing.mask is None or routing.mask[node, slot]:
                weight = routing.weight[node, slot]
                row = row + weight * whole[int(routing.index[node, slot])][node]
        rows.append(row)
    out = torch.stack(rows)
    if layer.shared_expert is not None:
        out = out + layer.shared_expert(x, edge_index, **given)
    return out


def gradients(layer: MoEConv, out: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Of a random sum of the output, in every parameter and input; missing ones are zero."""
    wanted = [*layer.parameters(), *inputs]
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).cos()
    found = torch.autograd.grad((out * weight).sum(), wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
