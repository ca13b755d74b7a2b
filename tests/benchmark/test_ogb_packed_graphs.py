"""Packed graphs: batches are PyG's, whatever is asked for, without a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphmoe.benchmark.packed_graphs import PackedGraphs, pointers
from graphmoe.errors import DataError


def some_graphs(sizes: list[int], seed: int = 0, full: bool = True) -> list[Data]:
    """Random graphs with as many nodes; one of none or one has no edges."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for number, size in enumerate(sizes):
        edges = torch.randint(
            0, max(size, 1), (2, 2 * size if size > 1 else 0), generator=generator
        )
        graph = Data(edge_index=edges, num_nodes=size)
        if full:
            graph.x = torch.rand(size, 3, generator=generator)
            graph.edge_attr = torch.rand(edges.size(1), 2, generator=generator)
        graph.y = torch.tensor([[float(number), -1.0]])
        graphs.append(graph)
    return graphs


def same(ours: Data, theirs: Data) -> bool:
    keys = ("x", "edge_index", "edge_attr", "y", "batch", "ptr")
    return all(torch.equal(ours[key], theirs[key]) for key in keys)


@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=7),
    index=st.lists(st.integers(0, 6), max_size=9),
)
def test_a_batch_is_what_pyg_collates(sizes: list[int], index: list[int]) -> None:
    graphs = some_graphs(sizes)
    chosen = [number % len(graphs) for number in index]
    ours = PackedGraphs.from_list(graphs).batch(torch.tensor(chosen, dtype=torch.long))
    assert ours.num_graphs == len(chosen)
    assert ours.num_nodes == sum(sizes[number] for number in chosen)
    if chosen:
        assert same(ours, Batch.from_data_list([graphs[number] for number in chosen]))
    else:
        assert ours.x.shape == (0, 3)
        assert ours.edge_index.shape == (2, 0)


def test_graphs_without_features_know_how_many_nodes_they_have() -> None:
    graphs = some_graphs([3, 1, 4], full=False)
    packed = PackedGraphs.from_list(graphs)
    assert (len(packed), packed.num_nodes, packed.x) == (3, 8, None)
    batch = packed.batch(torch.tensor([1, 2]))
    assert batch.num_nodes == 5
    assert batch.batch.tolist() == [0, 1, 1, 1, 1]
    assert "x" not in batch


def test_a_copy_in_other_tensors_is_the_same() -> None:
    packed = PackedGraphs.from_list(some_graphs([2, 5, 3]))
    copy = PackedGraphs(**{key: value.clone() for key, value in packed.tensors().items()})
    order = torch.tensor([2, 0])
    assert same(copy.to("cpu").batch(order), packed.batch(order))
    assert repr(packed) == "PackedGraphs(3, num_nodes=10, num_edges=20)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(9, 3)}, "9 rows for 10 nodes"),
        ({"edge_attr": torch.zeros(1, 2)}, "1 rows for 20 edges"),
        ({"y": torch.zeros(2)}, "2 rows for 3 graphs"),
        ({"ptr_edges": torch.tensor([0, 20])}, "edges are counted for 1 graphs, nodes for 3"),
        ({"edge_index": torch.zeros(2, 7)}, r"expected edges of shape \[2, 20\], got \[2, 7\]"),
        ({"ptr_nodes": torch.tensor([0, 8, 7, 10])}, "negative number of nodes"),
        (
            {"edge_index": torch.tensor([[0] * 20, [0] * 19 + [4]])},
            r"1 edges name .*graph 2 with 3 nodes has an edge 0 → 4",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Tensor], message: str) -> None:
    parts = PackedGraphs.from_list(some_graphs([2, 5, 3])).tensors()
    with pytest.raises(DataError, match=message):
        PackedGraphs(**{**parts, **change})


def test_features_in_some_graphs_only_are_refused() -> None:
    graphs = some_graphs([2, 3])
    del graphs[1].x
    with pytest.raises(DataError, match="1 of 2 graphs have 'x': all or none"):
        PackedGraphs.from_list(graphs)
    with pytest.raises(DataError, match="at least one graph"):
        PackedGraphs.from_list([])


def test_pointers_are_running_sums() -> None:
    assert pointers(torch.tensor([2, 0, 3])).tolist() == [0, 2, 2, 5]
