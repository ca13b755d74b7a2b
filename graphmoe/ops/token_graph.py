"""Token graphs: which tokens may look at which, before anything is learned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import is_sparse, to_edge_index

from graphmoe.typing import Adj, OptTensor


class TokenGraph(NamedTuple):
    """A sparse token graph. That every token looks at itself goes without an entry.

    Attributes:
        row: The token that looks ``[M]``, ascending.
        col: The token it looks at ``[M]``.
        drop: Entries that do not count ``[M]``, bool: how many remain is not known while
            tracing, so they are marked and not cut out.
    """

    row: Tensor
    col: Tensor
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
    same = num_targets is None
    row, col, drop = _sorted_edges(source, target, num_sources, same)
    return TokenGraph(row, col, drop | (col > row) if causal else drop)


def edge_list(
    edge_index: Adj, num_sources: int, num_targets: int | None = None
) -> tuple[Tensor, Tensor]:
    """Sources and targets of all edges ``[M]``, int64, in the order that they are given.

    Raises:
        ValueError: The graph is of another size (of values only what is free to look at is
            looked at), or no graph.
    """
    size = (num_sources if num_targets is None else num_targets, num_sources)
    if is_sparse(edge_index):
        if (edge_index.size(0), edge_index.size(1)) != size:
            raise ValueError(
                f"the token graph is of another size: expected an adjacency of shape {size} "
                f"(targets, sources), got {(edge_index.size(0), edge_index.size(1))}"
            )
        target, source = to_edge_index(edge_index)[0]
        return source, target
    if isinstance(edge_index, EdgeIndex):
        edge_index = edge_index.as_tensor()
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
        raise ValueError(
            f"expected edge_index of shape [2, M] and an integer type, got "
            f"{list(edge_index.shape)} and {edge_index.dtype}"
        )
    source, target = edge_index.long().unbind(0)
    if source.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_range(source, target, num_sources, size[0])
    return source, target


def _check_range(source: Tensor, target: Tensor, num_sources: int, num_targets: int) -> None:
    for name, index, count in (("from", source, num_sources), ("to", target, num_targets)):
        if index.numel() == 0:
            continue
        low, high = torch.aminmax(index)
        if low < 0 or high >= count:
            raise ValueError(
                f"the token graph is of another size: it has an edge {name} token "
                f"{int(low) if low < 0 else int(high)}, but there are {count} tokens to go {name}"
            )


@torch.library.custom_op("graphmoe::sorted_edges", mutates_args=())
def _sorted_edges(
    source: Tensor, target: Tensor, num_sources: int, same: bool
) -> tuple[Tensor, Tensor, Tensor]:
    key = target * num_sources + source
    if source.device.type == "cpu":
        _check_range(source, target, num_sources, num_sources if same else 2**62)
        ascending = bool((key[1:] > key[:-1]).all())
    else:
        ascending = False
    drop = torch.zeros_like(key, dtype=torch.bool)
    if ascending:
        target, source = target.clone(), source.clone()
    else:
        key = key.sort().values
        target, source = key // max(num_sources, 1), key % max(num_sources, 1)
        drop[1:] = key[1:] == key[:-1]
    if same:
        drop |= target == source
    return target, source, drop


@_sorted_edges.register_fake
def _(
    source: Tensor, target: Tensor, num_sources: int, same: bool
) -> tuple[Tensor, Tensor, Tensor]:
    drop = torch.empty_like(target, dtype=torch.bool)
    return torch.empty_like(target), torch.empty_like(source), drop


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
    """
    if num_neighbors < 1:
        raise ValueError(f"expected at least one neighbor, got {num_neighbors}")
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    col, drop = _nearest(wide, batch, num_neighbors, causal)
    row = torch.arange(x.size(0), device=x.device)[:, None].expand_as(col)
    return TokenGraph(row.reshape(-1), col.reshape(-1), drop.reshape(-1))


BLOCK = 1024


@torch.library.custom_op("graphmoe::nearest", mutates_args=())
def _nearest(x: Tensor, batch: OptTensor, k: int, causal: bool) -> tuple[Tensor, Tensor]:
    tokens = x.size(0)
    place = torch.arange(tokens, device=x.device)
    order = place if batch is None else batch.sort(stable=True).indices
    graph = None if batch is None else batch[order]
    x = x[order]
    norm = x.square().sum(dim=1)
    col, drop = place[:, None].repeat(1, k), torch.ones_like(place, dtype=torch.bool)
    drop = drop[:, None].repeat(1, k)
    for start in range(0, tokens, BLOCK):
        own = slice(start, min(start + BLOCK, tokens))
        low, high = 0, tokens
        if graph is not None and x.device.type == "cpu":
            # Sorted by graph, so the graphs of these rows are one range of columns.
            ends = graph[[own.start, own.stop - 1]].contiguous()
            low = int(torch.searchsorted(graph, ends[0]))
            high = int(torch.searchsorted(graph, ends[1], right=True))
        distance = norm[None, low:high] - 2 * x[own] @ x[low:high].t()
        outside = place[own, None] == place[None, low:high]
        if causal:
            outside |= place[own, None] < place[None, low:high]
        if graph is not None:
            outside |= graph[own, None] != graph[None, low:high]
        distance.masked_fill_(outside, torch.inf)
        value, found = distance.topk(min(k, high - low), dim=1, largest=False)
        unused = value == torch.inf
        col[own, : found.size(1)] = torch.where(unused, place[own, None], found + low)
        drop[own, : found.size(1)] = unused
    back = torch.empty_like(order).scatter_(0, order, place)
    return order[col[back]], drop[back]


@_nearest.register_fake
def _(x: Tensor, batch: OptTensor, k: int, causal: bool) -> tuple[Tensor, Tensor]:
    shape = (x.size(0), k)
    return x.new_empty(shape, dtype=torch.long), x.new_empty(shape, dtype=torch.bool)
