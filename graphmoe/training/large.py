"""The multi-view form of a graph that need not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphmoe.checkpoint.block_files import ImportedGraph
from graphmoe.checkpoint.files import make_folder, sha256
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph
from graphmoe.checkpoint.propagated import mapped
from graphmoe.errors import ConfigError, DataError
from graphmoe.ops import LinearOperator, gcn_normalize
from graphmoe.ops.peers import ALONE, Peers
from graphmoe.ops.row_blocks import RowBlockOperator
from graphmoe.training.large_paths import LargeSchema, PathForms
from graphmoe.transforms import MetaPathViews
from graphmoe.transforms.align_features import _scale_rows
from graphmoe.transforms.schema import MetaPath


def large_multi_view(
    graph: ImportedGraph, settings: dict[str, Any], folder: Path, peers: Peers = ALONE
) -> Data:
    """What :class:`graphmoe.transforms.MultiView` makes of a graph, without its views.

    Args:
        graph: With features and at least two nodes.
        settings: Arguments of ``MultiView`` but its seed.
        folder: Where the aligned features are written.
        peers: Who else needs them; the first one makes them.

    Raises:
        ConfigError: Features of structure are asked for, which are not made here.
        DataError: The graph has no features, or fewer than two nodes.
    """
    if settings.get("structural") == "always":
        raise ConfigError(
            "structural features are not made of an imported graph by batches: set "
            "data.structural to auto or never, or batches.mode to never where it fits in memory"
        )
    if graph.num_nodes < 2:
        raise DataError(f"{graph.path}: expected at least two nodes to contrast, got 1 or none")
    x, alignment, projection = align_blocks(
        graph, settings["channels"], settings["normalize"], folder, peers
    )
    data = Data(x=x, num_nodes=graph.num_nodes, views=())
    if isinstance(graph, LargeGraph):
        data.view_names = ("base", *(f"drop{i + 1}" for i in range(settings["num_views"])))
    data.alignment, data.projection = alignment, projection
    return data


def large_hetero_views(
    graph: LargeHeteroGraph,
    settings: dict[str, Any],
    folder: Path,
    memory: int = 1 << 30,
    check: Callable[[], None] = lambda: None,
    peers: Peers = ALONE,
) -> tuple[tuple[str, ...], tuple[LinearOperator, ...]]:
    """Names and views of what :class:`graphmoe.transforms.MetaPathViews` makes of a graph.

    Args:
        graph: The graph.
        settings: ``metapaths``, ``max_length`` and ``max_views`` of that transform.
        folder: Where what they are made of is kept; what is there already is used.
        memory: Bytes for sorting, about.
        check: Called now and then; raises what ends the work, which can be gone on with.
        peers: Who else needs them; the first one makes them.

    Raises:
        DataError: No meta-path starts and ends at the target type.
        ConfigError: A given meta-path does not exist, or one has more paths than can be followed.
    """
    kinds = ("metapaths", "max_length", "max_views")
    chosen = MetaPathViews(**{kind: settings[kind] for kind in kinds if kind in settings})

    def form(check: Callable[[], None]) -> tuple[list[MetaPath], list[LinearOperator]]:
        forms = PathForms(folder, memory, check)
        paths = chosen.paths(LargeSchema(graph, forms), graph.target)
        return paths, forms.views(paths)

    def formed() -> None:
        form(check)

    # The others find everything there.
    peers.told(formed)
    paths, views = form(lambda: None)
    return tuple(path.name for path in paths), tuple(gcn_normalize(view) for view in views)


def large_views(
    graph: LargeGraph,
    num_views: int,
    drop_edge: float,
    seed: int,
    resample: bool,
    operator: type[RowBlockOperator] = RowBlockOperator,
) -> Callable[[int], tuple[tuple[LinearOperator, ...], str]]:
    """The base view and views with dropped edges, which take no room: of each turn, and a name.

    Args:
        graph: The graph.
        num_views: Views with dropped edges.
        drop_edge: Share of undirected edges that each of them loses.
        seed: Of the draws.
        resample: Whether they are drawn afresh each turn.
        operator: Who multiplies the blocks.
    """

    def views(turn: int) -> tuple[tuple[LinearOperator, ...], str]:
        drawn = turn if resample else 0
        found = [gcn_normalize(operator(graph))]
        for view in range(num_views):
            key = np.random.SeedSequence([seed, drawn, view]).generate_state(1, np.uint64)[0]
            found.append(gcn_normalize(operator(graph, drop_edge, int(key))))
        return tuple(found), str(drawn)

    return views


def align_blocks(
    graph: ImportedGraph, channels: int, normalize: str, folder: Path, peers: Peers = ALONE
) -> tuple[Tensor, dict[str, Any], Tensor]:
    r"""Aligned features as :class:`graphmoe.transforms.AlignFeatures` makes them, block by block.

    The right singular vectors are those of :math:`X^\top X`, summed over the blocks in double
    precision: exact where the transform is randomised, so columns may differ in sign. It takes
    :math:`F^2` numbers of memory.

    Args:
        graph: With features.
        channels: Width D.
        normalize: Row norm before the decomposition: ``"l1"``, ``"l2"`` or ``"none"``.
        folder: Of the file of aligned features, whose name depends on all that decides about it.
        peers: Who else needs them; the first one makes them.

    Returns:
        The features :math:`(N, D)` in the mapped file, what was done, the projection
        :math:`(F, D)`.
    """
    name = sha256(f"{graph.fingerprint()} {channels} {normalize}".encode())[:16]
    path, shape = folder / f"x-{name}.bin", (graph.num_nodes, channels)
    alignment, projection = peers.told(lambda: _align(graph, channels, normalize, path))
    return mapped(path, shape, "float32"), alignment, projection


def _align(
    graph: ImportedGraph, channels: int, normalize: str, path: Path
) -> tuple[dict[str, Any], Tensor]:
    """Write the aligned features; what was done, and the projection."""
    if not graph.num_features:
        raise DataError(
            f"{graph.path}: the graph has no features: import it with some (--features)"
        )
    width = graph.num_features
    gram = np.zeros((width, width))
    for _, block in graph.feature_blocks():
        rows = _scale_rows(block.float().numpy(), normalize).astype(np.float64)
        gram += rows.T @ rows
    values, vectors = np.linalg.eigh(gram)
    rank = min(channels, width, graph.num_nodes)
    best = np.argsort(values)[::-1][:rank]
    chosen = vectors[:, best]
    # A sign that does not depend on the library: the largest entry of a column is positive.
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(rank)])
    projection = np.zeros((width, channels), dtype=np.float32)
    projection[:, :rank] = chosen
    make_folder(path.parent)
    x = mapped(path, (graph.num_nodes, channels), "float32", create=True)
    for start, block in graph.feature_blocks():
        part = _scale_rows(block.float().numpy(), normalize) @ projection
        x[start : start + len(part)] = torch.from_numpy(part.astype(np.float32))
    total = float(values.sum())
    alignment = {
        "channels": channels,
        "normalize": normalize,
        "structural": "never",
        "source": "features",
        "columns": width,
        "rank": rank,
        "padded": channels - rank,
        "explained": min(float(values[best].sum()) / total, 1.0) if total else 0.0,
    }
    return alignment, torch.from_numpy(projection)
