"""networkx graphs to PyG and back, without loss."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphmoe.errors import DataError
from graphmoe.typing import EdgeType, Graph

if TYPE_CHECKING:
    import networkx as nx

_META = "graphmoe"


def to_networkx(data: Graph) -> nx.MultiDiGraph:
    """A PyG graph as a directed networkx multigraph that :func:`from_networkx` gives back exactly.

    Every edge becomes one edge, repeats and self-loops included; its key is its position (in its
    relation), so that the order of edges survives. Nodes of a ``Data`` are 0, 1, …; those of a
    ``HeteroData`` are ``(type, 0)``, ``(type, 1)``, … with attributes ``node_type`` on nodes and
    ``edge_type`` on edges. Tensors with one row a node (an edge) become attributes of the nodes
    (edges): numbers, or tensors for wider rows. All other attributes stand in ``graph.graph``.

    Args:
        data: ``Data`` or ``HeteroData``.
    """
    import networkx as nx

    graph = nx.MultiDiGraph()
    meta: dict[str, Any] = {"hetero": isinstance(data, HeteroData), "nodes": {}, "edges": {}}
    if isinstance(data, HeteroData):
        meta["graph"] = dict(data._global_store.items())
        for kind in data.node_types:
            rows, rest = _per_row(data[kind], int(data[kind].num_nodes or 0))
            meta["nodes"][kind] = {"rest": rest, "dtypes": _dtypes(rows)}
            for i, attributes in enumerate(_unstacked(rows, int(data[kind].num_nodes or 0))):
                graph.add_node((kind, i), node_type=kind, **attributes)
        for relation in data.edge_types:
            _add_relation(graph, meta, data[relation], relation)
    else:
        nodes = int(data.num_nodes or 0)
        rows, rest = _per_row(data._store, nodes, _edge_keys(data))
        meta["nodes"][None] = {"rest": rest, "dtypes": _dtypes(rows)}
        for i, attributes in enumerate(_unstacked(rows, nodes)):
            graph.add_node(i, **attributes)
        _add_relation(graph, meta, data._store, None, _edge_keys(data))
    graph.graph[_META] = meta
    return graph


def from_networkx(
    graph: nx.Graph,
    *,
    features: Sequence[str] | None = None,
    label: str | None = None,
    node_type: str = "node_type",
    edge_type: str = "edge_type",
    weight: str | None = "weight",
    target: str | None = None,
) -> Graph:
    """A networkx graph of any kind as ``Data``, or as ``HeteroData`` if its nodes have types.

    What :func:`to_networkx` wrote is given back exactly. Of any other graph the nodes keep their
    order and their names (``node_names``), the edges of an undirected graph go both ways, and:

    Args:
        graph: ``Graph``, ``DiGraph``, ``MultiGraph`` or ``MultiDiGraph``.
        features: Numeric node attributes that become the columns of ``x``, in this order; in a
            heterogeneous graph, of every type whose nodes have them all.
        label: Node attribute that becomes ``y``; words are numbered in alphabetical order
            (``class_names``), and a node without it gets -1.
        node_type: Node attribute that names the type. Typed graphs become ``HeteroData``.
        edge_type: Edge attribute that names the relation; ``"to"`` where there is none.
        weight: Edge attribute that becomes ``edge_weight``, if every edge has it.
        target: Kept as ``data.target`` of a heterogeneous graph.

    Raises:
        DataError: Some nodes have a type and some have none, or an attribute is not numeric.

    Example:
        >>> import networkx as nx
        >>> from graphmoe.data.interop import from_networkx
        >>> data = from_networkx(nx.karate_club_graph(), label="club")
        >>> data.class_names, data.y.bincount().tolist()
        (['Mr. Hi', 'Officer'], [17, 17])
    """
    if isinstance(graph.graph.get(_META), dict):
        return _restore(graph, graph.graph[_META])
    typed = [name for name, kind in graph.nodes(data=node_type) if kind is not None]
    if typed and len(typed) < len(graph):
        raise DataError(
            f"{len(graph) - len(typed)} of {len(graph)} nodes have no {node_type!r}: expected a "
            "type on every node or on none"
        )
    if not typed:
        data = Data()
        position = _fill_nodes(data, graph, list(graph.nodes), features, label)
        _fill_edges(data, list(graph.edges(data=True)), position, position, graph, weight)
        return data
    return _typed(graph, features, label, node_type, edge_type, weight, target)


def _typed(
    graph: nx.Graph,
    features: Sequence[str] | None,
    label: str | None,
    node_type: str,
    edge_type: str,
    weight: str | None,
    target: str | None,
) -> HeteroData:
    data = HeteroData()
    if target is not None:
        data.target = target
    kinds = {name: str(kind) for name, kind in graph.nodes(data=node_type)}
    position = {
        kind: _fill_nodes(
            data[kind], graph, [n for n in kinds if kinds[n] == kind], features, label
        )
        for kind in dict.fromkeys(kinds.values())
    }
    relations: dict[EdgeType, list[Any]] = {}
    for source, destination, attributes in graph.edges(data=True):
        name = str(attributes.get(edge_type, "to"))
        ends = [(source, destination)]
        if not graph.is_directed() and source != destination:
            ends.append((destination, source))
        for a, b in ends:
            relations.setdefault((kinds[a], name, kinds[b]), []).append((a, b, attributes))
    for relation, edges in relations.items():
        source_at, destination_at = position[relation[0]], position[relation[2]]
        _fill_edges(data[relation], edges, source_at, destination_at, None, weight)
    return data


def _fill_nodes(
    store: Any,
    graph: nx.Graph,
    names: list[Hashable],
    features: Sequence[str] | None,
    label: str | None,
) -> dict[Hashable, int]:
    """Put what is known of the nodes into ``store``; the number of each by its name."""
    store.num_nodes = len(names)
    store.node_names = [str(name) for name in names]
    attributes = [graph.nodes[name] for name in names]
    if features and all(key in node for node in attributes for key in features):
        try:
            rows = [[float(node[key]) for key in features] for node in attributes]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"features {', '.join(features)} are not all numbers ({error})"
            ) from error
        store.x = torch.tensor(rows, dtype=torch.float32)
    if label and any(label in node for node in attributes):
        values = [node.get(label) for node in attributes]
        if not all(value is None or isinstance(value, int) for value in values):
            store.class_names = sorted({str(value) for value in values if value is not None})
            values = [None if v is None else store.class_names.index(str(v)) for v in values]
        store.y = torch.tensor([-1 if value is None else int(value) for value in values])
    return {name: i for i, name in enumerate(names)}


def _fill_edges(
    store: Any,
    edges: list[Any],
    source_at: dict[Hashable, int],
    destination_at: dict[Hashable, int],
    graph: nx.Graph | None,
    weight: str | None,
) -> None:
    if graph is not None and not graph.is_directed():
        edges = edges + [(b, a, attributes) for a, b, attributes in edges if a != b]
    pairs = [(source_at[a], destination_at[b]) for a, b, _ in edges]
    store.edge_index = torch.tensor(pairs, dtype=torch.long).view(-1, 2).t().contiguous()
    if weight and edges and all(weight in attributes for *_, attributes in edges):
        store.edge_weight = torch.tensor([float(attributes[weight]) for *_, attributes in edges])


def _edge_keys(data: Data) -> set[str]:
    return {key for key in data._store if data.is_edge_attr(key) and key != "edge_index"}


def _per_row(
    store: Any, count: int, other: set[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The attributes of a store with one row each, and the rest."""
    rows, rest = {}, {}
    for key, value in store.items():
        if key == "edge_index" or (other and key in other):
            continue
        dense = isinstance(value, Tensor) and value.layout == torch.strided
        if dense and value.dim() and value.size(0) == count > 0:
            rows[key] = value
        else:
            rest[key] = value
    return rows, rest


