from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphmoe.data import graph_fingerprint, load_graph
from graphmoe.data.interop import from_dgl, from_networkx, to_dgl, to_networkx
from graphmoe.errors import DataError, MissingExtraError
from graphmoe.typing import Graph


def assert_same(first: Graph, second: Graph) -> None:
    assert type(first) is type(second)
    for one, other in zip(_stores(first), _stores(second), strict=True):
        assert set(one) == set(other)
        for key in one:
            if isinstance(one[key], Tensor):
                assert one[key].dtype == other[key].dtype, key
                assert torch.equal(one[key], other[key]), key
            else:
                assert one[key] == other[key], key


def _stores(data: Graph) -> list[dict]:
    if isinstance(data, Data):
        return [dict(data._store)]
    kinds = [*sorted(data.node_types), *sorted(data.edge_types)]
    return [dict(data._global_store), *(dict(data[kind]) for kind in kinds)]


@st.composite
def homogeneous(draw: st.DrawFn) -> Data:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n, e = draw(st.integers(1, 12)), draw(st.integers(0, 30))
    data = Data(edge_index=torch.from_numpy(rng.integers(0, n, (2, e))), num_nodes=n)
    if draw(st.booleans()):
        data.x = torch.from_numpy(rng.normal(size=(n, 3))).float()
    if draw(st.booleans()):
        data.y = torch.from_numpy(rng.integers(-1, 4, n))
    if draw(st.booleans()):
        data.train_mask = torch.from_numpy(rng.random(n) < 0.5)
    if e and e != n and draw(st.booleans()):
        data.edge_weight = torch.from_numpy(rng.random(e)).float()
    return data


@st.composite
def heterogeneous(draw: st.DrawFn) -> HeteroData:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    data = HeteroData()
    counts = {kind: draw(st.integers(1, 8)) for kind in ("a", "b", "c")}
    for kind, n in counts.items():
        data[kind].num_nodes = n
        if draw(st.booleans()):
            data[kind].x = torch.from_numpy(rng.normal(size=(n, 2)))
    data["a"].y = torch.from_numpy(rng.integers(0, 2, counts["a"]))
    for kind in (("a", "to", "b"), ("b", "to", "a"), ("a", "likes", "b"), ("c", "to", "c")):
        e = draw(st.integers(0, 12))
        ends = [rng.integers(0, counts[kind[0]], e), rng.integers(0, counts[kind[2]], e)]
        data[kind].edge_index = torch.from_numpy(np.stack(ends))
        if draw(st.booleans()):
            data[kind].edge_attr = torch.from_numpy(rng.normal(size=(e, 2))).float()
    return data


@given(data=st.one_of(homogeneous(), heterogeneous()))
def test_networkx_round_trip_is_exact(data: Graph) -> None:
    if isinstance(data, HeteroData):
        data.target, data.note = "a", {"any": ["thing"]}
    assert_same(from_networkx(to_networkx(data)), data)


@given(data=st.one_of(homogeneous(), heterogeneous()))
def test_dgl_round_trip_is_exact(data: Graph) -> None:
    pytest.importorskip("dgl")
    back = from_dgl(to_dgl(data))
    assert_same(back, data)
    assert graph_fingerprint(back) == graph_fingerprint(data)


@pytest.mark.parametrize("name", ["karate", "wine", "southern_women", "wine_levels"])
def test_real_graphs_come_back(name: str) -> None:
    data = load_graph(name)
    assert_same(from_networkx(to_networkx(data)), data)


def test_dgl_graphs_of_others_are_understood() -> None:
    dgl = pytest.importorskip("dgl")
    graph = dgl.graph(
        (torch.tensor([2, 0], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32))
    )
    graph.ndata["feat"] = torch.ones(3, 2)
    graph.ndata["label"] = torch.tensor([0, 1, 0])
    graph.edata["weight"] = torch.tensor([0.5, 2.0])
    data = from_dgl(graph)
    assert data.edge_index.tolist() == [[2, 0], [0, 1]]
    assert data.edge_index.dtype == torch.long
    assert data.y.tolist() == [0, 1, 0]
    assert data.edge_weight.tolist() == [0.5, 2.0]
    assert data.x.sum() == 6
    edges = {("u", "buys", "i"): (torch.tensor([0, 1]), torch.tensor([2, 0]))}
    hetero = from_dgl(dgl.heterograph(edges), target="u")
    assert hetero.target == "u"
    assert hetero["i"].num_nodes == 3
    block = dgl.to_block(graph)
    with pytest.raises(DataError, match="block"):
        from_dgl(block)
    with pytest.raises(TypeError, match=r"expected a dgl\.DGLGraph"):
        from_dgl(data)


