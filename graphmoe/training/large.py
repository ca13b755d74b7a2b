"""The multi-view form of a graph that need not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import Data

from graphmoe.checkpoint.block_files import ImportedGraph
from graphmoe.checkpoint.large_graph import LargeGraph
from graphmoe.checkpoint.large_hetero import LargeHeteroGraph
from graphmoe.errors import DataError
from graphmoe.ops import LinearOperator, gcn_normalize
from graphmoe.ops.peers import ALONE, Peers
from graphmoe.ops.row_blocks import RowBlockOperator
from graphmoe.training.large_align import align_blocks
from graphmoe.training.large_paths import LargeSchema, PathForms
from graphmoe.transforms import MetaPathViews
from graphmoe.transforms.schema import MetaPath


def large_multi_view(
    graph: ImportedGraph,
    settings: dict[str, Any],
    folder: Path,
    peers: Peers = ALONE,
    memory: int = 1 << 30,
    check: Callable[[], None] = lambda: None,
) -> Data:
    """What :class:`graphmoe.transforms.MultiView` makes of a graph, without its views.

    Args:
        graph: With at least two nodes.
        settings: Arguments of ``MultiView`` but its seed.
        folder: Where the aligned features are written.
        peers: Who else needs them; the first one makes them.
        memory: Bytes for strips of columns, where features are made of structure.
        check: Called now and then; raises what ends the work.

    Raises:
        DataError: The graph has neither features nor links, or fewer than two nodes.
    """
    if graph.num_nodes < 2:
        raise DataError(f"{graph.path}: expected at least two nodes to contrast, got 1 or none")
    x, alignment, projection = align_blocks(
        graph,
        settings["channels"],
        settings["normalize"],
        folder,
        peers,
        settings.get("structural", "auto"),
        memory,
        check,
    )
    data = Data(x=x, num_nodes=graph.num_nodes, views=())
    if isinstance(graph, LargeGraph):
        data.view_names = ("base", *(f"drop{i + 1}" for i in range(settings["num_views"])))
    data.alignment = alignment
    if projection is not None:
        data.projection = projection
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
