"""Sums and means of neighbours, as fast as the device allows, or as the convolution does it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import OptPairTensor
from torch_geometric.utils import is_sparse

from graphmoe.nn.conv.graph_input import argument_names
from graphmoe.nn.conv.graph_input import edges as plain_edges
from graphmoe.nn.conv.seen_graphs import remembered
from graphmoe.ops.edge_products import Edges, edge_sum, sort_edges
from graphmoe.typing import Adj, OptTensor

#: What a user may have hung into the convolution's own ``propagate``.
_HOOKS = (
    "_propagate_forward_pre_hooks",
    "_propagate_forward_hooks",
    "_message_forward_pre_hooks",
    "_message_forward_hooks",
    "_aggregate_forward_pre_hooks",
    "_aggregate_forward_hooks",
)

#: As many numbers as leave room for more in the half of a megabyte that is next to a processor.
_IN_CACHE = 2**17


class Aggregation:
    """The aggregation of a convolution whose messages are weighted neighbours.

    On a CPU, gathering messages and scattering them again moves every message through memory
    several times. There, sums and means are one product with the sorted edges instead: three to
    four times as fast, and sorted once for all hops, for the gradients and for later calls.
    Anything else (other aggregations, sparse adjacencies, explainers, hooks) goes through the
    convolution's own ``propagate``.

    Args:
        conv: Lends its settings.
        edge_index: Edges or a sparse adjacency.
        edge_weight: A factor for each edge, or ``None``.
        size: Numbers of sources and destinations.
        dtype: Type of what will be aggregated.
        normalize: Makes the edges and weights to use from those given. (default: as given)
        settings: What ``normalize`` depends on besides.
    """

    def __init__(
        self,
        conv: Any,
        edge_index: Adj,
        edge_weight: OptTensor,
        size: tuple[int, int],
        dtype: torch.dtype,
        normalize: Callable[[], tuple[Adj, OptTensor]] | None = None,
        settings: Hashable = None,
    ) -> None:
        self.conv, self.size, self.dtype = conv, size, dtype
        self.edge_index, self.edge_weight = edge_index, edge_weight
        self.sorted: Edges | None = None
        if not is_plain(conv, edge_index, edge_weight, dtype):
            if normalize is not None:
                self.edge_index, self.edge_weight = normalize()
            return
        key = (size, conv.flow, conv.aggr, dtype, settings, edge_weight is None)
        if edge_weight is None:
            self.sorted, self.value = remembered(
                edge_index, key, lambda: self._weigh(normalize or (lambda: (edge_index, None)))
            )
        elif normalize is None:
            self.sorted, order = remembered(edge_index, key, lambda: self._sort(edge_index))
            self.value = self._mean(edge_weight.to(dtype).gather(0, order), self.sorted)
        else:
            self.sorted, self.value = self._weigh(normalize)

    def _sort(self, edge_index: Adj) -> tuple[Edges, Tensor]:
        ends, _ = plain_edges(edge_index)
        i, j = (1, 0) if self.conv.flow == "source_to_target" else (0, 1)
        return sort_edges(ends[i], ends[j], self.size[1], self.size[0])

    def _weigh(self, normalize: Callable[[], tuple[Adj, OptTensor]]) -> tuple[Edges, Tensor]:
        edge_index, weight = normalize()
        edges, order = self._sort(edge_index)
        if weight is None:
            value = torch.ones(order.size(0), dtype=self.dtype, device=order.device)
        else:
            value = weight.to(self.dtype).gather(0, order)
        return edges, self._mean(value, edges)

    def _mean(self, value: Tensor, edges: Edges) -> Tensor:
        """For a mean, divide the few weights of a row, not its many features."""
        if self.conv.aggr != "mean":
            return value
        return value / edges.start.diff().to(value.dtype).gather(0, edges.row)

    def __call__(self, source: Tensor, pair: OptPairTensor | None = None) -> Tensor:
        """Aggregate neighbours.

        Args:
            source: Rows of the sources ``[N, D]``.
            pair: What the convolution's own ``propagate`` is given in their place.
        """
        if self.sorted is None:
            weight = {}
            if "edge_weight" in argument_names(self.conv):
                weight["edge_weight"] = self.edge_weight
            size = None if pair is None else self.size
            x = source if pair is None else pair
            out: Tensor = self.conv.propagate(self.edge_index, x=x, size=size, **weight)
            return out
        return edge_sum(self.value, source, self.sorted)


def sum_of_relu(x: Tensor, edge_attr: Tensor, source: Tensor, target: Tensor, size: int) -> Tensor:
    r"""GINE's :math:`\sum_j \mathrm{ReLU}(\mathbf{x}_j + \mathbf{e}_{ij})`, without gradients.

    Messages are made and added up a few at a time: they stay in the cache of the processor, and no
    array as large as the edge features is ever written.
    """
    out = x.new_zeros(size, x.size(1))
    few = max(1, _IN_CACHE // max(1, x.size(1)))
    for j, i, attr in zip(source.split(few), target.split(few), edge_attr.split(few), strict=True):
        out.index_add_(0, i, x.index_select(0, j).add_(attr).relu_())
    return out


def is_plain(conv: Any, edge_index: Adj, edge_weight: OptTensor, dtype: torch.dtype) -> bool:
    """Whether sums or means over plain edges on a CPU are all there is to ``propagate``."""
    return (
        not is_sparse(edge_index)
        and edge_index.device.type == "cpu"
        and dtype in (torch.float32, torch.float64)
        and (edge_weight is None or edge_weight.dim() == 1)
        and conv.aggr in ("add", "sum", "mean")
        and not conv.explain
        and not any(getattr(conv, hooks) for hooks in _HOOKS)
    )
