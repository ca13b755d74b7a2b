"""How many nodes and how many different edges a graph has, by the same rule everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmoe.typing import Graph

#: The one node type of a homogeneous graph.
NODE = "node"


def node_stores(data: Graph) -> dict[str, Any]:
    """The storage of every node type that is declared or that a relation names, in that order."""
    if not isinstance(data, HeteroData):
        return {NODE: data._store}
    named = [end for source, _, destination in data.edge_types for end in (source, destination)]
    declared = data._node_store_dict
    return {kind: declared.get(kind, {}) for kind in dict.fromkeys([*declared, *named])}


def edge_stores(data: Graph) -> dict[tuple[str, str, str], Any]:
    """The storage of every relation."""
    if not isinstance(data, HeteroData):
        return {(NODE, "", NODE): data._store}
    return {kind: data[kind] for kind in data.edge_types}


def stated_nodes(store: Any) -> int | None:
    """The number of nodes that ``num_nodes``, ``x`` or ``y`` states, or ``None``."""
    # Asked as a key: the attribute of the same name would make PyG guess from the edges.
    if "num_nodes" in store and store["num_nodes"] is not None:
        return int(store["num_nodes"])
    for key in ("x", "y"):
        if key in store and isinstance(store[key], Tensor) and store[key].dim():
            return int(store[key].size(0))
    return None


def count_nodes(data: Graph) -> dict[str, int]:
    """Nodes of each type: as stated, else one more than the largest index any edge names."""
    counts = {kind: stated_nodes(store) for kind, store in node_stores(data).items()}
    largest = dict.fromkeys(counts, -1)
    for (source, _, destination), store in edge_stores(data).items():
        edges = store.get("edge_index")
        if isinstance(edges, Tensor) and edges.dim() == 2 and edges.numel():
            for kind, row in ((source, edges[0]), (destination, edges[-1])):
                if counts[kind] is None:
                    largest[kind] = max(largest[kind], int(row.max()))
    return {kind: largest[kind] + 1 if n is None else n for kind, n in counts.items()}


def sorted_unique(values: np.ndarray) -> np.ndarray:
    """``numpy.unique``, which hashes in recent versions and is then 20 times slower on 10⁷ ids."""
    values = np.sort(values)
    return values[np.concatenate([[True], values[1:] != values[:-1]])] if len(values) else values


def count_common(first: np.ndarray, second: np.ndarray) -> int:
    """How many values two rising sequences without repeats share; linear in their length."""
    both = np.sort(np.concatenate([first, second]), kind="stable")  # merges two rising runs
    return int((both[1:] == both[:-1]).sum())
