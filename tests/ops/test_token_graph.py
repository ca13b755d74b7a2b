"""Which tokens look at which, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csr_tensor

from graphmoe.ops import TokenGraph, input_graph, knn_graph


def pairs(graph: TokenGraph) -> list[tuple[int, int]]:
    """The edges that count."""
    keep = ~graph.drop
    return list(zip(graph.edges.row[keep].tolist(), graph.edges.col[keep].tolist(), strict=True))


def nearest(x: Tensor, k: int, batch: Tensor, causal: bool) -> list[tuple[int, int]]:
    found = []
    for i in range(len(x)):
        others = [
            j for j in range(len(x)) if batch[j] == batch[i] and (j < i if causal else j != i)
        ]
        others.sort(key=lambda j: float((x[i] - x[j]).square().sum()))
        found += sorted((i, j) for j in others[:k])
    return found


@given(
    tokens=st.integers(1, 8),
    edges=st.integers(0, 30),
    causal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_an_edge_counts_once_and_self_loops_do_not(
    tokens: int, edges: int, causal: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    edge_index = torch.randint(tokens, (2, edges))
    found = pairs(input_graph(edge_index, tokens, causal=causal))
    expected = {(t, s) for s, t in edge_index.t().tolist() if (s < t if causal else s != t)}
    assert found == sorted(expected)


def test_a_bipartite_graph_has_no_self_loops() -> None:
    edge_index = torch.tensor([[4, 0, 1, 1], [0, 0, 1, 1]])
    assert pairs(input_graph(edge_index, 5, 2)) == [(0, 0), (0, 4), (1, 1)]


def test_every_form_of_adjacency_is_the_same_graph() -> None:
    edge_index = torch.tensor([[3, 0, 1, 2], [1, 2, 2, 0]])
    expected = [(0, 2), (1, 3), (2, 0), (2, 1)]
    forms = [
        edge_index,
        edge_index.int(),
        edge_index.t().contiguous().t(),
        EdgeIndex(edge_index, sparse_size=(4, 4)),
        to_torch_coo_tensor(edge_index.flip(0), size=4),
        to_torch_csr_tensor(edge_index.flip(0), size=4),
    ]
    for form in forms:
        assert pairs(input_graph(form, 4)) == expected


@pytest.mark.scatter
def test_a_sparse_tensor_is_the_same_graph() -> None:
    sparse = pytest.importorskip("torch_sparse")
    edge_index = torch.tensor([[3, 0, 1, 2], [1, 2, 2, 0]])
    adj_t = sparse.SparseTensor(row=edge_index[1], col=edge_index[0], sparse_sizes=(4, 4))
    assert pairs(input_graph(adj_t, 4)) == [(0, 2), (1, 3), (2, 0), (2, 1)]


@pytest.mark.parametrize(
    ("edge_index", "match"),
    [
        (torch.tensor([[0, 4], [1, 2]]), "edge starts at token 4, but there are 4 tokens"),
        (torch.tensor([[0, 1], [1, -1]]), "edge ends at token -1, but there are 4 tokens"),
        (torch.eye(5).to_sparse(), r"expected an adjacency of shape \(4, 4\).*got \(5, 5\)"),
        (torch.zeros(3, 2, dtype=torch.long), r"expected edge_index of shape \[2, M\].*\[3, 2\]"),
        (torch.zeros(2, 3), "an integer type, got .* torch.float32"),
    ],
)
def test_a_graph_of_another_size_is_refused(edge_index: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        input_graph(edge_index, 4)


@given(
    tokens=st.integers(0, 14),
    k=st.integers(1, 6),
    graphs=st.integers(1, 4),
    causal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_nearest_within_each_graph(
    tokens: int, k: int, graphs: int, causal: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(tokens, 3, dtype=torch.float64) + 100
    batch = torch.randint(graphs, (tokens,))
    assert pairs(knn_graph(x, k, batch, causal)) == nearest(x, k, batch, causal)
    if graphs == 1:
        assert pairs(knn_graph(x, k, None, causal)) == nearest(x, k, batch, causal)


def test_nearest_over_several_blocks_equals_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphmoe.ops.token_graph.BLOCK", 16)
    x = torch.randn(100, 5)
    found = NearestNeighbors(n_neighbors=5).fit(x.numpy()).kneighbors(return_distance=False)
    expected = [(i, j) for i, row in enumerate(np.sort(found, axis=1)) for j in row]
    assert pairs(knn_graph(x, 5)) == expected
    batch = torch.arange(100) % 7
    assert pairs(knn_graph(x, 5, batch)) == nearest(x, 5, batch, causal=False)


def test_nearest_takes_half_precision_and_refuses_no_neighbors() -> None:
    x = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.bfloat16)
    assert pairs(knn_graph(x, 1)) == [(0, 1), (1, 0), (2, 1)]
    with pytest.raises(ValueError, match="expected num_neighbors >= 1, got 0"):
        knn_graph(x, 0)