def _dtypes(rows: dict[str, Tensor]) -> dict[str, torch.dtype]:
    return {key: value.dtype for key, value in rows.items()}


def _unstacked(rows: dict[str, Tensor], count: int) -> list[dict[str, Any]]:
    columns = {key: value.tolist() if value.dim() == 1 else list(value.unbind())
               for key, value in rows.items()}  # fmt: skip
    return [{key: column[i] for key, column in columns.items()} for i in range(count)]


def _add_relation(
    graph: nx.MultiDiGraph,
    meta: dict[str, Any],
    store: Any,
    relation: EdgeType | None,
    keys: set[str] | None = None,
) -> None:
    edges = store.get("edge_index")
    if edges is None:
        meta["edges"][relation] = None
        return
    rows = {key: store[key] for key in store if keys is None or key in keys}
    rows, rest = _per_row(rows, edges.size(1))
    meta["edges"][relation] = {"rest": rest, "dtypes": _dtypes(rows), "dtype": edges.dtype}
    attributes = _unstacked(rows, edges.size(1))
    for i, (source, destination) in enumerate(edges.t().tolist()):
        if relation is None:
            graph.add_edge(source, destination, key=i, **attributes[i])
        else:
            ends = (relation[0], source), (relation[2], destination)
            graph.add_edge(*ends, key=(relation, i), edge_type=relation, **attributes[i])


