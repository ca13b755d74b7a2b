from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import homophily

from graphmoe.data import graph_fingerprint, graph_stats, load_graph


def test_a_small_graph_by_hand() -> None:
    edges = torch.tensor([[0, 1, 1, 2, 3], [1, 0, 2, 1, 3]])
    x = torch.tensor([[1.0, 0], [0, 0], [2, 3], [0, 1], [0, 0]])
    data = Data(x=x, edge_index=edges, y=torch.tensor([0, 0, 1, -1, 2]), name="small")
    stats = graph_stats(data)
    node, relation = stats.nodes[0], stats.relations[0]
    assert (stats.name, stats.kind, stats.target) == ("small", "homogeneous", None)
    assert (node.count, node.isolated, node.features, node.filled) == (5, 2, 2, 0.4)
    assert (node.classes, node.unlabelled) == ([2, 1, 1], 1)
    assert (relation.edges, relation.density, relation.mean_degree) == (5, 0.2, 1.0)
    assert (relation.max_degree, relation.self_loops) == (2, 1)
    assert relation.homophily == 0.5
    assert stats.fingerprint == graph_fingerprint(data)


def test_a_heterogeneous_graph_by_hand() -> None:
    data = HeteroData(target="paper")
    data["paper"].y = torch.tensor([0, 1, 1])
    data["paper"].train_mask = torch.tensor([[True, True], [False, True], [False, False]])
    data["author"].num_nodes = 4
    data["paper", "to", "author"].edge_index = torch.tensor([[0, 0, 2], [0, 1, 1]])
    stats = graph_stats(data)
    counted = {node.kind: (node.count, node.isolated, node.features) for node in stats.nodes}
    assert counted == {"paper": (3, 1, None), "author": (4, 2, None)}
    assert stats.target == "paper"
    assert stats.splits == {"train_mask": [1, 2]}
    relation = stats.relations[0]
    assert (relation.name, relation.edges, relation.max_degree) == ("paper - to - author", 3, 2)
    assert relation.density == 0.25
    assert relation.homophily is None


def test_cora(data_root: Path) -> None:
    data = load_graph("cora", data_root)
    stats = graph_stats(data)
    assert stats.relations[0].homophily == pytest.approx(
        homophily(data.edge_index, data.y, method="edge")
    )
    assert stats.relations[0].max_degree == 168
    assert stats.nodes[0].filled == pytest.approx(49216 / (2708 * 1433))
    assert stats.splits == {"train_mask": [140], "val_mask": [500], "test_mask": [1000]}
    text = str(stats)
    for part in ("cora: homogeneous", "2,708", "1,433", "10,556", "351 217 418 818 426 298 180"):
        assert part in text


def test_the_tables_and_the_dictionary_say_the_same() -> None:
    stats = graph_stats(load_graph("digits_pixels"))
    loaded = json.loads(json.dumps(stats.to_dict()))
    assert loaded["nodes"][0]["kind"] == "digit"
    assert sum(loaded["nodes"][0]["classes"]) == 1797
    text = str(stats)
    assert "digit (target)" in text
    assert "digit - has - column_stroke" in text
    assert loaded["nodes"][0]["isolated"] == 0


def test_sparse_features_are_counted_like_dense_ones() -> None:
    data = load_graph("digits")
    dense = graph_stats(data).nodes[0].filled
    data.x = data.x.to_sparse_csr()
    assert graph_stats(data).nodes[0].filled == dense
