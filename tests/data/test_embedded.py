from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine
from torch_geometric.data import HeteroData
from torch_geometric.utils import is_undirected

from graphmoe.data import embedded_graphs, knn_edges, load_graph, validate_graph

#: nodes, edges (each direction), classes
HOMOGENEOUS = {
    "karate": (34, 156, [17, 17]),
    "les_miserables": (77, 508, None),
    "florentine": (15, 40, None),
    "digits": (1797, 24680, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
    "breast_cancer": (569, None, [212, 357]),
    "wine": (178, None, [59, 71, 48]),
    "iris": (150, None, [50, 50, 50]),
}
HETEROGENEOUS = {
    "southern_women": ("woman", {"woman": 18, "event": 14}, None),
    "digits_pixels": (
        "digit",
        {"digit": 1797, "pixel": 43, "row_stroke": 302, "column_stroke": 642},
        10,
    ),
    "wine_levels": (
        "wine",
        {"wine": 178, "body": 60, "mineral": 56, "phenol": 79, "colour": 60},
        3,
    ),
    "breast_cancer_levels": (
        "tumour",
        {"tumour": 569, "mean_level": 200, "error_level": 200, "worst_level": 200},
        2,
    ),
}


def test_every_embedded_graph_is_covered_here() -> None:
    assert set(embedded_graphs()) == {*HOMOGENEOUS, *HETEROGENEOUS}


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_homogeneous(name: str) -> None:
    nodes, edges, classes = HOMOGENEOUS[name]
    data = load_graph(name)
    assert data.num_nodes == nodes
    assert edges in (None, data.num_edges)
    assert is_undirected(data.edge_index, num_nodes=nodes)
    assert ("y" in data) == (classes is not None)
    if classes:
        assert data.y.bincount().tolist() == classes
    assert not validate_graph(data)[1].repairs


@pytest.mark.parametrize("name", HETEROGENEOUS)
def test_heterogeneous(name: str) -> None:
    target, nodes, classes = HETEROGENEOUS[name]
    data = load_graph(name)
    assert isinstance(data, HeteroData)
    assert data.target == target
    assert {kind: data[kind].num_nodes for kind in data.node_types} == nodes
    assert ("y" in data[target]) == (classes is not None)
    if classes:
        assert data[target].y.unique().tolist() == list(range(classes))
    for source, relation, destination in data.edge_types:
        if not relation.startswith("rev_"):
            forward = data[source, relation, destination].edge_index
            backward = data[destination, f"rev_{relation}", source].edge_index
            assert torch.equal(forward, backward.flip(0))
    assert not validate_graph(data)[1].repairs


def test_southern_women_attendances() -> None:
    data = load_graph("southern_women")
    edges = data["woman", "attends", "event"].edge_index
    assert edges.size(1) == 89
    evelyn = data["woman"].node_names.index("Evelyn Jefferson")
    attended = {data["event"].node_names[e] for e in edges[1, edges[0] == evelyn].tolist()}
    assert attended == {"E1", "E2", "E3", "E4", "E5", "E6", "E8", "E9"}


def test_digits_have_the_pixels_they_ink() -> None:
    data, images = load_graph("digits_pixels"), load_digits().data
    degree = data["digit", "has", "pixel"].edge_index[0].bincount(minlength=1797)
    assert np.array_equal(degree.numpy(), (images == 16).sum(axis=1))
    strokes = data["digit", "has", "row_stroke"].edge_index[0].bincount(minlength=1797)
    inked_rows = (images.reshape(-1, 8, 8) >= 8).any(axis=2).sum(axis=1)
    assert np.array_equal(strokes.numpy(), inked_rows)


def test_wine_has_one_level_of_each_measurement() -> None:
    data, table = load_graph("wine_levels"), load_wine().data
    edges = data["wine", "has", "body"].edge_index
    assert edges[0].bincount().tolist() == [3] * 178
    # Wines that share a level of every measurement of the group lie in the same quantiles.
    levels: dict[int, set[int]] = {}
    for wine, level in edges.t().tolist():
        levels.setdefault(level, set()).add(wine)
    assert sorted(map(len, levels.values()))[0] >= 1
    alcohol = table[:, 0]
    lowest = {int(w) for w in np.flatnonzero(alcohol < np.quantile(alcohol, 0.05))}
    assert any(lowest == wines for wines in levels.values())


@pytest.mark.parametrize("block", [7, 1024])
def test_knn_is_exact(block: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(60, 4))
    distance = ((table[:, None] - table[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    linked = np.zeros((60, 60), dtype=bool)
    np.put_along_axis(linked, np.argsort(distance, axis=1)[:, :5], True, axis=1)
    linked |= linked.T
    edges = knn_edges(table, 5, block=block).numpy()
    assert np.array_equal(edges, np.stack(np.nonzero(linked)))


def test_knn_of_repeated_rows_links_no_row_to_itself() -> None:
    table = np.zeros((12, 3))
    edges = knn_edges(table, 4)
    assert (edges[0] != edges[1]).all()
    assert edges[0].bincount(minlength=12).min() >= 4


@pytest.mark.parametrize("k", [0, 12, 13])
def test_knn_refuses_a_k_beyond_the_rows(k: int) -> None:
    with pytest.raises(ValueError, match="between 1 and the number of other rows 11"):
        knn_edges(np.zeros((12, 3)), k)
