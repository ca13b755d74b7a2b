"""The interaction graph: what it is made of, and that only training reaches it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.data.interactions.interactions import Interactions
from graphmoe.data.interactions.modality import Modality
from graphmoe.errors import DataError
from graphmoe.nn.recommend.graph import InteractionGraph
from graphmoe.transforms.content_knn import ContentKNN, content_graphs
from graphmoe.transforms.dual_view import DualView


def random_pairs(seed: int, users: int, items: int, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    user = torch.randint(users, (n,), generator=generator)
    return user, torch.randint(items, (n,), generator=generator)


def dense(op) -> Tensor:
    return op.to_sparse().to_dense()


@given(
    seed=st.integers(0, 1000),
    users=st.integers(1, 9),
    items=st.integers(1, 9),
    n=st.integers(0, 40),
)
def test_operators_against_dense_matrices(seed: int, users: int, items: int, n: int) -> None:
    user, item = random_pairs(seed, users, items, n)  # with repetitions, in any order
    graph = InteractionGraph.from_edges(user, item, users, items)
    R = torch.zeros(users, items)
    R[user, item] = 1
    assert torch.equal(torch.stack([graph.user, graph.item]), R.nonzero().t())
    du, di = R.sum(dim=1), R.sum(dim=0)
    assert torch.equal(graph.user_degree, du.long())
    assert torch.equal(graph.item_degree, di.long())
    normal = R / du.clamp_min(1).sqrt()[:, None] / di.clamp_min(1).sqrt()
    torch.testing.assert_close(dense(graph.normalized), normal)
    torch.testing.assert_close(dense(graph.mean_of_history), R / du.clamp_min(1)[:, None])
    x, y = torch.randn(users, 3), torch.randn(items, 3)
    to_user, to_item = graph.propagate(x, y)
    torch.testing.assert_close(to_user, normal @ y)
    torch.testing.assert_close(to_item, normal.t() @ x)


@pytest.mark.parametrize("as_mask", [True, False])
def test_a_subset_is_the_graph_of_those_pairs(as_mask: bool) -> None:
    graph = InteractionGraph.from_edges(*random_pairs(0, 8, 9, 50), 8, 9)
    keep = torch.rand(graph.user.numel()) < 0.5
    part = InteractionGraph.from_edges(graph.user[keep], graph.item[keep], 8, 9)
    places = keep if as_mask else keep.nonzero().squeeze(1).flip(0)
    assert torch.equal(dense(graph.subset(places)), dense(part.normalized))


def test_columns_are_standardised_over_the_items_that_are_there() -> None:
    x = torch.randn(50, 4) * torch.tensor([1.0, 100.0, 1e-3, 1.0]) + torch.tensor([0, 5e3, 0, 7.0])
    x[:, 3] = 7.1  # constant, and not a float32
    present = torch.rand(50) < 0.7
    x[~present] = torch.nan
    graph = InteractionGraph.from_edges(*random_pairs(0, 3, 50, 9), 3, 50, {"v": x}, {"v": present})
    z = graph.modalities["v"]
    there = x[present, :3].double()
    expected = (there - there.mean(dim=0)) / there.std(dim=0, correction=0)
    torch.testing.assert_close(z[present, :3], expected.float(), rtol=1e-5, atol=1e-6)
    assert torch.equal(z[present, 3], torch.zeros(int(present.sum())))
    assert not bool(z[~present].any())
    assert z.dtype == torch.float32


def test_other_items_are_standardised_by_the_same_statistics() -> None:
    x = torch.randn(20, 3) * 4 + 2
    graph = InteractionGraph.from_edges(*random_pairs(0, 3, 20, 9), 3, 20, {"v": x})
    torch.testing.assert_close(graph.standardise("v", x), graph.modalities["v"])
    missing = torch.tensor([True, False])
    some = graph.standardise("v", torch.stack([x[4], x[5] * torch.nan]), missing)
    torch.testing.assert_close(some, torch.stack([graph.modalities["v"][4], torch.zeros(3)]))
    with pytest.raises(DataError, match=r"expected features of shape \(N, 3\), got \(2, 4\)"):
        graph.standardise("v", torch.zeros(2, 4))
    with pytest.raises(DataError, match="unknown modality 't'"):
        graph.standardise("t", x)


def test_a_modality_that_no_item_has() -> None:
    none = torch.zeros(4, dtype=torch.bool)
    nan = torch.full((4, 2), torch.nan)
    graph = InteractionGraph.from_edges(*random_pairs(0, 2, 4, 5), 2, 4, {"v": nan}, {"v": none})
    assert torch.equal(graph.modalities["v"], torch.zeros(4, 2))


def interactions(held_out: list[tuple[int, int, int]]) -> Interactions:
    """Thirty training pairs, and others ``(user, item, split)`` that may not matter."""
    user, item = random_pairs(5, 9, 12, 30)
    rows = [*zip(user.tolist(), item.tolist(), [0] * 30, strict=True), *held_out]
    columns = torch.tensor(sorted(set(rows))).t()
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    return Interactions(
        name="generated",
        user=columns[0],
        item=columns[1],
        split=columns[2].to(torch.int8),
        user_ids=np.arange(9),
        item_ids=np.arange(12),
        modalities={"v": Modality(x, torch.ones(12, dtype=torch.bool))},
    )


def test_nothing_of_validation_or_test_gets_in() -> None:
    seen = []
    for held_out in ([], [(0, 1, 1), (3, 11, 2)], [(u, 2, 2) for u in range(9)]):
        graph = InteractionGraph.from_interactions(interactions(held_out))
        near, merged = content_graphs(graph, ContentKNN(3))
        views = DualView(graph, merged)
        operators = [graph.normalized, graph.mean_of_history, merged, *near.values()]
        parts = [
            part for op in [*operators, views.a, views.b] for part in (op.crow, op.col, op.value)
        ]
        degrees = [graph.user, graph.item, graph.user_degree, graph.item_degree]
        seen.append([*parts, *degrees, *views.pseudo, *graph.modalities.values()])
    assert seen[0][-2].numel() > 0  # there are pseudo edges to compare
    for other in seen[1:]:
        assert all(torch.equal(one, two) for one, two in zip(seen[0], other, strict=True))


def test_a_copy_on_another_device_has_the_same_parts() -> None:
    graph = InteractionGraph.from_edges(
        *random_pairs(0, 3, 20, 9), 3, 20, {"v": torch.randn(20, 2)}
    )
    operator = graph.normalized
    meta = graph.to("meta")
    assert meta.user.device.type == meta.modalities["v"].device.type == "meta"
    assert meta.item_degree.device.type == meta.present["v"].device.type == "meta"
    assert graph.user.device.type == "cpu"
    assert graph.normalized is operator
    assert repr(meta) == repr(graph) == "InteractionGraph(3 users, 20 items, 8 interactions, v=2)"


@pytest.mark.parametrize(
    ("user", "item", "features", "message"),
    [
        ([0, 3], [0, 0], None, r"user ids in \[0, 3\), got 0 to 3"),
        ([0, 1], [-1, 0], None, r"item ids in \[0, 4\), got -1 to 0"),
        ([0], [0, 1], None, "as many users as items, got 1 and 2"),
        ([0.5], [0], None, "user ids as whole numbers"),
        ([0], [0], torch.zeros(5, 2), r"shape \(4, F\), one row an item, got \(5, 2\)"),
        ([0], [0], torch.full((4, 2), torch.inf), "'v': .*not finite"),
    ],
)
def test_wrong_input(user: list, item: list, features: Tensor | None, message: str) -> None:
    given_features = None if features is None else {"v": features}
    with pytest.raises(DataError, match=message):
        InteractionGraph.from_edges(torch.tensor(user), torch.tensor(item), 3, 4, given_features)


def test_a_wrong_mask() -> None:
    x, mask = {"v": torch.zeros(4, 2)}, {"v": torch.ones(4)}
    with pytest.raises(DataError, match=r"expected a mask of shape \(4,\), got torch.float32"):
        InteractionGraph.from_edges(torch.tensor([0]), torch.tensor([0]), 1, 4, x, mask)
