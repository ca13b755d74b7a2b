"""The convolutions of PyG that aggregate before anything of their own touches the features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, GINConv, GINEConv, GraphConv, SAGEConv, SGConv, TAGConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from graphmoe.nn.conv import stacked
from graphmoe.nn.conv.adapters import UpdateAdapter, update_adapter
from graphmoe.nn.conv.aggregation import Aggregation, is_plain, sum_of_relu
from graphmoe.nn.conv.graph_input import GraphInput
from graphmoe.nn.conv.in_turn import may_take_turns
from graphmoe.nn.routers.base import eager_cpu
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
    x = given.source
    found = gcn_norm(
        given.edge_index, given.edge_weight, x.size(0), improved, add_self_loops, conv.flow, x.dtype
    )
    return found if isinstance(found, tuple) else (found, None)


def _hops(
    conv: Any, given: GraphInput, add_self_loops: bool, improved: bool = False
) -> Aggregation:
    """Propagation over the symmetrically normalised graph, as the convolution would make it."""
    x, settings = given.source, ("normalized", improved, add_self_loops)
    return Aggregation(
        conv,
        given.edge_index,
        given.edge_weight,
        (x.size(0), x.size(0)),
        x.dtype,
        lambda: _normalize(conv, given, add_self_loops, improved),
        settings,
    )


def _plain(conv: Any, given: GraphInput) -> Aggregation:
    size = (given.source.size(0), given.num_nodes)
    return Aggregation(conv, given.edge_index, given.edge_weight, size, given.source.dtype)


def _neighbours(conv: Any, given: GraphInput) -> tuple[Tensor, ...]:
    """Aggregated neighbours and, if it has features, the node itself."""
    pair = given.pair()
    out = _plain(conv, given)(pair[0], pair)
    return (out,) if pair[1] is None else (out, pair[1])


def _with_equal_eps(experts: Sequence[Any], parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    r"""Add :math:`(1 + \epsilon) x` here, once, if :math:`\epsilon` is one constant for all.

    Only where values may be looked at for free; elsewhere each row looks up its expert's.
    """
    if len(parts) == 1 or any(conv.eps.requires_grad for conv in experts):
        return parts
    if not eager_cpu(parts[0]) or any(conv.eps.item() != experts[0].eps.item() for conv in experts):
        return parts
    out, root = parts
    return (torch.add(out, root, alpha=1 + experts[0].eps.item()),)


@update_adapter(GCNConv)
class GCNAdapter(UpdateAdapter):
    r"""Normalise and propagate once: :math:`\hat{A} (X W_e) = (\hat{A} X) W_e`."""

    settings = ("aggr", "flow", "improved", "add_self_loops", "normalize", "cached")

    def aggregate(self, experts: Sequence[Any], given: GraphInput) -> tuple[Tensor, ...]:
        """Propagated features."""
        conv = experts[0]
        x = _single(conv, given)
        if not conv.normalize:
            return (_plain(conv, given)(x),)
        if conv.cached:  # the graph is kept where the convolution itself keeps it
            if conv._cached_edge_index is None:
                conv._cached_edge_index = _normalize(
                    conv, given, conv.add_self_loops, conv.improved
                )
            edge_index, edge_weight = conv._cached_edge_index
            return (conv.propagate(edge_index, x=x, edge_weight=edge_weight),)
        return (_hops(conv, given, conv.add_self_loops, conv.improved)(x),)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """One linear map."""
        lins = [conv.lin for conv in experts]
        return stacked.linear(lins, rows[0], offsets, biases=[conv.bias for conv in experts])


@update_adapter(SGConv)
class SGAdapter(UpdateAdapter):
    r"""All :math:`K` hops once."""

    settings = ("aggr", "flow", "K", "cached", "add_self_loops")

    def aggregate(self, experts: Sequence[Any], given: GraphInput) -> tuple[Tensor, ...]:
        """Features propagated :math:`K` times."""
        conv = experts[0]
        x = _single(conv, given)
        if conv._cached_x is not None:
            return (conv._cached_x.detach(),)
        hop = _hops(conv, given, conv.add_self_loops)
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

    def aggregate(self, experts: Sequence[Any], given: GraphInput) -> tuple[Tensor, ...]:
        r"""Features after each of :math:`0 \ldots K` hops."""
        conv = experts[0]
        hops = [_single(conv, given)]
        hop = _hops(conv, given, False) if conv.normalize else _plain(conv, given)
        for _ in range(conv.K):
            hops.append(hop(hops[-1]))
        return tuple(hops)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """The sum of the hops' linear maps."""
        first, *others = ([conv.lins[hop] for conv in experts] for hop in range(len(rows)))
        out = stacked.linear(first, rows[0], offsets, biases=[conv.bias for conv in experts])
        for lins, hop in zip(others, rows[1:], strict=True):
            stacked.linear(lins, hop, offsets, onto=out)
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

    def aggregate(self, experts: Sequence[Any], given: GraphInput) -> tuple[Tensor, ...]:
        """Aggregated neighbours, and the root."""
        out, *root = _neighbours(experts[0], given)
        return (out, *root) if experts[0].root_weight else (out,)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """Two linear maps, and the norm if asked for."""
        out = stacked.linear([conv.lin_l for conv in experts], rows[0], offsets)
        if len(rows) > 1:
            stacked.linear([conv.lin_r for conv in experts], rows[1], offsets, onto=out)
        return F.normalize(out, p=2.0, dim=-1) if experts[0].normalize else out


