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
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GATConv
from torch_geometric.utils import add_self_loops, softmax

from graphmoe.nn.conv import stacked
from graphmoe.nn.conv.graph_input import GraphInput
from graphmoe.nn.conv.seen_graphs import remembered
from graphmoe.ops import gather_tokens, segment_matmul
from graphmoe.ops.dispatch import DispatchPlan, is_plain_cpu
from graphmoe.ops.edge_products import Edges, edge_sum, sort_edges
from graphmoe.typing import OptTensor

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
        and all(_fill(conv) == _fill(first) is not None for conv in experts)
        and first.aggr in ("add", "sum")
        and all((conv.bias is None) == (first.bias is None) for conv in experts)
        and given.source.dtype in (torch.float32, torch.float64)
        and given.source.size(1) <= _WIDEST * first.out_channels
    )


def _fill(conv: Any) -> str | None:
    """What distinguishes the features of self-loops; ``None`` where looking is not free."""
    fill = conv.fill_value
    return None if isinstance(fill, Tensor) and not is_plain_cpu(fill) else str(fill)


def attend(experts: Sequence[Any], given: GraphInput, plan: DispatchPlan) -> Tensor:
    """The embeddings of all node–expert pairs ``[P, F]``, in the order of ``plan``.

    Nothing is read back from the device: of an edge and a slot of its destination there is one for
    each of the :math:`M k` combinations, whoever was chosen.
    """
    conv, given = experts[0], given.with_plain_edges()
    graph = _with_loops(conv, given)
    edges, edge = _expert_edges(graph.edges, plan)
    alpha = _attention(experts, given, graph, plan, edges, edge)
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


class _Graph(NamedTuple):
    """The edges of a graph, sorted, with self-loops as GATConv adds them.

    Attributes:
        edges: First those given ``[M]``, then one loop a node, all sorted.
        place: Which of them each was before.
        replaced: Loops that were given, which the others stand for; ``None`` if there are none.
        loops: How many were added.
    """

    edges: Edges
    place: Tensor
    replaced: OptTensor
    loops: int


def _with_loops(conv: Any, given: GraphInput) -> _Graph:
    """Sorted once for a graph. Loops that were given stay, to be ignored: no number is asked for"""
    sizes = (given.num_nodes, given.source.size(0))
    loops = min(sizes) if conv.add_self_loops else 0

    def make() -> _Graph:
        source, target = given.endpoints()
        node, replaced = torch.arange(loops, device=source.device), None
        edges, place = sort_edges(torch.cat([target, node]), torch.cat([source, node]), *sizes)
        if loops > 0:
            replaced = F.pad(source == target, (0, loops)).index_select(0, place)
            if is_plain_cpu(replaced) and not replaced.any():
                replaced = None
        return _Graph(edges, place, replaced, loops)

    assert isinstance(given.edge_index, Tensor)
    return remembered(given.edge_index, ("attention", sizes, loops, given.flow), make)


def _expert_edges(edges: Edges, plan: DispatchPlan) -> tuple[Edges, Tensor]:
    """Every edge once for each expert of its destination, and which edge each of them is.

    A pair's edges are those of its node, which lie side by side: counting is enough, both to go
    from edges sorted by destination to edges sorted by pair, and for those sorted by source.
    """
    pairs, slots = plan.token.size(0), plan.num_tokens * plan.k
    degree = edges.start.diff().index_select(0, plan.token)
    start = F.pad(degree.cumsum(0), (1, 0))
    # Only on a CPU unused pairs were cut off, and there it is free to ask how many edges are left.
    total = edges.row.size(0) * plan.k if pairs == slots else int(start[-1])
    pair = torch.arange(pairs, device=degree.device)
    row = pair.repeat_interleave(degree, output_size=total)
    shift = edges.start.index_select(0, plan.token) - start.narrow(0, 0, pairs)
    edge = torch.arange(total, device=degree.device) + shift.index_select(0, row)
    col = edges.col.index_select(0, edge)
    if edges.start_by_col.size(0) == 0:  # nothing is to be differentiated
        return edges._replace(row=row, col=col, start=start), edge
    inverse = plan.inverse
    if not plan.complete and pairs == slots:  # unused pairs are there, and have edges
        inverse = torch.empty_like(plan.order).scatter_(0, plan.order, pair)
    nth = edges.by_col - edges.start.index_select(0, edges.row_by_col)
    row_by_col = inverse.view(-1, plan.k).index_select(0, edges.row_by_col)
    by_col = start.index_select(0, row_by_col.view(-1)).view_as(row_by_col) + nth.unsqueeze(1)
    start_by_col = edges.start_by_col * plan.k
    row_by_col, by_col = row_by_col.view(-1), by_col.view(-1)
    if pairs < slots:
        used = row_by_col < pairs
        start_by_col = F.pad(used.cumsum(0), (1, 0)).index_select(0, start_by_col)
        row_by_col, by_col = row_by_col[used], by_col[used]
    return Edges(row, col, start, by_col, row_by_col, start_by_col), edge


def _edge_features(conv: Any, given: GraphInput, graph: _Graph) -> Tensor:
    """Features of the given edges and of the loops that were added."""
    attr, edge_index = given.edge_attr, given.edge_index
    assert attr is not None
    if graph.loops == 0:
        return attr
    # Loops that were given are no part of what is filled in: they go to a node that is none.
    nobody = given.num_nodes
    ends = edge_index[1].masked_fill(edge_index[0] == edge_index[1], nobody)
    _, filled = add_self_loops(
        torch.stack([ends, ends]), attr, fill_value=conv.fill_value, num_nodes=nobody + 1
    )
    return filled.narrow(0, 0, attr.size(0) + graph.loops)


def _attention(
    experts: Sequence[Any],
    given: GraphInput,
    graph: _Graph,
    plan: DispatchPlan,
    edges: Edges,
    edge: Tensor,
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
        attr = _edge_features(conv, given, graph).unsqueeze(-1).flatten(1)
        attr = attr.index_select(0, graph.place.index_select(0, edge))
        key = _keys([c.lin_edge for c in experts], [c.att_edge for c in experts])
        score = score + segment_matmul(attr, key.mT, edges.start[plan.offsets])
    score = F.leaky_relu(score, conv.negative_slope)
    if graph.replaced is not None:
        replaced = graph.replaced.index_select(0, edge)
        score = score.masked_fill(replaced.unsqueeze(1), -torch.inf)
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
