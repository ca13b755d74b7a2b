r"""Propagated features :math:`\hat{A}^K X` of a large graph, kept in memory-mapped files."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphmoe.checkpoint.block_files import STORAGE, ImportedGraph
from graphmoe.checkpoint.files import make_folder, reserve, storage_errors, write_bytes
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.errors import ConfigError
from graphmoe.ops import LinearOperator
from graphmoe.ops.peers import ALONE, Peers
from graphmoe.ops.strips import propagate_strips, strip_columns


def mapped(path: Path, shape: tuple[int, int], storage: str, create: bool = False) -> Tensor:
    """A file of raw numbers as a tensor; what is written to it goes to the file.

    Args:
        path: The file.
        shape: Its rows and columns.
        storage: ``"float32"`` or ``"bfloat16"``.
        create: Make it, full of zeros, where it is not there.
    """
    if storage not in STORAGE:
        raise ConfigError(f"unknown storage {storage!r}; expected {' or '.join(STORAGE)}")
    if shape[0] * shape[1] == 0:
        return torch.zeros(shape, dtype=STORAGE[storage])
    kind = np.float32 if storage == "float32" else np.int16
    size = shape[0] * shape[1] * np.dtype(kind).itemsize
    with storage_errors(path, "map"):
        if create:
            reserve(path, size)
        array = np.memmap(path, dtype=kind, mode="r+" if create else "c", shape=shape)
    return torch.from_numpy(array).view(STORAGE[storage])


def features_file(graph: ImportedGraph, folder: Path, storage: str = "float32") -> Tensor:
    """The features of ``graph`` in one mapped file in ``folder``, shape :math:`(N, F)`."""
    make_folder(folder)
    out = mapped(folder / "x.bin", (graph.num_nodes, graph.num_features), storage, create=True)
    for start, block in graph.feature_blocks():
        out[start : start + len(block)] = block.to(out.dtype)
    return out


def propagated_file(
    op: LinearOperator,
    x: Tensor,
    K: int,
    path: Path,
    *,
    storage: str = "float32",
    memory: int = 1 << 30,
    identity: str = "",
    order: Tensor | None = None,
    on_strip: Callable[[int], None] | None = None,
    peers: Peers = ALONE,
) -> Tensor:
    r""":math:`A^K X` in a mapped file; what an earlier, killed call has done is kept.

    Args:
        op: The operator.
        x: Features, shape :math:`(N, F)`.
        K: Steps.
        path: The file; a sealed record of how far it is stands beside it.
        storage: Type of the stored numbers; products are formed in that of ``op``.
        memory: Bytes for the strips of columns.
        identity: What decides about the result; with another one it is computed anew.
        order: Rows of ``x`` in another order, shape :math:`(N)`.
        on_strip: Called with the number of columns that are there.
        peers: Who else makes this file; the first one keeps the record of it.

    Returns:
        Shape :math:`(N, F)`, mapped copy on write.
    """
    record = path.with_name(f"{path.name}.json")
    about = {"identity": identity, "K": K, "storage": storage, "shape": list(x.shape)}
    shape = (x.size(0), x.size(1))

    def begun() -> int:
        """How many columns are there; where there are none, an empty file is."""
        make_folder(path.parent)
        columns = 0
        if record.exists() and path.exists():
            saved = load_sealed(record)
            columns = saved.pop("columns", 0)
            columns = columns if saved == about else 0
        if columns == 0:
            record.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            mapped(path, shape, storage, create=True)
        return columns

    columns = peers.told(begun)
    if columns < x.size(1):
        # Elsewhere it is only looked at: whoever cannot see it must not make one of its own.
        out = mapped(path, shape, storage, create=peers.rank < peers.near)

        def noted(stop: int) -> None:
            flush(path)
            write_bytes(record, dump_sealed({**about, "columns": stop}))

        def done(stop: int) -> None:
            peers.told(partial(noted, stop))
            if on_strip is not None:
                on_strip(stop)

        rows = max(x.size(0), op.tallest)
        width = strip_columns(rows, x.size(1), memory)
        propagate_strips(op, x, K, out, width, order, columns, done, peers)
        del out
    return mapped(path, shape, storage)


def flush(path: Path) -> None:
    """The mapped pages reach the disk before the record that speaks of them does."""
    if not path.exists():  # nothing is kept of an empty array
        return
    with storage_errors(path, "write"):
        handle = os.open(path, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
