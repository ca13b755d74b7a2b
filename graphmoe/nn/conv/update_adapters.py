"""The convolutions of PyG that aggregate before anything of their own touches the features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, GINConv, GINEConv, GraphConv, SAGEConv, SGConv, TAGConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from graphmoe.nn.conv import stacked
from graphmoe.nn.conv.adapters import UpdateAdapter, update_adapter
from graphmoe.nn.conv.aggregation import Aggregation
from graphmoe.nn.conv.graph_input import GraphInput
from graphmoe.ops import segment_matmul
from graphmoe.typing import Adj, OptTensor


def _single(conv: Any, given: GraphInput) -> Tensor:
    if given.is_pair:
        raise ValueError(
            f"{type(conv).__name__} does not support bipartite message passing: expected one "
            f"tensor x, got a pair; SAGEConv and GraphConv take pairs"
        )
    return given.source


def _normalize(
    conv: Any, given: GraphInput, add_self_loops: bool, improved: bool = False
) -> tuple[Adj, OptTensor]:
    """The symmetrically normalised graph, as the convolution itself would make it."""
    x = given.source
    found = gcn_norm(
        given.edge_index, given.edge_weight, x.size(0), improved, add_self_loops, conv.flow, x.dtype
    )
    return found if isinstance(found, tuple) else (found, None)


def _hop(
    conv: Any, edge_index: Adj, edge_weight: OptTensor, x: Tensor
) -> Callable[[Tensor], Tensor]:
    size = (x.size(0), x.size(0))
    aggregation = Aggregation(conv, edge_index, edge_weight, size, x)
    return lambda x: aggregation(x, x=x, edge_weight=edge_weight)


def _neighbours(conv: Any, given: GraphInput, **weight: OptTensor) -> tuple[Tensor, ...]:
    """Aggregated neighbours and, if it has features, the node itself."""
    pair = given.pair()
    size = (pair[0].size(0), given.num_nodes)
    aggregation = Aggregation(conv, given.edge_index, weight.get("edge_weight"), size, pair[0])
    out = aggregation(pair[0], x=pair, size=given.size, **weight)
    return (out,) if pair[1] is None else (out, pair[1])


def _bias(experts: Sequence[Any]) -> OptTensor:
    return stacked.stack([conv.bias for conv in experts])


@update_adapter(GCNConv)
class GCNAdapter(UpdateAdapter):
    r"""Normalise and propagate once: :math:`\hat{A} (X W_e) = (\hat{A} X) W_e`."""

    settings = ("aggr", "flow", "improved", "add_self_loops", "normalize", "cached")

    def aggregate(self, conv: Any, given: GraphInput) -> tuple[Tensor, ...]:
        """Propagated features."""
        x = _single(conv, given)
        edge_index, edge_weight = given.edge_index, given.edge_weight
        if conv.normalize:
            graph = conv._cached_edge_index
            if graph is None:
                graph = _normalize(conv, given, conv.add_self_loops, conv.improved)
                if conv.cached:  # kept where the convolution itself keeps it
                    conv._cached_edge_index = graph
            edge_index, edge_weight = graph
        return (_hop(conv, edge_index, edge_weight, x)(x),)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """One linear map."""
        weight = torch.stack([conv.lin.weight for conv in experts]).mT
        return segment_matmul(rows[0], weight, offsets, _bias(experts))


@update_adapter(SGConv)
class SGAdapter(UpdateAdapter):
    r"""All :math:`K` hops once."""

    settings = ("aggr", "flow", "K", "cached", "add_self_loops")

    def aggregate(self, conv: Any, given: GraphInput) -> tuple[Tensor, ...]:
        """Features propagated :math:`K` times."""
        x = _single(conv, given)
        if conv._cached_x is not None:
            return (conv._cached_x.detach(),)
        edge_index, edge_weight = _normalize(conv, given, conv.add_self_loops)
        hop = _hop(conv, edge_index, edge_weight, x)
        for _ in range(conv.K):
            x = hop(x)
        if conv.cached:
            conv._cached_x = x
        return (x,)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """One linear map."""
        return stacked.linear([conv.lin for conv in experts], rows[0], offsets)


@update_adapter(TAGConv)
class TAGAdapter(UpdateAdapter):
    """Every hop once; each has a linear map of its own."""

    settings = ("aggr", "flow", "K", "normalize")

    def aggregate(self, conv: Any, given: GraphInput) -> tuple[Tensor, ...]:
        r"""Features after each of :math:`0 \ldots K` hops."""
        hops = [_single(conv, given)]
        edge_index, edge_weight = given.edge_index, given.edge_weight
        if conv.normalize:
            edge_index, edge_weight = _normalize(conv, given, add_self_loops=False)
        hop = _hop(conv, edge_index, edge_weight, hops[0])
        for _ in range(conv.K):
            hops.append(hop(hops[-1]))
        return tuple(hops)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """The sum of the hops' linear maps."""
        weights = [
            torch.stack([conv.lins[hop].weight for conv in experts]).mT for hop in range(len(rows))
        ]
        out = segment_matmul(rows[0], weights[0], offsets, _bias(experts))
        for hop, weight in zip(rows[1:], weights[1:], strict=True):
            out = out + segment_matmul(hop, weight, offsets)
        return out


