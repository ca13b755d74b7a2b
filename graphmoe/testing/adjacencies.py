"""One graph in all the forms that PyG layers take."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csc_tensor


def adjacencies(
    edge_index: Tensor,
    dtype: torch.dtype,
    num_sources: int,
    num_destinations: int | None = None,
) -> dict[str, Any]:
    """The graph as EdgeIndex, torch.sparse (transposed) and, if installed, SparseTensor.

    Args:
        edge_index: ``[2, M]`` without repeated edges.
        dtype: Of the ones that torch.sparse has as values; that of the nodes.
        num_sources: Number of source nodes.
        num_destinations: Number of destination nodes. (default: the sources are these as well)
    """
    size = (num_sources, num_sources if num_destinations is None else num_destinations)
    found: dict[str, Any] = {"an EdgeIndex": EdgeIndex(edge_index, sparse_size=size)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # CSC of the graph, transposed, is CSR; PyG's convolutions take no other compressed form.
        ones = torch.ones(edge_index.size(1), dtype=dtype)
        found["torch.sparse_csr"] = to_torch_csc_tensor(edge_index, ones, size=size).t()
        found["torch.sparse_coo"] = to_torch_coo_tensor(edge_index, ones, size=size).t().coalesce()
    if WITH_TORCH_SPARSE:
        found["a SparseTensor"] = SparseTensor.from_edge_index(edge_index, sparse_sizes=size).t()
    return found
