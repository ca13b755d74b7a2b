"""DGL graphs to PyG and back, without loss. Needs the extra ``dgl``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphmoe.errors import DataError, MissingExtraError
from graphmoe.typing import Graph

if TYPE_CHECKING:
    import dgl

# What PyG and DGL users call the same things; everything else keeps its name.
_NODE_NAMES = {"x": "feat", "y": "label"}
_EDGE_NAMES = {"edge_weight": "weight", "edge_attr": "feat"}


def _dgl() -> Any:
    # Without a choice DGL asks for one on the terminal and writes a file into the home folder.
    os.environ.setdefault("DGLBACKEND", "pytorch")
    try:
        import dgl
    except (ImportError, OSError) as error:
        raise MissingExtraError.for_extra("dgl", "dgl") from error
    return dgl


def to_dgl(data: Graph) -> dgl.DGLGraph:
    """A PyG graph as a DGL graph with the same nodes and the same edges in the same order.

    Tensors with one row a node (an edge) become ``ndata`` (``edata``), with DGL's usual names:
    ``x`` is ``feat``, ``y`` is ``label``, ``edge_weight`` is ``weight`` and ``edge_attr`` is
    ``feat``. Other attributes (``name``, ``target``, …) have no place in DGL and are left out.

    Args:
        data: ``Data`` or ``HeteroData``, valid.

    Raises:
        MissingExtraError: DGL is not installed.
    """
    library = _dgl()
    if isinstance(data, HeteroData):
        edges = {kind: tuple(data[kind].edge_index) for kind in data.edge_types}
        counts = {kind: int(data[kind].num_nodes or 0) for kind in data.node_types}
        graph = library.heterograph(edges, num_nodes_dict=counts, idtype=torch.int64)
        for kind in data.node_types:
            graph.nodes[kind].data.update(_rows(data[kind], counts[kind], _NODE_NAMES))
        for kind in data.edge_types:
            rows = _rows(data[kind], data[kind].edge_index.size(1), _EDGE_NAMES)
            graph.edges[kind].data.update(rows)
        return graph
    graph = library.graph(tuple(data.edge_index), num_nodes=data.num_nodes, idtype=torch.int64)
    keys = [key for key in data._store if key != "edge_index"]
    edge_keys = {key for key in keys if data.is_edge_attr(key)}
    nodes = {key: data[key] for key in keys if key not in edge_keys}
    graph.ndata.update(_rows(nodes, int(data.num_nodes or 0), _NODE_NAMES))
    edge_values = {key: data[key] for key in edge_keys}
    graph.edata.update(_rows(edge_values, data.num_edges, _EDGE_NAMES))
    return graph


def _rows(store: Any, count: int, names: dict[str, str]) -> dict[str, Tensor]:
    return {
        names.get(key, key): value
        for key, value in store.items()
        if key != "edge_index" and isinstance(value, Tensor) and value.layout == torch.strided
        and value.dim() and value.size(0) == count
    }  # fmt: skip


def from_dgl(graph: dgl.DGLGraph, *, target: str | None = None) -> Graph:
    """A DGL graph as ``Data``, or as ``HeteroData`` if it has several types.

    The inverse of :func:`to_dgl`, by the same names.

    Args:
        graph: Any ``DGLGraph`` that is not a block.
        target: Kept as ``data.target`` of a heterogeneous graph.

    Raises:
        MissingExtraError: DGL is not installed.
        DataError: It is a block of a sampled batch, whose two sides are different nodes.
    """
    library = _dgl()
    if not isinstance(graph, library.DGLGraph):
        raise TypeError(f"expected a dgl.DGLGraph, got {type(graph).__name__}")
    if graph.is_block:
        raise DataError("a DGL block has different nodes on its two sides: pass the graph itself")
    node_names = {name: key for key, name in _NODE_NAMES.items()}
    edge_names = {name: key for key, name in _EDGE_NAMES.items()}
    if len(graph.ntypes) == 1 and len(graph.canonical_etypes) == 1:
        data = Data(edge_index=_edges(graph, graph.canonical_etypes[0]))
        data.num_nodes = graph.num_nodes()
        _fill(data, graph.ndata, node_names)
        _fill(data, graph.edata, edge_names)
        return data
    hetero = HeteroData()
    if target is not None:
        hetero.target = target
    for kind in graph.ntypes:
        hetero[kind].num_nodes = graph.num_nodes(kind)
        _fill(hetero[kind], graph.nodes[kind].data, node_names)
    for relation in graph.canonical_etypes:
        hetero[relation].edge_index = _edges(graph, relation)
        _fill(hetero[relation], graph.edges[relation].data, edge_names)
    return hetero


def _edges(graph: dgl.DGLGraph, relation: tuple[str, str, str]) -> Tensor:
    return torch.stack(graph.edges(etype=relation, order="eid")).long()


def _fill(store: Any, values: Any, names: dict[str, str]) -> None:
    for key, value in values.items():
        store[names.get(key, key)] = value
