"""What validation repairs and remarks; what it refuses is in tests/faults/test_bad_graphs.py."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData

from graphmoe.data import Report, graph_fingerprint, load_graph, validate_graph


def triangle(**changes: object) -> Data:
    edges = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
    data = Data(x=torch.eye(3), edge_index=edges, y=torch.tensor([0, 1, 0]))
    for key, value in changes.items():
        data[key] = value
    return data


def papers() -> HeteroData:
    data = HeteroData(target="paper")
    data["paper"].x = torch.eye(3)
    data["paper"].y = torch.tensor([0, 1, 0])
    data["author"].num_nodes = 2
    data["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 2], [0, 0, 1]])
    data["author", "to", "paper"].edge_index = torch.tensor([[0, 0, 1], [0, 1, 2]])
    return data


def said(report: Report) -> str:
    return str(report)


def test_a_good_graph_is_returned_as_it_is() -> None:
    for data in (triangle(), papers()):
        checked, report = validate_graph(data)
        assert report.ok
        assert not report.findings
        assert said(report) == "graph: nothing to report"
        assert checked is not data
        assert graph_fingerprint(checked) == graph_fingerprint(data)


@given(rows=st.lists(st.sampled_from([0, 1, 2, 3]), min_size=2, max_size=24))
def test_repeats_are_merged_counted_and_said(rows: list[int]) -> None:
    edges = torch.tensor([rows, rows[1:] + rows[:1]])
    weight = torch.arange(float(len(rows)))
    data = Data(edge_index=edges, num_nodes=4, edge_weight=weight)
    checked, report = validate_graph(data)
    first: dict[tuple[int, int], float] = {}
    for position, edge in enumerate(zip(*edges.tolist(), strict=True)):
        first.setdefault(edge, float(position))
    assert list(map(tuple, checked.edge_index.t().tolist())) == list(first)
    assert checked.edge_weight.tolist() == list(first.values())
    repeats = len(rows) - len(first)
    text = f"edge_index: {repeats} of {len(rows)} edges repeat another; merged"
    assert (text in said(report)) == (repeats > 0)
    assert data.edge_index.shape == (2, len(rows))


def test_repeats_of_a_relation_take_all_its_values_along() -> None:
    data = papers()
    relation = ("paper", "to", "author")
    data[relation].edge_index = torch.tensor([[0, 1, 0, 2], [0, 0, 0, 1]])
    data[relation].edge_attr = torch.arange(8.0).view(4, 2)
    data[relation].time = torch.tensor([10, 11, 12, 13])
    checked, report = validate_graph(data)
    assert checked[relation].edge_index.tolist() == [[0, 1, 2], [0, 0, 1]]
    assert checked[relation].edge_attr.tolist() == [[0, 1], [2, 3], [6, 7]]
    assert checked[relation].time.tolist() == [10, 11, 13]
    assert "(paper, to, author): 1 of 4 edges repeat another; merged" in said(report)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_smaller_integers_are_converted(dtype: torch.dtype) -> None:
    checked, report = validate_graph(triangle(edge_index=triangle().edge_index.to(dtype)))
    assert checked.edge_index.dtype == torch.long
    assert checked.edge_index.equal(triangle().edge_index)
    assert f"edge_index: edges are {dtype}; converted to int64" in said(report)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool])
def test_features_become_float32(dtype: torch.dtype) -> None:
    checked, report = validate_graph(triangle(x=torch.eye(3).to(dtype)))
    assert checked.x.dtype == torch.float32
    assert checked.x.equal(torch.eye(3))
    assert f"x: features are {dtype}; converted to float32" in said(report)


def test_labels_are_flattened_and_converted() -> None:
    checked, report = validate_graph(triangle(y=torch.tensor([[0.0], [1.0], [0.0]])))
    assert checked.y.dtype == torch.long
    assert checked.y.tolist() == [0, 1, 0]
    assert "labels have shape [3, 1]; flattened to [N]" in said(report)
    assert "labels are torch.float32; converted to int64" in said(report)


def test_gaps_in_labels_are_renumbered_and_the_old_numbers_kept() -> None:
    checked, report = validate_graph(triangle(y=torch.tensor([7, -1, 2])))
    assert checked.y.tolist() == [1, -1, 0]
    assert checked.class_ids[checked.y[[0, 2]]].tolist() == [7, 2]
    assert "6 of the classes 0..7 have no node (0, 1, 3, 4, 5, …)" in said(report)
    assert "renumbered 0..1, their old numbers kept as class_ids" in said(report)
    assert "1 of 3 nodes have no label (-1)" in said(report)


def test_labels_as_large_as_identifiers_cost_no_memory() -> None:
    checked, report = validate_graph(triangle(y=torch.tensor([10**15, 5, 5])))
    assert checked.y.tolist() == [1, 0, 0]
    assert "999999999999999 of the classes" in said(report)


def test_the_number_of_nodes_is_taken_from_the_edges_only_when_nothing_else_says_it() -> None:
    checked, report = validate_graph(Data(edge_index=torch.tensor([[0, 4], [4, 0]])))
    assert checked.num_nodes == 5
    assert "not stated (by num_nodes, x or y); taken as 5 from the largest index" in said(report)
    assert "3 of 5 nodes are isolated" in said(report)
    data = papers()
    del data["author"].num_nodes
    checked, report = validate_graph(data)
    assert checked["author"].num_nodes == 2
    assert "author: the number of nodes is not stated" in said(report)


def test_remarks_about_a_homogeneous_graph() -> None:
    edges = torch.tensor([[0, 1, 1, 3], [1, 0, 3, 3]])
    data = Data(x=torch.tensor([[1.0], [0], [2], [3], [0]]), edge_index=edges)
    _, report = validate_graph(data)
    assert report.ok
    assert [str(note) for note in report.notes] == [
        "x: 2 of 5 rows are all zero",
        "edge_index: 1 self-loops (views have exactly one a node anyway)",
        "edge_index: 1 of 4 edges have no reverse (views are undirected)",
        "graph: 2 of 5 nodes are isolated",
    ]


def test_a_node_with_only_a_self_loop_is_isolated() -> None:
    data = Data(edge_index=torch.tensor([[0, 1, 2], [1, 0, 2]]), num_nodes=3)
    assert "1 of 3 nodes are isolated" in said(validate_graph(data)[1])


def test_remarks_about_a_heterogeneous_graph() -> None:
    data = papers()
    data["author"].num_nodes = 5
    data["paper", "cites", "paper"].edge_index = torch.empty(2, 0, dtype=torch.long)
    _, report = validate_graph(data)
    assert report.ok
    assert "note: (paper, cites, paper): the relation has no edges" in said(report)
    assert "note: author: 3 of 5 nodes are isolated" in said(report)


def test_the_only_labelled_type_is_the_target() -> None:
    data = papers()
    del data.target
    checked, report = validate_graph(data)
    assert checked.target == "paper"
    assert "target: paper, the only type with labels" in said(report)
    assert "target" not in data
    assert validate_graph(data, target="author")[0].target == "author"


def test_nothing_is_repaired_when_it_was_not_asked_for() -> None:
    edges = torch.tensor([[0, 1, 0], [1, 0, 1]], dtype=torch.int32)
    data = Data(x=torch.eye(2).double(), edge_index=edges, y=torch.tensor([0, 3]))
    checked, report = validate_graph(data, repair=False)
    assert checked.edge_index is data.edge_index
    assert checked.x is data.x
    assert checked.y is data.y
    assert "class_ids" not in checked
    assert len(report.repairs) == 4
    assert all("not " in finding.text for finding in report.repairs)


@pytest.mark.parametrize("make", [triangle, papers])
def test_the_callers_graph_never_changes(make: type) -> None:
    data = make()
    store = data["paper"] if isinstance(data, HeteroData) else data
    store.x, store.y = store.x.double(), torch.tensor([0, 5, 5], dtype=torch.int32)
    edges = data["paper", "to", "author"] if isinstance(data, HeteroData) else data
    edges.edge_index = torch.cat([edges.edge_index, edges.edge_index[:, :1]], dim=1).int()
    before, held = copy.deepcopy(data), dict(store)
    checked, report = validate_graph(data)
    assert len(report.repairs) == 5
    for key, value in before.to_dict().items():
        assert str(value) == str(data.to_dict()[key])
    assert all(store[key] is value for key, value in held.items())
    again, second = validate_graph(checked)
    assert not second.repairs
    assert graph_fingerprint(again) == graph_fingerprint(data)


def test_sparse_features_are_checked_in_place() -> None:
    x = torch.eye(3).to_sparse_csr()
    checked, report = validate_graph(triangle(x=x))
    assert checked.x.layout == torch.sparse_csr
    assert not report.findings


def test_every_notable_thing_of_a_real_graph_is_noted(data_root: object) -> None:
    _, report = validate_graph(load_graph("citeseer", data_root))
    assert [str(note) for note in report.findings] == [
        "x: 15 of 3327 rows are all zero",
        "graph: 48 of 3327 nodes are isolated",
    ]