def _restore(graph: nx.MultiDiGraph, meta: dict[str, Any]) -> Graph:
    """The inverse of :func:`to_networkx`, also of a part of what it wrote (a subgraph)."""
    try:
        return _restored(graph, meta)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "nodes or edges were added to a graph that to_networkx wrote, without the attributes "
            f"its own have ({error}); delete graph.graph[{_META!r}] to read it as any other graph"
        ) from error


def _restored(graph: nx.MultiDiGraph, meta: dict[str, Any]) -> Graph:
    data: Graph = HeteroData() if meta["hetero"] else Data()
    for key, value in meta.get("graph", {}).items():
        data._global_store[key] = value
    position: dict[Hashable, int] = {}
    for kind, described in meta["nodes"].items():
        store = data._store if kind is None else data[kind]
        # A subgraph lists its nodes in no order of ours; their names are their old numbers.
        names = sorted(n for n, a in graph.nodes(data=True) if kind in (None, a.get("node_type")))
        position.update({name: i for i, name in enumerate(names)})
        _stack(store, [graph.nodes[name] for name in names], described)
        if "num_nodes" in described["rest"]:
            store.num_nodes = len(names)
    found: dict[EdgeType | None, list[tuple[int, int, int, dict[str, Any]]]] = {}
    for source, destination, key, attributes in graph.edges(keys=True, data=True):
        relation, i = key if meta["hetero"] else (None, key)
        edge = (i, position[source], position[destination], attributes)
        found.setdefault(relation, []).append(edge)
    for relation, described in meta["edges"].items():
        if described is None:
            continue
        store = data._store if relation is None else data[relation]
        edges = sorted(found.get(relation, []), key=lambda edge: edge[0])
        pairs = torch.tensor([edge[1:3] for edge in edges], dtype=described["dtype"]).view(-1, 2)
        store.edge_index = pairs.t().contiguous()
        _stack(store, [edge[3] for edge in edges], described)
    return data


def _stack(store: Any, attributes: list[dict[str, Any]], described: dict[str, Any]) -> None:
    for key, value in described["rest"].items():
        store[key] = value
    for key, dtype in described["dtypes"].items():
        values = [row[key] for row in attributes]
        if values and isinstance(values[0], Tensor):
            store[key] = torch.stack(values)
        else:
            store[key] = torch.tensor(values, dtype=dtype)
