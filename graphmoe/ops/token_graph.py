"""Token graphs: which tokens may look at which, before anything is learned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import is_sparse, to_edge_index

from graphmoe.ops.edge_products import Edges, sort_edges
from graphmoe.typing import Adj, OptTensor


class TokenGraph(NamedTuple):
    """A sparse token graph. That every token looks at itself goes without an edge.

    Attributes:
        edges: Row: the token that looks; column: the one it looks at.
        drop: Edges that do not count ``[M]``, bool: repeated ones and self-loops. How many remain
            is not known while tracing, so they are marked and not cut out.
    """

    edges: Edges
    drop: Tensor


def input_graph(
    edge_index: Adj, num_sources: int, num_targets: int | None = None, causal: bool = False
) -> TokenGraph:
    """The edges of a graph as a token graph: tokens look against the direction of edges.

    An edge counts once however often it is named; self-loops are dropped, being implied.

    Args:
        edge_index: ``[2, M]`` of any integer type, an ``EdgeIndex``, or a sparse adjacency in
            PyG's transposed form (targets by sources).
        num_sources: Tokens that edges start from.
        num_targets: Tokens that edges end in, when they are others (a bipartite graph).
        causal: Drop edges from later tokens.

    Raises:
        ValueError: The graph is of another size, or no graph.
    """
    source, target = edge_list(edge_index, num_sources, num_targets)
    return _token_graph(target, source, num_targets, num_sources, causal)


def _token_graph(
    row: Tensor, col: Tensor, num_rows: int | None, num_cols: int, causal: bool = False
) -> TokenGraph:
    same = num_rows is None
    edges, _ = sort_edges(row, col, num_cols if num_rows is None else num_rows, num_cols)
    row, col = edges.row, edges.col
    before = row.new_full((1,), -1)
    drop = (row.diff(prepend=before) == 0) & (col.diff(prepend=before) == 0)
    if same:
        drop = drop | (col >= row if causal else col == row)
    return TokenGraph(edges, drop)


def edge_list(
    edge_index: Adj, num_sources: int, num_targets: int | None = None
) -> tuple[Tensor, Tensor]:
    """Sources and targets of all edges ``[M]``, int64, in the order that they are given.

    Raises:
        ValueError: An adjacency is of another size, or this is no graph. (Whether edges are in
            range is for :func:`~graphmoe.ops.edge_products.sort_edges` to say.)
    """
    size = (num_sources if num_targets is None else num_targets, num_sources)
    if is_sparse(edge_index):
        if (edge_index.size(0), edge_index.size(1)) != size:
            raise ValueError(
                f"the token graph is of another size: expected an adjacency of shape {size} "
                f"(targets, sources), got {(edge_index.size(0), edge_index.size(1))}"
            )
        target, source = to_edge_index(edge_index)[0]
        return source.long(), target.long()
    if isinstance(edge_index, EdgeIndex):
        edge_index = edge_index.as_tensor()
    wrong = edge_index.is_floating_point() or edge_index.dtype == torch.bool
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or wrong:
        raise ValueError(
            f"expected edge_index of shape [2, M] and an integer type, got "
            f"{list(edge_index.shape)} and {edge_index.dtype}"
        )
    source, target = edge_index.long().unbind(0)
    return source, target


def knn_graph(
    x: Tensor, num_neighbors: int, batch: OptTensor = None, causal: bool = False
) -> TokenGraph:
    """Each token looks at its nearest others by Euclidean distance, within its graph.

    Exact, over blocks of rows: memory grows with N and never with N squared; on the CPU only
    tokens of the same graphs are compared. No gradient flows to the choice.

    Args:
        x: Tokens ``[N, D]``.
        num_neighbors: How many, itself left out; a graph with fewer others gives what it has.
        batch: Graph of each token ``[N]``, in any order. (default: all of one)
        causal: Only earlier tokens of the same graph.

    Raises:
        ValueError: ``num_neighbors`` is below 1.
    """
    if num_neighbors < 1:
        raise ValueError(f"expected num_neighbors >= 1, got {num_neighbors}")
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    col = _nearest(wide, batch, num_neighbors, causal)
    row = torch.arange(x.size(0), device=x.device)[:, None].expand_as(col)
    return _token_graph(row.reshape(-1), col.reshape(-1), None, x.size(0))


#: Rows that are compared at once.
BLOCK = 1024


@torch.library.custom_op(
    "graphmoe::nearest",
    mutates_args=(),
    schema="(Tensor x, Tensor? batch, SymInt k, bool causal) -> Tensor",
)
def _nearest(x: Tensor, batch: OptTensor, k: int, causal: bool) -> Tensor:
    """The nearest others of each row ``[N, k]``, ascending; places without any hold the row."""
    tokens = x.size(0)
    place = torch.arange(tokens, device=x.device)
    order = place if batch is None else batch.argsort(stable=True)
    graph = None if batch is None else batch[order]
    # Distances by products lose digits far from the origin.
    x = (x - x.mean(dim=0))[order]
    norm = x.square().sum(dim=1)
    col = place[:, None].repeat(1, k)
    for start in range(0, tokens, BLOCK):
        rows = place[start : start + BLOCK]
        low, high = 0, tokens
        if graph is not None and x.device.type == "cpu":
            # Sorted by graph, so the graphs of these rows are one range of columns.
            first, last = graph[rows[0]].item(), graph[rows[-1]].item()
            low = int(torch.searchsorted(graph, first))
            high = int(torch.searchsorted(graph, last, right=True))
        cols = place[low:high]
        distance = norm[low:high] - 2 * x[rows] @ x[low:high].t()
        outside = rows[:, None] <= cols if causal else rows[:, None] == cols
        if graph is not None:
            outside |= graph[rows, None] != graph[low:high]
        distance.masked_fill_(outside, torch.inf)
        value, found = distance.topk(min(k, high - low), dim=1, largest=False)
        found = torch.where(value == torch.inf, rows[:, None], found + low)
        col[rows, : found.size(1)] = found
    back = torch.empty_like(order).scatter_(0, order, place)
    return order[col[back]].sort(dim=1).values


@_nearest.register_fake
def _(x: Tensor, batch: OptTensor, k: int, causal: bool) -> Tensor:
    return x.new_empty((x.size(0), k), dtype=torch.long)
