"""What was understood of a graph: counts, degrees, features, labels, fingerprint."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmoe.data.counting import NODE, count_nodes, edge_stores, node_stores
from graphmoe.data.fingerprint import graph_fingerprint
from graphmoe.typing import Graph

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class NodeStats:
    """Nodes of one type.

    Attributes:
        kind: The type; ``"node"`` in a homogeneous graph.
        count: How many there are.
        isolated: How many no edge touches (self-loops aside).
        features: Width of ``x``, or ``None`` without features.
        filled: Share of the entries of ``x`` that are not zero.
        classes: Nodes of each class 0, 1, …; empty without labels.
        unlabelled: Nodes marked -1.
    """

    kind: str
    count: int
    isolated: int
    features: int | None
    filled: float | None
    classes: list[int]
    unlabelled: int


@dataclass(frozen=True)
class RelationStats:
    """Edges of one relation.

    Attributes:
        name: ``"source - relation - destination"``; ``"edges"`` in a homogeneous graph.
        edges: How many there are, each direction counted.
        density: Share of the possible pairs that are linked.
        mean_degree: Edges a source node.
        max_degree: The most edges of one source node.
        self_loops: Edges from a node to itself.
        homophily: Share of the edges between labelled nodes whose ends have the same class, or
            ``None`` where the two ends have no common labels.
    """

    name: str
    edges: int
    density: float
    mean_degree: float
    max_degree: int
    self_loops: int
    homophily: float | None


@dataclass(frozen=True)
class GraphStats:
    """A graph in figures. ``str()`` gives tables; ``to_dict()`` gives JSON.

    Attributes:
        name: The graph's name.
        kind: ``"homogeneous"`` or ``"heterogeneous"``.
        target: The node type views are made for, if it is named.
        nodes: One entry a node type.
        relations: One entry a relation.
        splits: Nodes in each published mask, one number a split.
        fingerprint: See :func:`~graphmoe.data.fingerprint.graph_fingerprint`.
    """

    name: str
    kind: str
    target: str | None
    nodes: list[NodeStats]
    relations: list[RelationStats]
    fingerprint: str
    splits: dict[str, list[int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists and dictionaries."""
        return asdict(self)

    def __rich__(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table

        nodes = Table("nodes", box=box.SIMPLE)
        for column in ("count", "isolated", "features", "non-zero", "classes"):
            nodes.add_column(column, justify="right")
        nodes.add_column("nodes a class")
        for node in self.nodes:
            kind = f"{node.kind} (target)" if node.kind == self.target else node.kind
            nodes.add_row(kind, *map(_cell, (node.count, node.isolated, node.features)),
                          _share(node.filled), _cell(len(node.classes) or None),
                          _classes(node))  # fmt: skip
        relations = Table("relation", box=box.SIMPLE)
        for column in ("edges", "density", "mean degree", "max", "self-loops", "homophily"):
            relations.add_column(column, justify="right")
        for edge in self.relations:
            same = "" if edge.homophily is None else f"{edge.homophily:.2f}"
            relations.add_row(edge.name, _cell(edge.edges), f"{edge.density:.2g}",
                              f"{edge.mean_degree:.1f}", _cell(edge.max_degree),
                              _cell(edge.self_loops), same)  # fmt: skip
        lines = [f"{self.name}: {self.kind}, fingerprint {self.fingerprint[:16]}"]
        lines += [
            f"{key}: {', '.join(f'{n:,}' for n in sizes)}" for key, sizes in self.splits.items()
        ]
        return Group(lines[0], nodes, relations, *lines[1:])

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=110, color_system=None)
        console.print(self)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def _cell(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.2g} %" if value < 0.0995 else f"{100 * value:.0f} %"


def _classes(node: NodeStats, limit: int = 12) -> str:
    shown = " ".join(map(str, node.classes[:limit])) + (" …" if len(node.classes) > limit else "")
    return f"{shown} (+{node.unlabelled} unlabelled)" if node.unlabelled else shown


def graph_stats(data: Graph) -> GraphStats:
    """What was understood of a graph.

    Args:
        data: A valid graph (see :func:`~graphmoe.data.validate.validate_graph`).
    """
    hetero = isinstance(data, HeteroData)
    shared = data._global_store if hetero else data._store
    stores, counts = node_stores(data), count_nodes(data)
    relations = {
        relation: store["edge_index"]
        for relation, store in edge_stores(data).items()
        if store.get("edge_index") is not None
    }
    linked = {kind: torch.zeros(count, dtype=torch.bool) for kind, count in counts.items()}
    for (source, _, destination), edges in relations.items():
        edges = edges.cpu()
        if source == destination:
            edges = edges[:, edges[0] != edges[1]]
        linked[source][edges[0]] = True
        linked[destination][edges[1]] = True
    target = shared.get("target") if hetero else None
    masks = stores.get(target or NODE, {})
    return GraphStats(
        name=str(shared.get("name") or "graph"),
        kind="heterogeneous" if hetero else "homogeneous",
        target=target,
        nodes=[_node_stats(kind, store, linked[kind]) for kind, store in stores.items()],
        relations=[
            _relation_stats(kind, edges.cpu(), counts, stores) for kind, edges in relations.items()
        ],
        fingerprint=graph_fingerprint(data),
        splits={
            key: masks[key].reshape(masks[key].size(0), -1).sum(dim=0).tolist()
            for key in ("train_mask", "val_mask", "test_mask")
            if masks.get(key) is not None
        },
    )


def _node_stats(kind: str, store: Any, linked: Tensor) -> NodeStats:
    x, y = store.get("x"), store.get("y")
    filled = None
    if x is not None and x.numel():
        values = x if x.layout == torch.strided else x.to_sparse_coo().coalesce().values()
        filled = int(torch.count_nonzero(values)) / (x.size(0) * x.size(1))
    known = y[y >= 0] if y is not None else torch.empty(0, dtype=torch.long)
    return NodeStats(
        kind=kind,
        count=linked.numel(),
        isolated=int((~linked).sum()),
        features=None if x is None else x.size(1),
        filled=filled,
        classes=known.bincount().tolist() if known.numel() else [],
        unlabelled=0 if y is None else int((y < 0).sum()),
    )


def _relation_stats(
    kind: tuple[str, str, str], edges: Tensor, counts: dict[str, int], stores: dict[str, Any]
) -> RelationStats:
    source, name, destination = kind
    pairs = counts[source] * counts[destination]
    degree = edges[0].bincount(minlength=counts[source])
    homophily = None
    y = stores[source].get("y") if source == destination else None
    if y is not None:
        ends = y.cpu()[edges]
        both = (ends >= 0).all(dim=0)
        homophily = float((ends[0] == ends[1])[both].float().mean()) if both.any() else None
    return RelationStats(
        name=f"{source} - {name} - {destination}" if name else "edges",
        edges=edges.size(1),
        density=edges.size(1) / pairs if pairs else 0.0,
        mean_degree=edges.size(1) / counts[source] if counts[source] else 0.0,
        max_degree=int(degree.max()) if degree.numel() else 0,
        self_loops=int((edges[0] == edges[1]).sum()) if source == destination else 0,
        homophily=homophily,
    )
