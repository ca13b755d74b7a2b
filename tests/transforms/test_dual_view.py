"""View B: rare items choose users one after the other; here they do so in a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from dense_sizes import DenseSizes
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.errors import ConfigError, DataError
from graphmoe.nn.recommend.graph import InteractionGraph
from graphmoe.ops import SparseOperator
from graphmoe.transforms import dual_view
from graphmoe.transforms.content_knn import ContentKNN, content_graphs
from graphmoe.transforms.dual_view import DualView, content_view


def scene(
    seed: int, users: int, items: int, n: int, ties: bool = False
) -> tuple[InteractionGraph, SparseOperator]:
    generator = torch.Generator().manual_seed(seed)
    user = torch.randint(users, (n,), generator=generator)
    # Some items are popular and some are never taken.
    item = (torch.rand(n, generator=generator) ** 3 * items).long()
    S = torch.rand(items, items, generator=generator)
    S = (S * 3).floor() / 4 if ties else S * (S > 0.6)
    S.fill_diagonal_(0)
    graph = InteractionGraph.from_edges(user, item, users, items)
    return graph, SparseOperator.from_torch(S.to_sparse())


def in_a_loop(
    graph: InteractionGraph, S: SparseOperator, min_degree: int, gamma: float
) -> dict[tuple[int, int], float]:
    """The rule as it is written down, on dense matrices."""
    R = torch.zeros(graph.num_users, graph.num_items, dtype=torch.float64)
    R[graph.user, graph.item] = 1
    du, di = R.sum(dim=1), R.sum(dim=0).long().tolist()
    P = (R @ S.to_sparse().to_dense().double().t()) * torch.where(du > 0, du.rsqrt(), 0.0)[:, None]
    room = du.clamp_min(2).long().tolist()
    edges: dict[tuple[int, int], float] = {}
    for i in sorted(range(graph.num_items), key=lambda i: (di[i], i)):
        for u in sorted(range(graph.num_users), key=lambda u: (-P[u, i].item(), u)):
            if di[i] >= min_degree:
                break
            if P[u, i] > 0 and R[u, i] == 0 and room[u] > 0:
                edges[u, i] = gamma * float(P[u, i] / P[:, i].max())
                room[u] -= 1
                di[i] += 1
    return edges


@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 12),
    items=st.integers(1, 14),
    n=st.integers(0, 60),
    min_degree=st.integers(0, 8),
    ties=st.booleans(),
)
def test_against_a_loop(
    seed: int, users: int, items: int, n: int, min_degree: int, ties: bool
) -> None:
    graph, S = scene(seed, users, items, n, ties)
    expected = in_a_loop(graph, S, min_degree, gamma=0.4)
    found = content_view(graph, S, min_degree, gamma=0.4)
    assert list(zip(found.user.tolist(), found.item.tolist(), strict=True)) == sorted(expected)
    weight = torch.tensor([expected[edge] for edge in sorted(expected)])
    torch.testing.assert_close(found.weight, weight)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_of_items_change_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    graph, S = scene(seed, 30, 60, 150, ties=seed % 2 == 0)
    at_once = content_view(graph, S)
    assert at_once.user.numel() > 50
    for work in (1, 40, 700):
        monkeypatch.setattr(dual_view, "WORK", work)
        for one, two in zip(at_once, content_view(graph, S), strict=True):
            assert torch.equal(one, two)


@given(seed=st.integers(0, 1000), min_degree=st.integers(1, 8))
def test_budgets_caps_and_weights(seed: int, min_degree: int) -> None:
    graph, S = scene(seed, 20, 30, 80)
    user, item, weight = content_view(graph, S, min_degree)
    given_to = torch.bincount(item, minlength=30)
    assert bool((given_to <= (min_degree - graph.item_degree).clamp_min(0)).all())
    taken_by = torch.bincount(user, minlength=20)
    assert bool((taken_by <= graph.user_degree.clamp_min(2)).all())
    assert not bool(taken_by[graph.user_degree == 0].any())
    real = set(zip(graph.user.tolist(), graph.item.tolist(), strict=True))
    pseudo = set(zip(user.tolist(), item.tolist(), strict=True))
    assert len(pseudo) == user.numel()
    assert not real & pseudo
    assert bool(((weight > 0) & (weight <= 0.5)).all())


def test_items_that_nobody_took_get_all_their_edges_where_users_have_room() -> None:
    torch.manual_seed(3)
    user, item = torch.randint(200, (600,)), torch.randint(40, (600,))
    graph = InteractionGraph.from_edges(user, item, 200, 50, {"v": torch.rand(50, 6)})
    assert graph.item_degree[40:].tolist() == [0] * 10
    S = SparseOperator.from_torch((torch.rand(50, 50) + 0.1).fill_diagonal_(0).to_sparse())
    views = DualView(graph, S, min_degree=5)
    assert torch.bincount(views.pseudo.item, minlength=50)[40:].tolist() == [5] * 10
    # Nobody who has it stands before them, so the strongest edge has the full weight.
    strongest = torch.zeros(50).scatter_reduce_(0, views.pseudo.item, views.pseudo.weight, "amax")
    torch.testing.assert_close(strongest[40:], torch.full((10,), 0.5))


def in_classes(degree: Tensor, generator: torch.Generator) -> Tensor:
    """A random new order of ids in which those of one degree stay in order: ties stay ties."""
    rank = torch.randperm(int(degree.max()) + 1, generator=generator)
    return rank[degree].argsort(stable=True)


@given(seed=st.integers(0, 1000))
def test_other_numbers_for_users_and_items_give_the_same_edges(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    graph, S = scene(seed, 12, 20, 60)
    users, items = (
        in_classes(degree, generator) for degree in (graph.user_degree, graph.item_degree)
    )
    other = InteractionGraph.from_edges(
        users.argsort()[graph.user], items.argsort()[graph.item], 12, 20
    )
    moved = SparseOperator.from_torch(S.to_sparse().to_dense()[items][:, items].to_sparse())
    plain, found = DualView(graph, S).b, DualView(other, moved).b
    expected = plain.to_sparse().to_dense()[users][:, items]
    torch.testing.assert_close(found.to_sparse().to_dense(), expected)


def test_no_tensor_of_users_times_items_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual_view, "WORK", 500)
    users, items, n = 900, 800, 4000
    generator = torch.Generator().manual_seed(0)
    user, item = torch.randint(users, (n,), generator=generator), torch.arange(n) % (items // 2)
    graph = InteractionGraph.from_edges(user, item, users, items)
    near = torch.randint(items, (2, 3 * items), generator=generator)
    S = SparseOperator.from_edges(near[0], near[1], (items, items), torch.ones(3 * items))
    with DenseSizes() as sizes:
        views = DualView(graph, S)
    assert views.pseudo.user.numel() > 1000
    assert sizes.largest <= n + views.pseudo.user.numel()  # the edges of view B


def test_both_views_in_dense_form() -> None:
    graph, S = scene(1, 10, 15, 40)
    views = DualView(graph, S, min_degree=4, gamma=0.7)
    R = torch.zeros(10, 15)
    R[graph.user, graph.item] = 1
    R[views.pseudo.user, views.pseudo.item] += views.pseudo.weight
    du, di = (total.clamp_min(1e-30).rsqrt() for total in (R.sum(dim=1), R.sum(dim=0)))
    torch.testing.assert_close(views.b.to_sparse().to_dense(), du[:, None] * R * di)
    assert views.a is graph.normalized
    assert views.b.nnz == graph.user.numel() + views.pseudo.user.numel()
    assert repr(views) == (
        f"DualView(SparseOperator(10, 15, nnz={views.a.nnz}), "
        f"{views.pseudo.user.numel()} pseudo edges)"
    )


@pytest.mark.parametrize(("users", "items", "n"), [(0, 0, 0), (1, 1, 1), (3, 4, 0), (1, 4, 30)])
def test_where_there_is_nothing_to_choose(users: int, items: int, n: int) -> None:
    user, item = torch.zeros(n, dtype=torch.long), torch.arange(n) % max(items, 1)
    graph = InteractionGraph.from_edges(user, item, users, items)
    S = SparseOperator.from_torch((torch.ones(items, items) - torch.eye(items)).to_sparse())
    views = DualView(graph, S)
    assert views.pseudo.user.numel() == 0
    assert torch.equal(views.b.to_sparse().to_dense(), views.a.to_sparse().to_dense())


def test_wrong_settings() -> None:
    graph, S = scene(0, 4, 5, 9)
    with pytest.raises(ConfigError, match=r"gamma in \(0, 1\], got 5 and 0"):
        content_view(graph, S, gamma=0)
    with pytest.raises(ConfigError, match="min_degree >= 0"):
        content_view(graph, S, min_degree=-1)
    with pytest.raises(DataError, match=r"of 5 items, got an operator of shape \(2, 2\)"):
        content_view(graph, SparseOperator.from_torch(torch.eye(2).to_sparse()))


def test_edges_of_the_real_catalogue(data_root: Path) -> None:
    folder = data_root / "tiktok"
    if not folder.is_dir():
        pytest.skip(f"real interactions not found at {folder}")
    log = pd.read_csv(folder / "interactions.csv.gz")
    train = log[log.split == 0]
    x = {
        name: torch.from_numpy(np.load(folder / f"{name}_feat.npy")) for name in ("image", "audio")
    }
    graph = InteractionGraph.from_edges(
        torch.tensor(train.user.to_numpy()), torch.tensor(train.item.to_numpy()), 9308, 6710, x
    )
    pseudo = DualView(graph, content_graphs(graph, ContentKNN(10))[1]).pseudo
    assert pseudo.user.numel() == 13_298  # every item reaches five edges
    degree = graph.item_degree + torch.bincount(pseudo.item, minlength=6710)
    assert int(degree.min()) == 5
    assert bool(
        (torch.bincount(pseudo.user, minlength=9308) <= graph.user_degree.clamp_min(2)).all()
    )
