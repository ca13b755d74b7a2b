"""Edges that were sorted once are not sorted again, and never outlive or outdate their graph."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from brute_force import EDGES, brute_force, make, nodes
from torch_geometric.nn import GATv2Conv

from graphmoe.nn.conv import MoEConv, aggregation, seen_graphs


@pytest.fixture
def sorts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many edges were sorted, each time that any were."""
    seen: list[int] = []
    plain = aggregation.sort_edges
    monkeypatch.setattr(
        aggregation, "sort_edges", lambda i, *rest: seen.append(i.numel()) or plain(i, *rest)
    )
    return seen


@pytest.mark.parametrize("case", ["SAGE", "GIN", "GCN"])
def test_a_graph_is_sorted_once(case: str, sorts: list[int]) -> None:
    edges, x = EDGES.clone(), nodes()
    layers = [make(case, k=2)[0] for _ in range(2)]
    for layer in layers * 2:
        layer(x, edges)
    assert len(sorts) == 1


@pytest.mark.parametrize("case", ["SAGE", "GCN", "TAG"])
def test_edges_changed_in_place_are_another_graph(case: str) -> None:
    layer, _ = make(case, k=2)
    edges, x = EDGES.clone(), nodes()
    layer(x, edges)
    edges.numpy()[:] = EDGES.flip(0).numpy()  # behind the back of PyTorch's version counter
    torch.testing.assert_close(layer(x, edges), brute_force(layer, x, EDGES.flip(0)))


def test_other_settings_are_kept_apart() -> None:
    edges, x = EDGES.clone(), nodes()
    for case in ("GCN", "GCN improved", "GCN plain", "SAGE", "Graph", "TAG"):
        layer, given = make(case, k=2)
        for more in ({}, given):
            torch.testing.assert_close(
                layer(x, edges, **more), brute_force(layer, x, edges, **more)
            )
    layer = MoEConv(6, 4, expert_kwargs={"flow": "target_to_source"}).double()
    torch.testing.assert_close(layer(x, edges), brute_force(layer, x, edges))
    layer = layer.float()
    torch.testing.assert_close(layer(x.float(), edges), brute_force(layer, x.float(), edges))


def test_what_is_sorted_without_gradients_is_sorted_again_for_them(sorts: list[int]) -> None:
    layer, _ = make("SAGE")
    edges, x = EDGES.clone(), nodes().requires_grad_()
    with torch.no_grad():
        layer(x, edges)
    (grad,) = torch.autograd.grad(layer(x, edges).sum(), x)
    (expected,) = torch.autograd.grad(brute_force(layer, x, edges).sum(), x)
    torch.testing.assert_close(grad, expected)
    with torch.no_grad():
        layer(x, edges)
    assert len(sorts) == 2


def test_goes_with_its_graph() -> None:
    edges = EDGES.clone()
    make("GCN")[0](nodes(), edges)
    sorted_edges = weakref.ref(next(iter(seen_graphs._SEEN[edges][1].values()))[0].col)
    assert sorted_edges() is not None
    del edges
    gc.collect()
    assert sorted_edges() is None


def test_who_cannot_tell_how_many_destinations_there_are_asks() -> None:
    layer = MoEConv(6, 4, expert=lambda i, o: GATv2Conv(i, o, add_self_loops=False)).double()
    with pytest.raises(ValueError, match="GATv2Conv takes no `size`"):
        layer((nodes(), None), EDGES, size=(9, 10))