@update_adapter(SAGEConv)
class SAGEAdapter(UpdateAdapter):
    """Any aggregation without parameters once; two linear maps, for neighbours and for the root."""

    settings = ("aggr", "flow", "normalize", "root_weight", "project")

    def refusal(self, experts: Sequence[nn.Module]) -> str | None:
        """Projecting neighbours first is each expert's own affair."""
        if any(conv.project for conv in experts):
            return "project=True transforms neighbours before they are aggregated"
        return super().refusal(experts)

    def aggregate(self, conv: Any, given: GraphInput) -> tuple[Tensor, ...]:
        """Aggregated neighbours, and the root."""
        out, *root = _neighbours(conv, given)
        return (out, *root) if conv.root_weight else (out,)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """Two linear maps, and the norm if asked for."""
        out = stacked.linear([conv.lin_l for conv in experts], rows[0], offsets)
        if len(rows) > 1:
            out = out + stacked.linear([conv.lin_r for conv in experts], rows[1], offsets)
        return F.normalize(out, p=2.0, dim=-1) if experts[0].normalize else out


@update_adapter(GraphConv)
class GraphConvAdapter(UpdateAdapter):
    """As :class:`SAGEAdapter`, with edge weights."""

    def aggregate(self, conv: Any, given: GraphInput) -> tuple[Tensor, ...]:
        """Aggregated neighbours, and the root."""
        return _neighbours(conv, given, edge_weight=given.edge_weight)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """Two linear maps."""
        out = stacked.linear([conv.lin_rel for conv in experts], rows[0], offsets)
        if len(rows) > 1:
            out = out + stacked.linear([conv.lin_root for conv in experts], rows[1], offsets)
        return out


@update_adapter(GINConv)
class GINAdapter(UpdateAdapter):
    r"""The sum over neighbours once; each expert has its :math:`\epsilon` and its network."""

    def traceable(self, experts: Sequence[nn.Module]) -> bool:
        """If the networks are made of layers that can be stacked."""
        return stacked.stackable([conv.nn for conv in experts])

    def aggregate(self, conv: Any, given: GraphInput) -> tuple[Tensor, ...]:
        """Aggregated neighbours, and the root."""
        return _neighbours(conv, given)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """The networks, stacked where they can be."""
        out = rows[0]
        if len(rows) > 1:
            expert = stacked.row_expert(offsets, out.size(0))
            eps = stacked.per_row([conv.eps for conv in experts], expert)
            out = out + (1 + eps) * rows[1]
        return stacked.apply([conv.nn for conv in experts], out, offsets)


@update_adapter(GINEConv)
class GINEAdapter(GINAdapter):
    """As :class:`GINAdapter`, while edge features are added as they are."""

    def refusal(self, experts: Sequence[nn.Module]) -> str | None:
        """A linear map of the edge features is each expert's own affair."""
        if any(conv.lin is not None for conv in experts):
            return "edge_dim gives each expert a linear map of the edge features"
        return super().refusal(experts)

    def aggregate(self, conv: Any, given: GraphInput) -> tuple[Tensor, ...]:
        """Aggregated neighbours, and the root."""
        pair = given.pair()
        out = conv.propagate(given.edge_index, x=pair, edge_attr=given.edge_attr, size=given.size)
        return (out,) if pair[1] is None else (out, pair[1])
