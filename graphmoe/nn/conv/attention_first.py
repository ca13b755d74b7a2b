r"""Graph attention of several experts without transforming every source by every expert.

The sum over neighbours and the linear map of GATConv change places,

.. math::
    \sum_j \alpha_{ij} W_e \mathbf{x}_j = W_e \sum_j \alpha_{ij} \mathbf{x}_j, \qquad
    \mathbf{a}_e^\top W_e \mathbf{x}_j = (W_e^\top \mathbf{a}_e)^\top \mathbf{x}_j,

so that nodes are transformed after they have chosen, and what attention needs of the sources is one
number a head and expert. The price: each head sums rows of the input's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GATConv
from torch_geometric.utils import add_self_loops, remove_self_loops, softmax

from graphmoe.nn.conv import stacked
from graphmoe.nn.conv.graph_input import GraphInput
from graphmoe.ops import gather_tokens, segment_matmul
from graphmoe.ops.dispatch import DispatchPlan
from graphmoe.ops.edge_products import Edges, edge_sum, sort_edges

#: Up to so many times the width of a head, rows of the input are summed faster than all sources
#: are transformed by every expert: measured with 8 experts and 12 edges a node.
_WIDEST = 8

_SETTINGS = (
    "heads",
    "out_channels",
    "concat",
    "negative_slope",
    "dropout",
    "add_self_loops",
    "edge_dim",
    "residual",
    "flow",
    "aggr",
)


def suits(experts: Sequence[Any], given: GraphInput) -> bool:
    """Whether these experts can, and should, be run by :func:`attend`."""
    first = experts[0]
    return (
        all(type(conv) is GATConv for conv in experts)
        and all(
            getattr(conv, name) == getattr(first, name) for conv in experts for name in _SETTINGS
        )
        and str(first.fill_value) == str(experts[-1].fill_value)
        and first.aggr in ("add", "sum")
        and all((conv.bias is None) == (first.bias is None) for conv in experts)
        and given.source.dtype in (torch.float32, torch.float64)
        and given.source.size(1) <= _WIDEST * first.out_channels
    )


def attend(experts: Sequence[Any], given: GraphInput, plan: DispatchPlan) -> Tensor:
    """The embeddings of all node–expert pairs ``[P, F]``, in the order of ``plan``."""
    conv, given = experts[0], _with_loops(experts[0], given.with_plain_edges())
    edges, edge = _expert_edges(given, plan)
    alpha = _attention(experts, given, plan, edges, edge)
    heads = [edge_sum(a, given.source, edges) for a in alpha.t().contiguous()]
    # [E, heads, C, D], as the convolutions keep them
    weight = _stack([_source_map(c).weight for c in experts], conv.heads)
    bias = stacked.stack([c.bias for c in experts])
    if conv.concat:
        biases = [None] * conv.heads if bias is None else bias.chunk(conv.heads, dim=1)
        parts = [
            segment_matmul(z, weight[:, h].mT, plan.offsets, biases[h]) for h, z in enumerate(heads)
        ]
        out = parts[0] if conv.heads == 1 else torch.cat(parts, dim=1)
    else:  # the mean over heads is one product as well
        wide = weight.permute(0, 1, 3, 2).flatten(1, 2) / conv.heads
        out = segment_matmul(torch.cat(heads, dim=1), wide, plan.offsets, bias)
    if conv.res is not None and given.destination is not None:
        own = gather_tokens(given.destination, plan)
        out = out + stacked.linear([c.res for c in experts], own, plan.offsets)
    return out


def _with_loops(conv: Any, given: GraphInput) -> GraphInput:
    """Self-loops as GATConv adds them, on the whole graph."""
    if not conv.add_self_loops:
        return given
    count = min(given.source.size(0), given.num_nodes)
    edge_index, attr = remove_self_loops(given.edge_index, given.edge_attr)
    edge_index, attr = add_self_loops(edge_index, attr, fill_value=conv.fill_value, num_nodes=count)
    return given._replace(edge_index=edge_index, edge_attr=attr)


def _expert_edges(given: GraphInput, plan: DispatchPlan) -> tuple[Edges, Tensor]:
    """Every edge once for each expert of its destination, and which edge each of them is."""
    source, target = given.endpoints()
    pair = plan.inverse.view(plan.num_tokens, plan.k).index_select(0, target).view(-1)
    edge = torch.arange(source.size(0), device=source.device).repeat_interleave(plan.k)
    if not plan.complete:
        used = pair < plan.token.size(0)
        pair, edge = pair[used], edge[used]
    sizes = (plan.token.size(0), given.source.size(0))
    edges, order = sort_edges(pair, source.index_select(0, edge), *sizes)
    return edges, edge.index_select(0, order)


def _attention(
    experts: Sequence[Any], given: GraphInput, plan: DispatchPlan, edges: Edges, edge: Tensor
) -> Tensor:
    """Attention of each head ``[S, heads]`` over the expert edges."""
    conv, num_experts = experts[0], len(experts)
    expert = stacked.row_expert(plan.offsets, plan.token.size(0))
    own_expert = expert.index_select(0, edges.row)
    score = _pick(
        _scores(given.source, [_source_map(c) for c in experts], [c.att_src for c in experts]),
        edges.col * num_experts + own_expert,
        conv.heads,
    )
    if given.destination is not None:
        maps = [conv.lin if conv.lin is not None else conv.lin_dst for conv in experts]
        own = _scores(given.destination, maps, [c.att_dst for c in experts])
        own = _pick(own, plan.token * num_experts + expert, conv.heads)
        score = score + _pick(own, edges.row, conv.heads)
    if given.edge_attr is not None and conv.lin_edge is not None:
        attr = given.edge_attr.unsqueeze(-1).flatten(1).index_select(0, edge)
        key = _keys([c.lin_edge for c in experts], [c.att_edge for c in experts])
        score = score + segment_matmul(attr, key.mT, edges.start[plan.offsets])
    score = F.leaky_relu(score, conv.negative_slope)
    alpha = softmax(score, edges.row, num_nodes=plan.token.size(0))
    return F.dropout(alpha, p=conv.dropout, training=conv.training)


def _source_map(conv: Any) -> Any:
    return conv.lin if conv.lin is not None else conv.lin_src


def _stack(weights: Sequence[Tensor], heads: int) -> Tensor:
    stack = torch.stack(list(weights))
    return stack.view(stack.size(0), heads, -1, stack.size(2))


def _keys(maps: Sequence[Any], attention: Sequence[Tensor]) -> Tensor:
    r""":math:`W_e^\top \mathbf{a}_e` of each head ``[E, heads, D]``."""
    vectors = torch.cat(list(attention))
    weight = _stack([lin.weight for lin in maps], vectors.size(1))
    return (vectors.unsqueeze(2) @ weight).squeeze(2)


def _scores(x: Tensor, maps: Sequence[Any], attention: Sequence[Tensor]) -> Tensor:
    """What each node says to each expert and head ``[N * E * heads]``."""
    return (x @ _keys(maps, attention).flatten(0, 1).t()).view(-1)


def _pick(flat: Tensor, row: Tensor, heads: int) -> Tensor:
    """Rows of ``[*, heads]``; from the flat array, whose gradient is one fast addition."""
    flat = flat.reshape(-1)
    if heads == 1:
        return flat.gather(0, row).unsqueeze(1)
    index = row.unsqueeze(1) * heads + torch.arange(heads, device=row.device)
    return flat.gather(0, index.view(-1)).view(-1, heads)
