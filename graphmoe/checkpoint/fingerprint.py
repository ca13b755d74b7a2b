"""A short name for the exact content of a graph."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.ops.linear_operator import LinearOperator
from graphmoe.typing import Graph


def graph_fingerprint(graph: Graph) -> str:
    """The SHA-256 of a graph's tensors and plain values, 64 hexadecimal digits.

    Graphs that store the same values under the same names have the same one, in whatever order
    the names were set and on whatever device; a changed entry changes it. An operator counts by
    its size and by its product with a fixed vector, so that a lazy one need not be written out.

    Args:
        graph: A ``Data`` or ``HeteroData``, raw or in multi-view form.
    """
    digest = hashlib.sha256()
    for path, leaf in _leaves(graph.to_dict(), ""):
        digest.update(path.encode() + b"\0")
        for part in _bytes(leaf):
            digest.update(part)
    return digest.hexdigest()


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value that is not a container, with the way to it, in an order of its own."""
    if isinstance(value, dict):
        children: Iterable[tuple[Any, Any]] = sorted(value.items(), key=lambda item: str(item[0]))
    elif isinstance(value, (list, tuple)):
        children = enumerate(value)
    else:
        yield path, value
        return
    for name, child in children:
        yield from _leaves(child, f"{path}/{name}")


def _bytes(leaf: Any) -> Iterator[bytes]:
    if isinstance(leaf, LinearOperator):
        yield f"operator{leaf.shape}{leaf.nnz}".encode()
        probe = torch.arange(leaf.shape[1], device=leaf.device).cos().to(leaf.dtype)
        yield from _bytes(leaf.matmul(probe.unsqueeze(1)))
    elif isinstance(leaf, Tensor) and leaf.layout != torch.strided:
        leaf = leaf.to_sparse_coo().coalesce()
        yield str(tuple(leaf.shape)).encode()
        yield from _bytes(leaf.indices())
        yield from _bytes(leaf.values())
    elif isinstance(leaf, Tensor):
        leaf = leaf.detach().cpu().contiguous()
        yield f"{leaf.dtype}{tuple(leaf.shape)}".encode()
        yield leaf.flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(leaf, np.ndarray) and leaf.dtype != object:
        yield f"{leaf.dtype}{leaf.shape}".encode()
        yield np.ascontiguousarray(leaf).tobytes()
    else:
        try:
            yield json.dumps(leaf).encode()
        except (TypeError, ValueError):
            yield type(leaf).__name__.encode()
