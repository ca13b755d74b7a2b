"""A short name for the exact content of a graph in multi-view form."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch_geometric.data import Data


def multiview_fingerprint(graph: Data) -> str:
    """The SHA-256 of a multi-view graph's features and views, 64 hexadecimal digits.

    A view counts by its size and by its product with a fixed vector, so that a lazy one need not
    be written out. Raw graphs have :func:`graphmoe.data.graph_fingerprint`, which, other than this
    one, is the same on every machine.

    Args:
        graph: With ``x`` [N, D] and ``views``.
    """
    digest = hashlib.sha256()
    _update(digest, graph.x)
    for view in graph.views:
        digest.update(f"view {view.shape} {view.nnz}".encode())
        probe = torch.arange(view.shape[1], device=view.device).cos().to(view.dtype)
        _update(digest, view.matmul(probe.unsqueeze(1)))
    return digest.hexdigest()


def _update(digest: hashlib._Hash, tensor: Tensor) -> None:
    tensor = tensor.detach().cpu().contiguous()
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.numpy().tobytes())
