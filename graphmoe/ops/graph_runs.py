"""Some of many graphs that stand one after the other, without a loop over graphs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class GraphCut(NamedTuple):
    """Where the chosen graphs stand among all of them, and how they stand in a batch.

    Attributes:
        nodes: Their nodes, graph after graph ``[N']``.
        edges: Their edges, graph after graph ``[M']``.
        ptr: Where the nodes of each begin in the batch, and their number ``[B + 1]``.
        batch: Graph of each node in the batch, ascending ``[N']``.
        shift: What is added to an end of each edge, counted within its graph ``[M']``.
    """

    nodes: Tensor
    edges: Tensor
    ptr: Tensor
    batch: Tensor
    shift: Tensor


def pointers(counts: Tensor) -> Tensor:
    """Where each run begins, and the end of the last: the running sum of ``counts`` ``[G + 1]``."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def cut_graphs(ptr_nodes: Tensor, ptr_edges: Tensor, index: Tensor) -> GraphCut:
    """The graphs of ``index`` as one graph of separate parts, in that order.

    Args:
        ptr_nodes: Where the nodes of each graph begin, and their number ``[G + 1]``.
        ptr_edges: Where the edges of each graph begin, and their number ``[G + 1]``.
        index: Which graphs ``[B]``; one may be asked for more than once.
    """
    nodes, ptr, node_counts = _runs(ptr_nodes, index)
    edges, _, edge_counts = _runs(ptr_edges, index)
    order = torch.arange(index.numel(), device=index.device)
    return GraphCut(
        nodes,
        edges,
        ptr,
        torch.repeat_interleave(order, node_counts, output_size=nodes.numel()),
        torch.repeat_interleave(ptr[:-1], edge_counts, output_size=edges.numel()),
    )


def _runs(ptr: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the runs of ``index`` one after the other, their pointers and their lengths."""
    begins = ptr[index]
    counts = ptr[index + 1] - begins
    starts = pointers(counts)
    total = int(starts[-1])
    offsets = torch.repeat_interleave(begins - starts[:-1], counts, output_size=total)
    return torch.arange(total, device=ptr.device) + offsets, starts, counts
