"""Real graphs that ship inside the dependencies: nothing is downloaded.

Social networks come with networkx; tables come with scikit-learn and become either the graph of
exact nearest neighbours of their rows (homogeneous) or entity-attribute graphs (heterogeneous).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphmoe.data.knn import knn_edges

#: Neighbours of each row in the nearest-neighbour graphs.
NEIGHBOURS = 10


def _social(graph: Any, label: str | None = None) -> Data:
    """A networkx graph as ``Data``: node order kept, both directions, link weights if any."""
    names = list(graph.nodes)
    position = {name: i for i, name in enumerate(names)}
    edges = [(position[u], position[v], w) for u, v, w in graph.edges(data="weight")]
    both = sorted([(u, v, w) for u, v, w in edges] + [(v, u, w) for u, v, w in edges])
    data = Data(
        edge_index=torch.tensor([e[:2] for e in both]).t().contiguous(),
        num_nodes=len(names),
        node_names=[str(name) for name in names],
    )
    if all(w is not None for *_, w in both):
        data.edge_weight = torch.tensor([float(w) for *_, w in both])
    if label:
        values = [graph.nodes[name][label] for name in names]
        data.class_names = sorted(set(values))
        data.y = torch.tensor([data.class_names.index(value) for value in values])
    return data


def karate() -> Data:
    """Zachary's karate club: 34 members, 78 ties, the club each joined when it split."""
    import networkx as nx

    return _social(nx.karate_club_graph(), "club")


def les_miserables() -> Data:
    """Characters of *Les Misérables* who appear together: 77 nodes, 254 ties, no labels."""
    import networkx as nx

    return _social(nx.les_miserables_graph())


def florentine() -> Data:
    """Marriages between 15 Florentine families: 20 ties, no labels."""
    import networkx as nx

    return _social(nx.florentine_families_graph())


def _table(name: str) -> Any:
    import sklearn.datasets

    return getattr(sklearn.datasets, f"load_{name}")()


def _standardised(values: np.ndarray) -> np.ndarray:
    """Columns to mean 0 and deviation 1; a constant column becomes 0."""
    deviation = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


def _neighbours(name: str, scale: bool) -> Data:
    """The exact kNN graph of a scikit-learn table; units differ, so most are standardised."""
    table = _table(name)
    values = _standardised(table.data) if scale else table.data
    return Data(
        x=torch.from_numpy(values).float(),
        edge_index=knn_edges(values, NEIGHBOURS),
        y=torch.from_numpy(table.target).long(),
        class_names=[str(c) for c in table.target_names],
    )


def digits() -> Data:
    """1,797 handwritten digits of 8 x 8 pixels, each linked to its 10 nearest; 10 classes."""
    return _neighbours("digits", scale=False)


def breast_cancer() -> Data:
    """569 tumours by 30 measurements (standardised), each linked to its 10 nearest; 2 classes."""
    return _neighbours("breast_cancer", scale=True)


def wine() -> Data:
    """178 wines by 13 analyses (standardised), each linked to its 10 nearest; 3 classes."""
    return _neighbours("wine", scale=True)


def iris() -> Data:
    """150 flowers by 4 lengths (standardised), each linked to its 10 nearest; 3 classes."""
    return _neighbours("iris", scale=True)


def southern_women() -> HeteroData:
    """Davis's Southern women: 18 women, 14 social events, 89 attendances, no labels."""
    import networkx as nx

    graph = nx.davis_southern_women_graph()
    women, events = graph.graph["top"], graph.graph["bottom"]
    pairs = [(w, e) for w, woman in enumerate(women) for e, event in enumerate(events)
             if graph.has_edge(woman, event)]  # fmt: skip
    data = HeteroData(target="woman")
    data["woman"].num_nodes, data["woman"].node_names = len(women), list(women)
    data["event"].num_nodes, data["event"].node_names = len(events), list(events)
    _link(data, "woman", "attends", "event", torch.tensor(pairs).t())
    return data


def _link(data: HeteroData, source: str, relation: str, destination: str, edges: Tensor) -> None:
    """Put a relation and its reverse into ``data``."""
    data[source, relation, destination].edge_index = edges.contiguous()
    data[destination, f"rev_{relation}", source].edge_index = edges.flip(0).contiguous()


def _attributes(data: HeteroData, kind: str, codes: np.ndarray, present: np.ndarray) -> None:
    """Link every entity to the attributes it has.

    Args:
        data: The graph, which has its target type already.
        kind: The name of the attribute type.
        codes: ``[N, m]`` the attribute at each of the m places.
        present: ``[N, m]`` whether there is one at that place.
    """
    entity, place = np.nonzero(present)
    used, attribute = np.unique(codes[entity, place], return_inverse=True)
    data[kind].num_nodes = len(used)
    _link(data, data.target, "has", kind, torch.from_numpy(np.stack([entity, attribute.ravel()])))


def digits_pixels() -> HeteroData:
    """Handwritten digits by what they are drawn with: 1,797 digits, 10 classes.

    A digit has the pixels inked to the full (16 of 16), and the strokes its rows and columns
    show: the pattern of pixels at least half inked in one of the 8 rows (columns), blank ones
    left out. No type has features.
    """
    table = _table("digits")
    data = HeteroData(target="digit")
    data["digit"].y = torch.from_numpy(table.target).long()
    data["digit"].num_nodes = len(table.target)
    pixels = np.broadcast_to(np.arange(64), table.data.shape)
    _attributes(data, "pixel", pixels, table.data >= 16)
    inked = table.images >= 8
    bits, place = 2 ** np.arange(8), np.arange(8) * 256
    for kind, image in (("row_stroke", inked), ("column_stroke", inked.transpose(0, 2, 1))):
        pattern = (image * bits).sum(axis=2)
        _attributes(data, kind, pattern + place, pattern > 0)
    return data


def _levels(name: str, target: str, groups: dict[str, list[int]], levels: int) -> HeteroData:
    """A table as a graph of rows and the levels of their measurements.

    Each column is cut at its quantiles; a row has, for every column of a group, the level it
    falls in. Two rows are then joined over a group when they share a level of one measurement.
    """
    table = _table(name)
    cuts = np.quantile(table.data, np.linspace(0, 1, levels + 1)[1:-1], axis=0)
    level = np.stack(
        [np.searchsorted(cuts[:, c], column, side="right") for c, column in enumerate(table.data.T)]
    ).T
    data = HeteroData(target=target)
    data[target].x = torch.from_numpy(_standardised(table.data)).float()
    data[target].y = torch.from_numpy(table.target).long()
    for kind, columns in groups.items():
        codes = level[:, columns] + np.asarray(columns) * levels
        _attributes(data, kind, codes, np.ones(codes.shape, dtype=bool))
    return data


def wine_levels() -> HeteroData:
    """178 wines and the levels (20 quantiles) of their minerals, phenols, colour and body."""
    groups = {
        "body": [0, 1, 12],
        "mineral": [2, 3, 4],
        "phenol": [5, 6, 7, 8],
        "colour": [9, 10, 11],
    }
    return _levels("wine", "wine", groups, levels=20)


def breast_cancer_levels() -> HeteroData:
    """569 tumours and the levels (20 quantiles) of the mean, error and worst of 10 measurements."""
    groups = {
        "mean_level": list(range(10)),
        "error_level": list(range(10, 20)),
        "worst_level": list(range(20, 30)),
    }
    return _levels("breast_cancer", "tumour", groups, levels=20)
