"""Some of many graphs that stand one after the other, without a loop over graphs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from graphmoe.ops.compressed_rows import places_of_rows, row_pointers


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


def cut_graphs(ptr_nodes: Tensor, ptr_edges: Tensor, index: Tensor) -> GraphCut:
    """The graphs of ``index`` as one graph of separate parts, in that order.

    Args:
        ptr_nodes: Where the nodes of each graph begin, and their number ``[G + 1]``.
        ptr_edges: Where the edges of each graph begin, and their number ``[G + 1]``.
        index: Which graphs ``[B]``; one may be asked for more than once.
    """
    batch, nodes = places_of_rows(ptr_nodes, index)
    graph_of_edge, edges = places_of_rows(ptr_edges, index)
    ptr = row_pointers(batch, index.numel())
    return GraphCut(nodes, edges, ptr, batch, ptr[graph_of_edge])