def test_dgl_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dgl", None)
    with pytest.raises(MissingExtraError, match=r"graphmoe\[dgl\]"):
        to_dgl(load_graph("karate"))


def test_interop_imports_neither_library_until_it_is_used() -> None:
    code = (
        "import sys, graphmoe.data, graphmoe.data.interop;"
        "print([m for m in ('dgl', 'ogb', 'lightning_fabric') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_an_undirected_graph_of_words() -> None:
    graph = nx.Graph()
    graph.add_node("c", age=3, team="red")
    graph.add_node("a", age=1, team="blue")
    graph.add_node("b", age=2)
    graph.add_edge("c", "a", weight=2)
    graph.add_edge("b", "b", weight=5)
    data = from_networkx(graph, features=["age"], label="team")
    assert data.node_names == ["c", "a", "b"]
    assert data.x.tolist() == [[3.0], [1.0], [2.0]]
    assert data.class_names == ["blue", "red"]
    assert data.y.tolist() == [1, 0, -1]
    edges = set(map(tuple, data.edge_index.t().tolist()))
    assert edges == {(0, 1), (1, 0), (2, 2)}
    assert data.edge_index.size(1) == 3
    assert sorted(data.edge_weight.tolist()) == [2, 2, 5]


def test_a_directed_graph_keeps_its_direction() -> None:
    data = from_networkx(nx.DiGraph([(0, 1), (2, 1)]))
    assert data.edge_index.tolist() == [[0, 2], [1, 1]]
    assert "edge_weight" not in data


def test_typed_nodes_become_a_heterogeneous_graph() -> None:
    graph = nx.Graph()
    for name, kind in (("p0", "paper"), ("a0", "author"), ("p1", "paper")):
        graph.add_node(name, node_type=kind, **({"field": 1} if kind == "paper" else {}))
    graph.add_edge("a0", "p1", edge_type="writes")
    graph.add_edge("p0", "p1")
    data = from_networkx(graph, label="field", target="paper")
    assert data.target == "paper"
    assert data["paper"].node_names == ["p0", "p1"]
    assert data["paper"].y.tolist() == [1, 1]
    assert "y" not in data["author"]
    assert data["author", "writes", "paper"].edge_index.tolist() == [[0], [1]]
    assert data["paper", "writes", "author"].edge_index.tolist() == [[1], [0]]
    assert data["paper", "to", "paper"].edge_index.tolist() == [[0, 1], [1, 0]]
    graph.add_node("x")
    with pytest.raises(DataError, match="1 of 4 nodes have no 'node_type'"):
        from_networkx(graph)


def test_features_that_are_words_are_refused() -> None:
    graph = nx.path_graph(2)
    nx.set_node_attributes(graph, "tall", "height")
    with pytest.raises(DataError, match="height are not all numbers"):
        from_networkx(graph, features=["height"])


def test_a_part_of_a_written_graph_is_renumbered() -> None:
    data = load_graph("karate")
    members = [33, 0, 31, 8]
    part = from_networkx(to_networkx(data).subgraph(members))
    assert part.num_nodes == 4
    kept = sorted(members)
    assert part.y.tolist() == data.y[kept].tolist()
    wanted = {
        (kept.index(a), kept.index(b))
        for a, b in data.edge_index.t().tolist()
        if a in kept and b in kept
    }
    assert set(map(tuple, part.edge_index.t().tolist())) == wanted
    grown = to_networkx(data)
    grown.add_node(34)
    with pytest.raises(DataError, match="nodes or edges were added"):
        from_networkx(grown)


def test_the_file_of_a_person_can_go_through_networkx(tmp_path: Path) -> None:
    (tmp_path / "ties.txt").write_text("ann bob\nbob cid\n")
    data = from_networkx(nx.read_edgelist(tmp_path / "ties.txt"))
    assert data.node_names == ["ann", "bob", "cid"]
    assert data.num_edges == 4
