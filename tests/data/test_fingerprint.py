from __future__ import annotations

import copy

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData

from graphmoe.data import graph_fingerprint, load_graph, validate_graph


def random_graph(seed: int) -> Data:
    rng = np.random.default_rng(seed)
    n, e = int(rng.integers(2, 20)), int(rng.integers(1, 40))
    return Data(
        x=torch.from_numpy(rng.normal(size=(n, 3))).float(),
        edge_index=torch.from_numpy(rng.integers(0, n, (2, e))),
        y=torch.from_numpy(rng.integers(0, 2, n)),
    )


@given(seed=st.integers(0, 10_000))
def test_what_does_not_matter(seed: int) -> None:
    data = random_graph(seed)
    expected = graph_fingerprint(data)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(data.num_edges))
    same = Data(
        x=data.x.double().to_sparse_csr(),
        edge_index=torch.cat([data.edge_index[:, order], data.edge_index[:, :1]], dim=1).int(),
        y=1 - data.y,
        edge_weight=torch.rand(data.num_edges + 1),
        name="another name",
    )
    assert graph_fingerprint(same) == expected
    assert graph_fingerprint(validate_graph(data)[0] if data.num_edges else data) == expected


@given(seed=st.integers(0, 10_000), change=st.sampled_from(["edge", "flip", "x", "nodes", "none"]))
def test_what_matters(seed: int, change: str) -> None:
    data = random_graph(seed)
    other = copy.copy(data)
    if change == "edge":
        other.edge_index = torch.unique(data.edge_index, dim=1)[:, 1:]
    elif change == "flip":
        other.edge_index = data.edge_index.flip(0)
        kept = set(map(tuple, data.edge_index.t().tolist()))
        if kept == {(b, a) for a, b in kept}:
            return
    elif change == "x":
        other.x = data.x.clone()
        other.x[-1, -1] += 1
    elif change == "nodes":
        other.x = torch.cat([data.x, data.x[:1]])
    else:
        other.x = None
        other.num_nodes = data.num_nodes
    assert graph_fingerprint(other) != graph_fingerprint(data)


def test_types_and_relations_matter_and_their_order_does_not() -> None:
    data = load_graph("southern_women")
    turned = HeteroData(target="woman")
    for kind in reversed(data.node_types):
        turned[kind].num_nodes = data[kind].num_nodes
    for relation in reversed(data.edge_types):
        turned[relation].edge_index = data[relation].edge_index
    assert graph_fingerprint(turned) == graph_fingerprint(data)
    renamed = copy.copy(data)
    renamed["woman", "visits", "event"].edge_index = data["woman", "attends", "event"].edge_index
    del renamed["woman", "attends", "event"]
    assert graph_fingerprint(renamed) != graph_fingerprint(data)


def test_it_is_the_same_on_every_machine() -> None:
    data = Data(x=torch.tensor([[1.0], [-0.0], [2.5]]), edge_index=torch.tensor([[0, 1], [1, 2]]))
    assert (
        graph_fingerprint(data)
        == "c21468caff47b08440e98820e59b22bbaecfc6d275d5df534ac938ea24a4f523"
    )


def test_long_features_are_hashed_in_full() -> None:
    x = torch.zeros(3000, 2)
    data = Data(x=x, edge_index=torch.tensor([[0], [1]]))
    before = graph_fingerprint(data)
    x[2999, 1] = 1.0
    assert graph_fingerprint(data) != before
    sparse = Data(x=x.to_sparse_coo(), edge_index=data.edge_index)
    assert graph_fingerprint(sparse) == graph_fingerprint(data)
