"""How many neighbours a node has, by one rule for every graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphmoe.data.counting import count_nodes, edge_stores, sorted_unique
from graphmoe.typing import Graph


def node_degrees(data: Graph) -> dict[str, Tensor]:
    """Of every node, how many different others an edge of any relation joins it to.

    Either direction will do, and neither a repeated edge nor a relation beside its own reverse
    counts a neighbour twice; an edge from a node to itself is none. So 0 is a node that learns
    from nobody else.

    Args:
        data: A valid graph.

    Returns:
        By node type (``"node"`` of a homogeneous graph) int64 ``[N]``.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from graphmoe.data import node_degrees
        >>> edges = torch.tensor([[0, 1, 0, 2], [1, 0, 2, 2]])  # 0 and 1, 0 and 2, 2 and itself
        >>> node_degrees(Data(edge_index=edges, num_nodes=4))["node"].tolist()
        [2, 1, 1, 0]
    """
    counts = count_nodes(data)
    degrees = {kind: torch.zeros(count, dtype=torch.int64) for kind, count in counts.items()}
    pairs: dict[tuple[str, str], list[np.ndarray]] = {}
    for (source, _, destination), store in edge_stores(data).items():
        if store.get("edge_index") is None:
            continue
        a, b = store["edge_index"].cpu().numpy()
        if source == destination:
            a, b = np.minimum(a, b), np.maximum(a, b)
            a, b = a[a != b], b[a != b]
        elif source > destination:  # a relation and its reverse are of the same two types
            source, destination, a, b = destination, source, b, a
        codes = a.astype(np.int64) * counts[destination] + b
        pairs.setdefault((source, destination), []).append(codes)
    for (first, second), codes in pairs.items():
        different = sorted_unique(np.concatenate(codes))
        for kind, ends in (
            (first, different // max(counts[second], 1)),
            (second, different % max(counts[second], 1)),
        ):
            degrees[kind] += torch.from_numpy(np.bincount(ends, minlength=counts[kind]))
    return degrees
