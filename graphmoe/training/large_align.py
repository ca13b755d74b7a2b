"""Aligned features of a graph on disk, as the transform makes them of one in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.checkpoint.block_files import ImportedGraph
from graphmoe.checkpoint.files import make_folder, sha256, write_bytes
from graphmoe.checkpoint.propagated import flush, mapped
from graphmoe.checkpoint.sealed import dump_sealed, load_sealed
from graphmoe.errors import DataError
from graphmoe.ops.peers import ALONE, Peers
from graphmoe.training.large_structure import (
    BlockMatrix,
    FeaturePart,
    Part,
    decompose,
    link_parts,
)
from graphmoe.transforms.align_features import scaled_rows

Check = Callable[[], None]


def align_blocks(
    graph: ImportedGraph,
    channels: int,
    normalize: str,
    folder: Path,
    peers: Peers = ALONE,
    structural: str = "auto",
    memory: int = 1 << 30,
    check: Check = lambda: None,
) -> tuple[Tensor, dict[str, Any], Tensor | None]:
    r"""Aligned features as :class:`graphmoe.transforms.AlignFeatures` makes them, block by block.

    Of features alone, the right singular vectors are those of :math:`X^\top X`, summed over the
    blocks in double precision: exact where the transform is randomised, so columns may differ in
    sign. It takes :math:`F^2` numbers of memory. Where structure takes part they are found by
    :func:`~graphmoe.training.large_structure.decompose`.

    Args:
        graph: With features or links.
        channels: Width D.
        normalize: Row norm before the decomposition: ``"l1"``, ``"l2"`` or ``"none"``.
        folder: Of the file of aligned features, whose name depends on all that decides about it.
        peers: Who else needs them; the first one makes them.
        structural: When to use structure: ``"auto"`` for nodes without features, ``"always"``
            beside their own, ``"never"``.
        memory: Bytes for strips of columns, where structure is used.
        check: Called now and then; raises what ends the work.

    Returns:
        The features :math:`(N, D)` in the mapped file, what was done, the projection
        :math:`(F, D)` where features alone were used.

    Raises:
        DataError: There are neither features nor links.
    """
    own = graph.num_features > 0
    source = "both" if own and structural == "always" else "features" if own else "structure"
    if source == "structure" and structural == "never":
        raise DataError(
            f"{graph.path}: the graph has no features: import it with some (--features), or set "
            "structural='auto' to make some from its links"
        )
    words = [graph.fingerprint(), str(channels), normalize]
    words += [] if source == "features" else [source]
    name = sha256(" ".join(words).encode())[:16]
    path, shape = folder / f"x-{name}.bin", (graph.num_nodes, channels)

    def make() -> tuple[dict[str, Any], Tensor | None]:
        make_folder(folder)
        if source == "features":
            return _project(graph, channels, normalize, path)
        return _decompose(graph, channels, normalize, path, source, memory, check), None

    about, projection = peers.told(make)
    settings = {"channels": channels, "normalize": normalize, "structural": structural}
    return mapped(path, shape, "float32"), {**settings, "source": source, **about}, projection


def _project(
    graph: ImportedGraph, channels: int, normalize: str, path: Path
) -> tuple[dict[str, Any], Tensor]:
    """Write the aligned features; what was done, and the projection."""
    width = graph.num_features
    gram = np.zeros((width, width))
    for _, block in graph.feature_blocks():
        rows = scaled_rows(block.float().numpy(), normalize).astype(np.float64)
        gram += rows.T @ rows
    values, vectors = np.linalg.eigh(gram)
    rank = min(channels, width, graph.num_nodes)
    best = np.argsort(values)[::-1][:rank]
    chosen = vectors[:, best]
    # A sign that does not depend on the library: the largest entry of a column is positive.
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(rank)])
    projection = np.zeros((width, channels), dtype=np.float32)
    projection[:, :rank] = chosen
    x = mapped(path, (graph.num_nodes, channels), "float32", create=True)
    for start, block in graph.feature_blocks():
        part = scaled_rows(block.float().numpy(), normalize) @ projection
        x[start : start + len(part)] = torch.from_numpy(part.astype(np.float32))
    about = _about(width, rank, channels, float(values[best].sum()), float(values.sum()))
    return about, torch.from_numpy(projection)


def _decompose(
    graph: ImportedGraph,
    channels: int,
    normalize: str,
    path: Path,
    source: str,
    memory: int,
    check: Check,
) -> dict[str, Any]:
    """Write features with structure in them; what was done."""
    record = path.with_suffix(".json")
    if record.exists() and path.exists():
        return load_sealed(record)
    parts: list[Part] = [] if source == "structure" else [FeaturePart(graph, normalize)]
    parts += link_parts(graph, path.parent / "views", memory)
    if not parts:
        raise DataError(f"{graph.path}: the graph has no features and no links to make some from")
    matrix = BlockMatrix(parts, graph.num_nodes, even=len(parts) > 1 and source == "both")
    x = mapped(path, (graph.num_nodes, channels), "float32", create=True)
    rank = decompose(matrix, x, path.parent, memory, check)
    kept = sum(float(rows.double().square().sum()) for rows in x.split(1 << 16))
    about = _about(matrix.shape[1], rank, channels, kept, matrix.square)
    flush(path)
    write_bytes(record, dump_sealed(about))
    return about


def _about(columns: int, rank: int, channels: int, kept: float, total: float) -> dict[str, Any]:
    return {
        "columns": columns,
        "rank": rank,
        "padded": channels - rank,
        "explained": min(kept / total, 1.0) if total else 0.0,
    }
