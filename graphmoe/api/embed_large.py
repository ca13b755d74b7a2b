"""Embeddings of an imported graph, block by block, straight into a file."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmoe.api.target import open_bank
from graphmoe.checkpoint import ExpertBank
from graphmoe.checkpoint.block_files import ImportedGraph
from graphmoe.checkpoint.files import discard, make_folder, reserve, storage_errors
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph
from graphmoe.checkpoint.propagated import propagated_file
from graphmoe.checkpoint.store import folder_lock
from graphmoe.config import FuseConfig
from graphmoe.errors import ConfigError
from graphmoe.ops import LinearOperator, gcn_normalize
from graphmoe.ops.peers import ALONE
from graphmoe.ops.row_blocks import RowBlockOperator
from graphmoe.training.large import large_hetero_views
from graphmoe.training.large_align import align_blocks
from graphmoe.typing import PathLike

_ROWS = 1 << 16  #: Nodes that are embedded at a time.


@torch.no_grad()
def embed_large(
    graph: ImportedGraph,
    bank: ExpertBank | PathLike,
    out: PathLike,
    device: torch.device | str = "cpu",
    memory: int = 1 << 30,
    metapaths: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Embed an imported graph with each expert of a bank, at the depth it was trained with.

    The numbers are those of :func:`graphmoe.embed` on the same graph in memory, to rounding.

    Args:
        graph: An imported graph.
        bank: A bank, or its folder.
        out: ``.npy`` file, the experts side by side; it is there when all of it is. Meanwhile
            aligned and propagated features are kept in a folder beside it.
        device: Where it runs.
        memory: Bytes for the propagation.
        metapaths: Of a heterogeneous graph. (default: found from its schema)

    Returns:
        Embeddings by name, each (N, D), mapped from the file.
    """
    path = Path(out)
    if path.suffix != ".npy":
        raise ConfigError(f"embeddings of an imported graph are written as .npy, got {path.name!r}")
    found = open_bank(bank)
    experts = {name: each[name] for name, each in found.items()}
    make_folder(path.parent)
    widths = [int(expert.hidden_channels) for expert in experts.values()]
    ends = np.cumsum([0, *widths]).tolist()
    with _work(path) as folder:
        views = _views(graph, metapaths, folder, memory)
        whole = folder / "whole.npy"
        shape = (graph.num_nodes, ends[-1])
        with storage_errors(whole, "write"):
            z = np.lib.format.open_memmap(whole, "w+", np.float32, shape)
            reserve(whole, whole.stat().st_size)
        for start, (name, expert) in zip(ends, experts.items(), strict=False):
            columns = slice(start, start + int(expert.hidden_channels))
            own = copy.deepcopy(expert).to(device)
            # As in memory: structure beside the features for whom was trained with it.
            known = found[name].manifest(name).alignment.get("structural")
            structural = "always" if known == "always" else "auto"
            _embed(graph, views, own, structural, z[:, columns], folder, memory)
        z.flush()
        del z
        with storage_errors(path, "write"):
            os.replace(whole, path)
    whole_z = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    return {name: whole_z[:, ends[i] : ends[i + 1]] for i, name in enumerate(experts)}


def _views(
    graph: ImportedGraph, metapaths: Sequence[str] | None, folder: Path, memory: int
) -> tuple[LinearOperator, ...]:
    """As a graph in memory is embedded: as it is, or by the meta-paths that are found."""
    if isinstance(graph, LargeHeteroGraph):
        found = {"metapaths": metapaths, "max_length": FuseConfig().max_length}
        return large_hetero_views(graph, found, folder / "views", memory)[1]
    assert isinstance(graph, LargeGraph)
    return (gcn_normalize(RowBlockOperator(graph)),)


def _embed(
    graph: ImportedGraph,
    views: Sequence[LinearOperator],
    expert: Any,
    structural: str,
    z: np.ndarray,
    folder: Path,
    memory: int,
) -> None:
    width = int(expert.in_channels)
    x, _, _ = align_blocks(graph, width, "l1", folder, ALONE, structural, memory)
    place = next(expert.parameters()).device
    moved = [view.to(place) for view in views]
    propagated = [
        propagated_file(
            op,
            x,
            expert.K,
            folder / f"{i}.bin",
            memory=memory,
            identity=f"{type(expert).__name__} {expert.in_channels} {structural}",
        )
        for i, op in enumerate(expert.operators(moved))
    ]

    def blocks() -> Iterator[Sequence[Tensor]]:
        for start in range(0, graph.num_nodes, _ROWS):
            yield [part[start : start + _ROWS].to(place) for part in propagated]

    expert.eval().recalibrate_blocks(blocks())
    start = 0
    for rows in blocks():
        part = expert.encode_propagated(rows)
        z[start : start + len(part)] = part.cpu().numpy()
        start += len(part)


@contextmanager
def _work(path: Path) -> Iterator[Path]:
    """A folder beside the file, gone afterwards; what a killed call left there goes at once."""
    folder = path.with_name(f".{path.name}.work")
    with folder_lock(folder, f"{path} is being written by another process"):
        for left in folder.iterdir():
            if left.name != ".locks":
                discard(left)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
