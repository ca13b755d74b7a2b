"""Traits of nodes by loops over pairs."""

from __future__ import annotations

import pytest
import torch
from planted_graph import COLD_ITEM, ITEMS, NEW_USER, USERS, planted_graph
from torch import Tensor
from torch.nn import functional as F

from graphmoe.nn.recommend import InteractionGraph
from graphmoe.nn.recommend import node_traits as module
from graphmoe.nn.recommend.content_profile import ContentProfile
from graphmoe.nn.recommend.node_traits import NodeTraits
from graphmoe.ops import SparseOperator


def by_loops(graph: InteractionGraph, profile: ContentProfile) -> tuple[Tensor, Tensor]:
    """Means of the likeness of each user's items to the rest, by user and by item."""
    of_user: dict[int, list[Tensor]] = {}
    of_item: dict[int, list[Tensor]] = {}
    for u, i in zip(graph.user.tolist(), graph.item.tolist(), strict=True):
        rest = [j for j in graph.item[graph.user == u].tolist() if j != i]
        if not rest:
            continue
        mean = F.normalize(profile.items[rest].sum(0), dim=0)
        parts = (mean * profile.items[i]).split(profile.widths)
        alike = torch.stack([part.sum() for part in parts])
        of_user.setdefault(u, []).append(alike)
        of_item.setdefault(i, []).append(alike)
    tables = []
    for found, size in ((of_user, graph.num_users), (of_item, graph.num_items)):
        table = torch.full((size, len(profile.widths)), float("nan"))
        for node, values in found.items():
            table[node] = torch.stack(values).mean(0)
        known = table[~table.isnan().any(1)]
        tables.append(((table - known.mean(0)) / known.std(0)).nan_to_num(0.0))
    return tables[0], tables[1]


@pytest.mark.parametrize("block", [7, 8192])
def test_they_are_means_over_pairs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    graph = planted_graph()
    profile = ContentProfile(graph)
    traits = NodeTraits(graph, profile)
    users, items = by_loops(graph, profile)
    torch.testing.assert_close(traits.users[:, 1:], users, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(traits.items[:, 1:], items, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(traits.users[:, 0], graph.user_degree.float().log1p())
    torch.testing.assert_close(traits.items[:, 0], graph.item_degree.float().log1p())
    assert not traits.users[NEW_USER].any()
    assert not traits.items[COLD_ITEM].any()


def test_the_history_of_a_user_gives_their_traits_again() -> None:
    graph = planted_graph()
    profile = ContentProfile(graph)
    traits = NodeTraits(graph, profile)
    ones = torch.ones(graph.user.numel())
    history = SparseOperator.from_edges(graph.user, graph.item, (USERS, ITEMS), ones)
    found = traits.new_users(profile, history)
    torch.testing.assert_close(found, traits.users, rtol=1e-4, atol=1e-5)
    assert not traits.new_items(3).any()


def test_single_items_and_no_modality_tell_nothing() -> None:
    user, item = torch.arange(4), torch.tensor([0, 1, 2, 2])
    lone = InteractionGraph.from_edges(user, item, 4, 3, {"image": torch.randn(3, 5)})
    traits = NodeTraits(lone, ContentProfile(lone))
    assert not traits.users[:, 1:].any()
    assert not traits.items[:, 1:].any()
    bare = InteractionGraph.from_edges(user, item, 4, 3)
    assert NodeTraits(bare, ContentProfile(bare)).users.shape == (4, 1)
