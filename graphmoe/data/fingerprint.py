"""One hash a graph: what an expert was trained on, whatever order its edges came in."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from graphmoe.data.counting import count_nodes, edge_stores, node_stores, sorted_unique
from graphmoe.typing import Graph

#: Rows of features hashed at once; bounds the memory a sparse matrix needs.
_ROWS = 1024


def graph_fingerprint(data: Graph) -> str:
    """SHA-256 over the structure and the features of a graph.

    Two graphs have the same fingerprint if they have the same node types with as many nodes, the
    same relations with the same set of edges, and equal features in float32. The order of edges,
    repeated edges, the integer type of indices and the sparse or dense form of features do not
    matter; labels, splits, names and edge weights are left out, because no view depends on them.

    Args:
        data: A graph.

    Returns:
        64 hexadecimal digits, the same on every machine.
    """
    digest = hashlib.sha256()
    counts = count_nodes(data)
    for kind, store in sorted(node_stores(data).items()):
        digest.update(f"nodes {kind} {counts[kind]}\n".encode())
        x = store.get("x")
        if x is not None:
            digest.update(f"features {list(x.shape)}\n".encode())
            _update_rows(digest, x)
    for relation, store in sorted(edge_stores(data).items()):
        index = store.get("edge_index")
        if index is None:
            index = torch.empty(2, 0, dtype=torch.long)
        codes = _edge_codes(index, counts[relation[2]])
        digest.update(f"edges {'->'.join(relation)} {len(codes)}\n".encode())
        digest.update(codes.astype("<i8").tobytes())
    return digest.hexdigest()


def _edge_codes(index: Tensor, columns: int) -> np.ndarray:
    """Each edge as one number, sorted and without repeats."""
    source, destination = index.detach().cpu().numpy().astype(np.int64)
    width = max(columns, int(destination.max()) + 1 if destination.size else 1)
    return sorted_unique(source * width + destination)


def _update_rows(digest: hashlib._Hash, x: Tensor) -> None:
    x = x.detach().cpu()
    if x.layout != torch.strided:
        import scipy.sparse as sp

        coo = x.to_sparse_coo().coalesce()
        shape = (x.size(0), x.size(1))
        matrix = sp.csr_matrix((coo.values().numpy(), coo.indices().numpy()), shape=shape)
        blocks = (matrix[i : i + _ROWS].toarray() for i in range(0, x.size(0), _ROWS))
    else:
        blocks = (x[i : i + _ROWS].numpy() for i in range(0, x.size(0), _ROWS))
    for block in blocks:
        # Adding zero turns -0.0 into 0.0, which compares equal and so must hash equal.
        digest.update((np.ascontiguousarray(block, dtype="<f4") + np.float32(0)).tobytes())
