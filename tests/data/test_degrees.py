"""Neighbours are counted as a loop over nodes would count them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphmoe.data import node_degrees


def counted(relations: dict[tuple[str, str, str], Tensor], kind: str, count: int) -> list[int]:
    """Different neighbours, node by node."""
    found = []
    for node in range(count):
        others = set()
        for (source, _, target), edges in relations.items():
            for a, b in edges.t().tolist():
                if (source, a) == (kind, node):
                    others.add((target, b))
                if (target, b) == (kind, node):
                    others.add((source, a))
        found.append(len(others - {(kind, node)}))
    return found


def drawn(sizes: tuple[int, int], count: int, generator: torch.Generator) -> Tensor:
    ends = [torch.randint(max(n, 1), (count if all(sizes) else 0,), generator=generator)
            for n in sizes]  # fmt: skip
    return torch.stack(ends)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.integers(0, 12), st.integers(0, 9), st.integers(0, 40), st.integers(0, 10**6))
def test_against_a_loop(papers: int, authors: int, edges: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cites = drawn((papers, papers), edges, generator)  # with repeats, both ways, and to itself
    assert node_degrees(Data(edge_index=cites, num_nodes=papers))["node"].tolist() == counted(
        {("node", "", "node"): cites}, "node", papers
    )
    writes = drawn((authors, papers), edges, generator)
    relations = {
        ("paper", "cites", "paper"): cites,
        ("author", "writes", "paper"): writes,
        ("paper", "rev_writes", "author"): writes.flip(0),  # the same neighbours once more
        ("paper", "edited_by", "author"): drawn((papers, authors), edges // 3, generator),
    }
    data = HeteroData()
    data["paper"].num_nodes, data["author"].num_nodes = papers, authors
    for relation, index in relations.items():
        data[relation].edge_index = index
    degrees = node_degrees(data)
    for kind, count in (("paper", papers), ("author", authors)):
        assert degrees[kind].tolist() == counted(relations, kind, count)


def test_a_relation_without_edges_and_a_type_without_relations() -> None:
    data = HeteroData()
    data["a"].num_nodes, data["b"].num_nodes = 2, 3
    data["a", "to", "a"].edge_index = torch.tensor([[0], [0]])
    assert {k: v.tolist() for k, v in node_degrees(data).items()} == {"a": [0, 0], "b": [0] * 3}
    assert node_degrees(Data(num_nodes=2, x=torch.ones(2, 1)))["node"].tolist() == [0, 0]
