"""What is in an imported graph, and whether it is whole: one block in memory at a time."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphmoe.checkpoint.block_files import ImportedGraph, RowBlock
from graphmoe.data.big.external_sort import SPLIT
from graphmoe.data.counting import NODE
from graphmoe.data.report import Report
from graphmoe.data.stats import GraphStats, NodeStats, RelationStats
from graphmoe.errors import VerificationError
from graphmoe.ops.row_blocks import _edge_code


class _Nodes(NamedTuple):
    """Nodes of one type."""

    number: int
    width: int
    features: Sequence[RowBlock]
    labels: Sequence[RowBlock]


class _Links(NamedTuple):
    """Links of one kind: rows by source, and by target where the types differ."""

    name: str
    source: str
    target: str
    blocks: Sequence[RowBlock]
    back: Sequence[RowBlock]


def _parts(graph: ImportedGraph) -> tuple[dict[str, _Nodes], list[_Links]]:
    known = graph.manifest
    if not hasattr(known, "relations"):
        nodes = _Nodes(graph.num_nodes, graph.num_features, known.features, known.labels)
        return {NODE: nodes}, [_Links("edges", NODE, NODE, known.blocks, ())]
    return {
        kind: _Nodes(found.count, found.num_features, found.features, found.labels)
        for kind, found in known.nodes.items()
    }, [
        _Links(
            f"{link.source} - {link.relation} - {link.target}",
            link.source,
            link.target,
            link.blocks,
            link.back,
        )
        for link in known.relations
    ]


def imported_stats(graph: ImportedGraph) -> GraphStats:
    """What :func:`graphmoe.data.graph_stats` says, of a graph that need not fit in memory.

    It takes one block, and a byte a node. Homophily is left out.

    Args:
        graph: Of ``graphmoe data import``.

    Raises:
        VerificationError: A file is not what was written.
    """
    kinds, relations = _parts(graph)
    linked = {kind: np.zeros(nodes.number, dtype=bool) for kind, nodes in kinds.items()}
    edges = [_relation_stats(graph, kinds, links, linked) for links in relations]
    return GraphStats(
        name=str(getattr(graph.manifest, "name", "") or graph.path.resolve().name),
        kind="heterogeneous" if hasattr(graph.manifest, "relations") else "homogeneous",
        target=getattr(graph.manifest, "target", None),
        nodes=[
            _node_stats(graph, kind, nodes, int((~linked[kind]).sum()))
            for kind, nodes in kinds.items()
        ],
        relations=edges,
        fingerprint=graph.fingerprint(),
    )


def storage_text(graph: ImportedGraph) -> str:
    """How much there is on disk, in one line."""
    size = sum(record.size for record in graph.files.records)
    blocks = sum(len(links.blocks) + len(links.back) for links in _parts(graph)[1])
    return (
        f"stored: {size / 1e6:,.1f} MB in {len(graph.files.records):,} files, {blocks:,} row "
        f"blocks, features in {graph.manifest.storage}"
    )


def check_imported(graph: ImportedGraph) -> Report:
    """Read everything, and compare it with its hashes and with what such a graph is.

    That rows and columns tell the same edges is seen from the sum of a random code of each edge,
    the same from both sides: there is no room for the edges themselves. One that is told from one
    side only is missed with a probability of :math:`2^{-53}`.

    Args:
        graph: Of ``graphmoe data import``.

    Raises:
        VerificationError: A file is not what was written.
    """
    graph.verify()
    kinds, relations = _parts(graph)
    report = Report(graph.path.resolve().name)
    linked = {kind: np.zeros(nodes.number, dtype=bool) for kind, nodes in kinds.items()}
    for links in relations:
        _check_links(graph, kinds, links, linked, report)
    for kind, nodes in kinds.items():
        _check_nodes(graph, kind, nodes, report)
        if isolated := int((~linked[kind]).sum()):
            report.note(kind, f"{isolated} of {nodes.number} nodes are isolated")
    return report


def _rows(
    graph: ImportedGraph, blocks: Sequence[RowBlock], columns: int
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Each block's first row, its row pointers, and the row and column of each entry."""
    for block in blocks:
        crow, col = map(torch.from_numpy, graph.files.rows(block, columns))
        rows = torch.repeat_interleave(crow.diff()).add_(block.start)
        yield block.start, crow, rows, col.long()


