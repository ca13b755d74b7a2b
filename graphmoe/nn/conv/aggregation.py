"""Sums and means of neighbours, as fast as the device allows, or as the convolution does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import is_sparse

from graphmoe.nn.conv.graph_input import edges as plain_edges
from graphmoe.ops.edge_products import edge_sum, sort_edges
from graphmoe.typing import Adj, OptTensor

#: Numbers in messages from which on they are better never made: 8 MB in float32.
_CACHED = 2**21

#: What a user may have hung into the convolution's own ``propagate``.
_HOOKS = (
    "_propagate_forward_pre_hooks",
    "_propagate_forward_hooks",
    "_message_forward_pre_hooks",
    "_message_forward_hooks",
    "_aggregate_forward_pre_hooks",
    "_aggregate_forward_hooks",
)


class Aggregation:
    """The aggregation of a convolution whose messages are weighted neighbours.

    On a CPU, gathering messages and scattering them again moves every message through memory
    several times. There, sums and means are one product with the sorted edges instead: three to
    four times as fast, and sorted once for all hops and for the gradients. Anything else (other
    aggregations, sparse adjacencies, explainers, hooks) goes through the convolution's own
    ``propagate``.

    Args:
        conv: Lends its settings.
        edge_index: Edges or a sparse adjacency.
        edge_weight: A factor for each edge, or ``None``.
        size: Numbers of sources and destinations.
        like: Rows of the width and type that will be aggregated.
    """

    def __init__(
        self,
        conv: Any,
        edge_index: Adj,
        edge_weight: OptTensor,
        size: tuple[int, int],
        like: Tensor,
    ) -> None:
        self.conv, self.edge_index = conv, edge_index
        self.sorted = None
        if not _pays(edge_index, edge_weight, like) or not _is_plain(conv, edge_weight, like.dtype):
            return
        ends, _ = plain_edges(edge_index)
        i, j = (1, 0) if conv.flow == "source_to_target" else (0, 1)
        self.sorted, order = sort_edges(ends[i], ends[j], size[1], size[0])
        if edge_weight is None:
            self.value = torch.ones(ends.size(1), dtype=like.dtype, device=ends.device)
        else:
            self.value = edge_weight.to(like.dtype).gather(0, order)

    def __call__(self, source: Tensor, /, **arguments: Any) -> Tensor:
        """Aggregate neighbours.

        Args:
            source: Rows of the sources ``[N, D]``.
            **arguments: How the convolution's own ``propagate`` is called.
        """
        if self.sorted is None:
            out: Tensor = self.conv.propagate(self.edge_index, **arguments)
            return out
        out = edge_sum(self.value, source, self.sorted)
        if self.conv.aggr == "mean":
            degree = self.sorted.start.diff().clamp(min=1)
            out = out / degree.to(out.dtype).unsqueeze(-1)
        return out


def _pays(edge_index: Adj, edge_weight: OptTensor, like: Tensor) -> bool:
    """Whether sorting is the faster way: messages that fit into a cache are moved for nothing."""
    if is_sparse(edge_index) or like.device.type != "cpu":
        return False
    if edge_weight is not None or torch.compiler.is_compiling():
        return True
    return edge_index.size(1) * like.size(1) >= _CACHED


def _is_plain(conv: Any, edge_weight: OptTensor, dtype: torch.dtype) -> bool:
    return (
        dtype in (torch.float32, torch.float64)
        and (edge_weight is None or edge_weight.dim() == 1)
        and conv.aggr in ("add", "sum", "mean")
        and not conv.explain
        and not any(getattr(conv, hooks) for hooks in _HOOKS)
    )