@update_adapter(GraphConv)
class GraphConvAdapter(UpdateAdapter):
    """As :class:`SAGEAdapter`, with edge weights."""

    def aggregate(self, experts: Sequence[Any], given: GraphInput) -> tuple[Tensor, ...]:
        """Aggregated neighbours, and the root."""
        return _neighbours(experts[0], given)

    def update(self, experts: Sequence[Any], rows: tuple[Tensor, ...], offsets: Tensor) -> Tensor:
        """Two linear maps."""
        out = stacked.linear([conv.lin_rel for conv in experts], rows[0], offsets)
        if len(rows) > 1:
            stacked.linear([conv.lin_root for conv in experts], rows[1], offsets, onto=out)
        return out


@update_adapter(GINConv)
class GINAdapter(UpdateAdapter):
    r"""The sum over neighbours once; each expert has its :math:`\epsilon` and its network."""

    def traceable(self, experts: Sequence[nn.Module]) -> bool:
        """If the networks are made of layers that can be stacked."""
        return stacked.stackable([conv.nn for conv in experts])

    def aggregate(self, experts: Sequence[Any], given: GraphInput) -> tuple[Tensor, ...]:
        """Aggregated neighbours, and the root: added up already if all would do it alike."""
        return _with_equal_eps(experts, _neighbours(experts[0], given))

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

    def aggregate(self, experts: Sequence[Any], given: GraphInput) -> tuple[Tensor, ...]:
        """Aggregated neighbours, and the root."""
        pair, conv, attr = given.pair(), experts[0], given.edge_attr
        if _in_blocks(conv, given):
            out = sum_of_relu(given.source, attr, *given.endpoints(), given.num_nodes)
        else:
            out = conv.propagate(given.edge_index, x=pair, edge_attr=attr, size=given.size)
        return _with_equal_eps(experts, (out,) if pair[1] is None else (out, pair[1]))


def _in_blocks(conv: Any, given: GraphInput) -> bool:
    x, attr = given.source, given.edge_attr
    return (
        may_take_turns(x)
        and is_plain(conv, given.edge_index, None, x.dtype)
        and conv.aggr != "mean"
        and attr is not None
        and attr.dtype == x.dtype
        and attr.shape == (given.edge_index.size(1), x.size(1))
    )
