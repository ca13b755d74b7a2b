"""Each expert on its own piece of the graph: its nodes, the edges into them, and their sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import conv as pyg_conv

from graphmoe.nn.conv.graph_input import GraphInput, takes_pairs
from graphmoe.ops.dispatch import DispatchPlan

#: A node's embedding depends on the node, its incoming edges and their sources; on nothing else.
_ONE_HOP = {
    pyg_conv.CGConv,
    pyg_conv.ClusterGCNConv,
    pyg_conv.EdgeConv,
    pyg_conv.FeaStConv,
    pyg_conv.GATConv,
    pyg_conv.GATv2Conv,
    pyg_conv.GENConv,
    pyg_conv.GeneralConv,
    pyg_conv.GINConv,
    pyg_conv.GINEConv,
    pyg_conv.GMMConv,
    pyg_conv.GraphConv,
    pyg_conv.LEConv,
    pyg_conv.MFConv,
    pyg_conv.NNConv,
    pyg_conv.PNAConv,
    pyg_conv.ResGatedGraphConv,
    pyg_conv.SAGEConv,
    pyg_conv.SplineConv,
    pyg_conv.TransformerConv,
}


def is_one_hop(conv: nn.Module) -> bool:
    """Whether a node's incoming edges are all that a convolution needs: known for these of PyG."""
    return type(conv) in _ONE_HOP


def is_foreign(conv: nn.Module) -> bool:
    """Whether a convolution is none of PyG's: its user knows best."""
    return not type(conv).__module__.startswith("torch_geometric.")


class EdgeSlots(NamedTuple):
    """Every edge once for each expert of its destination, sorted by expert and destination.

    Attributes:
        edge: Which edge ``[S]``.
        pair: Which row of the plan it leads to ``[S]``, ascending.
    """

    edge: Tensor
    pair: Tensor


def edge_slots(destination: Tensor, plan: DispatchPlan) -> EdgeSlots:
    """Sort ``k * M`` edge–expert pairs; those of unused slots come last, with ``pair == P``."""
    pair = plan.inverse.view(plan.num_tokens, plan.k).index_select(0, destination).view(-1)
    pair, order = torch.sort(pair, stable=True)
    return EdgeSlots(order if plan.k == 1 else order.div(plan.k, rounding_mode="floor"), pair)


def run_pieces(experts: Sequence[nn.Module], given: GraphInput, plan: DispatchPlan) -> Tensor:
    """The embeddings of all node–expert pairs ``[P, F]``, in the order of ``plan``.

    Within a piece, an expert's own nodes are numbered first, among destinations as among sources:
    so self-loops mean what they mean on the whole graph, and a convolution that does not tell
    sources from destinations can run on the piece as it is.
    """
    given = given.with_plain_edges()
    source, target = given.endpoints()
    slots = edge_slots(target, plan)
    node_bounds = plan.offsets.tolist()
    edge_bounds = torch.searchsorted(slots.pair, plan.offsets).tolist()
    busy = [e for e in range(len(experts)) if node_bounds[e] < node_bounds[e + 1]]
    if not busy:
        busy = [0]  # no node at all: the width still has to come from an expert
    numbering = source.new_empty(given.source.size(0), dtype=torch.long)
    nodes, links = [], []
    for e in busy:
        own = plan.token[node_bounds[e] : node_bounds[e + 1]]
        edge = slice(edge_bounds[e], edge_bounds[e + 1])
        start = source.index_select(0, slots.edge[edge])
        others = source.new_zeros(given.source.size(0), dtype=torch.bool)
        others[start] = True
        if not given.is_pair:
            others[own] = False
        needed = others.nonzero().view(-1)
        nodes.append(needed if given.is_pair else torch.cat([own, needed]))
        numbering[nodes[-1]] = torch.arange(nodes[-1].numel(), device=source.device)
        links.append(torch.stack([numbering[start], slots.pair[edge] - node_bounds[e]]))
    # One gather for all experts: their gradients are then added up in one pass as well.
    sizes = [edges.size(1) for edges in links]
    used = slots.edge[edge_bounds[busy[0]] : edge_bounds[busy[0]] + sum(sizes)]
    weights, attrs = (
        [None] * len(busy) if value is None else value.index_select(0, used).split(sizes)
        for value in (given.edge_weight, given.edge_attr)
    )
    sources = given.source.index_select(0, torch.cat(nodes)).split([n.numel() for n in nodes])
    own_rows = [node_bounds[e + 1] - node_bounds[e] for e in busy]
    own_x: Sequence[Tensor | None] = [None] * len(busy)
    if given.is_pair and given.destination is not None:
        own_x = given.destination.index_select(0, plan.token[: sum(own_rows)]).split(own_rows)
    done = []
    for e, x, own, count, edges, weight, attr in zip(
        busy, sources, own_x, own_rows, links, weights, attrs, strict=True
    ):
        apart = given.flow == "source_to_target" and takes_pairs(experts[e])
        piece = GraphInput(
            (x, own if given.is_pair else x[:count]) if apart else x,
            edges if given.flow == "source_to_target" else edges.flip(0),
            weight,
            attr,
            (x.size(0), count) if apart else None,
            given.flow,
        )
        done.append(piece.call(experts[e])[:count])
    check_equal([y.size(-1) for y in done])
    unused = plan.token.numel() - sum(own_rows)
    return torch.cat([*done, done[0].new_zeros(unused, done[0].size(1))])


def check_equal(widths: Sequence[int]) -> None:
    """Refuse experts whose outputs cannot be added up."""
    if len(set(widths)) > 1:
        raise ValueError(f"experts are to have one output width, got {list(widths)}")
