"""The boundary: a graph is checked once, here, and every fault is said at once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphmoe.data.checks import check_edges, check_features, check_labels, check_masks
from graphmoe.data.counting import NODE, count_common, count_nodes, stated_nodes
from graphmoe.data.report import Report
from graphmoe.typing import Graph

#: So many nodes may be there of which nothing is known, and for each end of an edge.
MOST_UNKNOWN, MOST_ISOLATED = 10_000_000, 1000


def validate_graph(
    data: Graph,
    *,
    target: str | None = None,
    repair: bool = True,
    raise_on_fault: bool = True,
) -> tuple[Graph, Report]:
    """Check a graph, and repair on a copy what has one sensible repair.

    Faults: node ids that are negative or out of range, edges that are not whole numbers, NaN or
    infinite features, lengths that contradict each other, one node, no edges, labels below -1 or
    not whole, a target type that is missing or ambiguous or has no meta-path. Repairs: smaller
    integer types of edges and labels and other number types of features (converted), repeated
    edges (merged; the values of the first are kept), gaps in labels (renumbered), an unstated
    number of nodes. Notes: self-loops, isolated nodes, empty relations, links without a reverse,
    unlabelled nodes.

    Args:
        data: A graph; never changed.
        target: The node type that views are made for (heterogeneous graphs).
            (default: ``data.target``, else the only type with labels)
        repair: Whether the returned graph is repaired.
        raise_on_fault: Whether faults raise, or are only in the report.

    Returns:
        The graph to use (a shallow copy) and the report. With faults and ``raise_on_fault=False``
        the copy is not fit for use.

    Raises:
        DataError: There are faults; the message lists all of them.
        TypeError: ``data`` is no PyG graph.
    """
    if not isinstance(data, (Data, HeteroData)):
        raise TypeError(
            "expected a torch_geometric Data or HeteroData (graphmoe.data.interop converts DGL "
            f"and networkx graphs), got {type(data).__name__}"
        )
    data = copy.copy(data)
    report = Report(str(data.get("name") or "graph") if isinstance(data, Data) else _name(data))
    report.repaired = repair
    if isinstance(data, HeteroData):
        _check_hetero(report, data, target)
    else:
        _check_homogeneous(report, data, target)
    if raise_on_fault:
        report.raise_for_faults()
    return data, report


def _name(data: HeteroData) -> str:
    return str(data._global_store.get("name") or "graph")


def _check_homogeneous(report: Report, data: Data, target: str | None) -> None:
    store = data._store
    if target is not None:
        report.note("graph", f"target type {target!r} is not needed: there is one type of node")
    nodes = _count_nodes(report, "graph", "", store, count_nodes(data)[NODE])
    if nodes == 0:
        report.fault("graph", "there are no nodes")
        return
    if not _reached(report, "graph", nodes, store, [store]):
        return
    if nodes == 1:
        report.fault("graph", "there is one node: views need at least two")
    check_features(report, "x", store, nodes, target=True)
    check_labels(report, "y", store, nodes)
    check_masks(report, "", store, nodes)
    edges = check_edges(report, "edge_index", store, nodes, nodes, same_type=True)
    if isinstance(edge_index := store.get("edge_index"), Tensor) and edge_index.numel() == 0:
        report.fault("edge_index", "there are no edges")
        return
    _note_one_way(report, "edge_index", edges, nodes)
    _note_isolated(report, "graph", nodes, edges[:, edges[0] != edges[1]].ravel())


def _check_hetero(report: Report, data: HeteroData, target: str | None) -> None:
    counts = count_nodes(data)
    types = list(counts)
    if not types:
        report.fault("graph", "there are no node types")
        return
    reached = [
        _reached(
            report, kind, counts[kind], data[kind], [data[t] for t in data.edge_types if kind in t]
        )
        for kind in types
    ]
    if not all(reached):
        return
    for kind in types:
        _count_nodes(report, kind, f"{kind}.", data[kind], counts[kind])
        if counts[kind] == 0:
            report.note(kind, "the type has no nodes")
    target = _find_target(report, data, types, target)
    for kind in types:
        check_features(report, f"{kind}.x", data[kind], counts[kind], target=kind == target)
        check_labels(report, f"{kind}.y", data[kind], counts[kind])
        check_masks(report, f"{kind}.", data[kind], counts[kind])
    linked: dict[str, list[np.ndarray]] = {kind: [] for kind in types}
    for relation in data.edge_types:
        source, _, destination = relation
        where = f"({', '.join(relation)})"
        same = source == destination
        edges = check_edges(
            report, where, data[relation], counts[source], counts[destination], same
        )
        if isinstance(held := data[relation].get("edge_index"), Tensor) and held.numel() == 0:
            report.note(where, "the relation has no edges")
        if same:
            edges = edges[:, edges[0] != edges[1]]
        linked[source].append(edges[0])
        linked[destination].append(edges[1])
    ends_of = {kind: np.concatenate(ends) for kind, ends in linked.items() if ends}
    if not any(len(ends) for ends in ends_of.values()):
        report.fault("graph", "there are no edges")
    for kind in types:
        _note_isolated(report, kind, counts[kind], ends_of.get(kind, _NO_ENDS))
    if target is not None:
        _check_target(report, data, target, counts[target], ends_of.get(target, _NO_ENDS))


_NO_ENDS = np.zeros(0, dtype=np.int64)


def _reached(report: Report, where: str, nodes: int, store: Any, relations: list[Any]) -> bool:
    """Whether enough is known of the nodes for so many; a wrong number would take all memory."""
    held = [store.get(key) for key in ("x", "y")]
    rows = [len(each) for each in held if isinstance(each, Tensor) and each.dim() and each.numel()]
    edges = [relation.get("edge_index") for relation in relations]
    known = sum(rows) + sum(each.numel() for each in edges if isinstance(each, Tensor))
    if nodes <= max(MOST_UNKNOWN, MOST_ISOLATED * known):
        return True
    report.fault(
        where,
        f"{nodes} nodes, of which nearly all are in no edge: is a number of nodes or an id wrong? "
        "Number them from 0 without gaps, or give their ids",
    )
    return False


def _count_nodes(report: Report, where: str, prefix: str, store: Any, nodes: int) -> int:
    """Make a store state its ``nodes``; when only the edges told how many there are, say so."""
    if stated_nodes(store) is None and nodes:
        report.repair(
            where,
            f"the number of nodes is not stated (by {prefix}num_nodes, {prefix}x or {prefix}y)",
            f"taken as {nodes} from the largest index",
        )
    # PyG itself does not count labels, and would guess from the edges.
    if report.repaired and "num_nodes" not in store and "x" not in store:
        store.num_nodes = nodes
    return nodes


def _find_target(
    report: Report, data: HeteroData, types: list[str], target: str | None
) -> str | None:
    known = ", ".join(types)
    target = target or data._global_store.get("target")
    if target is not None:
        if target in types:
            if report.repaired:
                data.target = target
            return target
        report.fault("target", f"there is no node type {target!r}; the types are {known}")
        return None
    labelled = [kind for kind in types if data[kind].get("y") is not None]
    if len(labelled) == 1:
        report.note("target", f"{labelled[0]}, the only type with labels")
        if report.repaired:
            data.target = labelled[0]
        return labelled[0]
    reason = f"{', '.join(labelled)} have labels" if labelled else "no type has labels"
    report.fault("target", f"not named, and {reason}: set data.target to one of {known}")
    return None


def _check_target(
    report: Report, data: HeteroData, target: str, nodes: int, ends: np.ndarray
) -> None:
    if nodes == 1:
        report.fault(target, "there is one target node: views need at least two")
    if data[target].get("y") is None:
        report.note(target, "no labels: it can be pre-trained on, and not scored")
    if nodes and not len(ends):
        report.fault(
            target, "no relation with edges touches the target type, so it has no meta-path"
        )


def _note_one_way(report: Report, where: str, edges: np.ndarray, nodes: int) -> None:
    codes = np.sort(edges[0] * nodes + edges[1])
    reverse = np.sort(edges[1] * nodes + edges[0])
    if single := len(codes) - count_common(codes, reverse):
        report.note(where, f"{single} of {len(codes)} edges have no reverse (views are undirected)")


def _note_isolated(report: Report, where: str, nodes: int, ends: np.ndarray) -> None:
    linked = np.zeros(nodes, dtype=bool)
    linked[ends] = True
    if isolated := nodes - int(linked.sum()):
        report.note(where, f"{isolated} of {nodes} nodes are isolated")