def _relation_stats(
    graph: ImportedGraph, kinds: dict[str, _Nodes], links: _Links, linked: dict[str, np.ndarray]
) -> RelationStats:
    sources, targets = kinds[links.source].number, kinds[links.target].number
    edges = loops = most = 0
    for _, crow, row, col in _rows(graph, links.blocks, targets):
        most = max(most, int(crow.diff().max()) if len(crow) > 1 else 0)
        edges += len(col)
        loops += _note_ends(links, row, col, linked)
    return RelationStats(
        name=links.name,
        edges=edges,
        density=edges / (sources * targets) if sources and targets else 0.0,
        mean_degree=edges / sources if sources else 0.0,
        max_degree=most,
        self_loops=loops,
        homophily=None,
    )


def _note_ends(links: _Links, row: Tensor, col: Tensor, linked: dict[str, np.ndarray]) -> int:
    """Take note of nodes with an edge to another one; how many edges go from a node to itself."""
    loops = 0
    if links.source == links.target:
        apart = row != col
        loops = len(row) - int(apart.sum())
        if loops:
            row, col = row[apart], col[apart]
    linked[links.source][row.numpy()] = True
    linked[links.target][col.numpy()] = True
    return loops


def _node_stats(graph: ImportedGraph, kind: str, nodes: _Nodes, isolated: int) -> NodeStats:
    filled, classes, unlabelled = 0, np.zeros(0, dtype=np.int64), 0
    if nodes.width:
        for _, block in graph.files.features(nodes.features, nodes.width, graph.manifest.storage):
            filled += int(torch.count_nonzero(block))
    for y in _labels(graph, nodes):
        counts = np.bincount(y[y >= 0])
        both = np.zeros(max(len(counts), len(classes)), dtype=np.int64)
        both[: len(classes)] += classes
        both[: len(counts)] += counts
        classes, unlabelled = both, unlabelled + int((y < 0).sum())
    entries = nodes.number * nodes.width
    return NodeStats(
        kind=kind,
        count=nodes.number,
        isolated=isolated,
        features=nodes.width or None,
        filled=filled / entries if entries else None,
        classes=classes.tolist(),
        unlabelled=unlabelled,
    )


def _labels(graph: ImportedGraph, nodes: _Nodes) -> Iterator[np.ndarray]:
    for block in nodes.labels:
        yield _classes(graph, block)


def _classes(graph: ImportedGraph, block: RowBlock) -> np.ndarray:
    """Classes of some nodes; numbers that no class has would take memory to count."""
    record = graph.files.record(block, "y")
    y = graph.files.array(record, np.int64, (block.stop - block.start,))
    if len(y) and (y.min() < -1 or y.max() >= 1 << 20):
        raise VerificationError(f"{graph.path / record.file}: expected classes from 0, or -1")
    return y


def _check_links(
    graph: ImportedGraph,
    kinds: dict[str, _Nodes],
    links: _Links,
    linked: dict[str, np.ndarray],
    report: Report,
) -> None:
    same, key = links.source == links.target, secrets.randbits(63)
    told = [0, 0]  # codes of the edges as one side tells them, and as the other does
    loops = unsorted = 0
    sides = [(links.blocks, kinds[links.target].number), (links.back, kinds[links.source].number)]
    for side, (blocks, columns) in enumerate(sides):
        for _, _, row, col in _rows(graph, blocks, columns):
            follows = row[1:] == row[:-1]
            unsorted += int((follows & (col[1:] <= col[:-1])).sum())
            if same:
                loops += _note_ends(links, row, col, linked)
                for way, which in enumerate((row < col, row > col)):
                    told[way] += _sum_of_codes(row[which], col[which], key)
            else:
                ends = (col, row) if side else (row, col)
                _note_ends(links, *ends, linked)
                told[side] += _sum_of_codes(ends[0], ends[1] + SPLIT, key)
    if unsorted:
        report.fault(links.name, f"{unsorted} columns are not in ascending order, or repeated")
    if told[0] % (1 << 64) != told[1] % (1 << 64):
        report.fault(links.name, "edges are told from one of their ends only: not symmetric")
    if loops and not hasattr(graph.manifest, "relations"):
        report.fault(links.name, f"{loops} edges go from a node to itself")


def _sum_of_codes(row: Tensor, col: Tensor, key: int) -> int:
    return int(_edge_code(row, col, key).sum())


def _check_nodes(graph: ImportedGraph, kind: str, nodes: _Nodes, report: Report) -> None:
    if not nodes.width:
        report.note(kind, "no features")
    else:
        features: Any = graph.files.features(nodes.features, nodes.width, graph.manifest.storage)
        wrong = sum(int((~torch.isfinite(block)).any(dim=1).sum()) for _, block in features)
        if wrong:
            report.fault(kind, f"features of {wrong} nodes are not finite numbers")
    for _ in _labels(graph, nodes):
        pass
