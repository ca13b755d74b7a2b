"""MAGNET and its parts by definition, and what each of its switches changes."""

from __future__ import annotations

import math

import pytest
import torch
from planted_graph import ITEMS, NEW_USER, USERS, planted_batch, planted_graph
from torch.nn import functional as F

from graphmoe.errors import ConfigError
from graphmoe.nn import RoutingRecorder
from graphmoe.nn.recommend import MAGNET
from graphmoe.nn.recommend.content_profile import ContentProfile
from graphmoe.nn.recommend.graph import InteractionGraph
from graphmoe.nn.recommend.item_walk import item_walks
from graphmoe.nn.recommend.magnet_pairs import pair_factors
from graphmoe.nn.recommend.modality_cues import ModalityCues
from graphmoe.nn.recommend.pair_ranking import pair_scores
from graphmoe.ops import SparseOperator


def build(**kwargs: object) -> MAGNET:
    torch.manual_seed(0)
    return MAGNET(planted_graph(), 8, num_neighbours=3, **kwargs)  # type: ignore[arg-type]


def taken(graph: InteractionGraph) -> torch.Tensor:
    R = torch.zeros(USERS, ITEMS, dtype=torch.float64)
    R[graph.user, graph.item] = 1
    return R


def test_cues_without_an_item_are_those_of_the_graph_without_the_pair() -> None:
    graph = planted_graph()
    torch.manual_seed(1)
    cues = ModalityCues(graph, 8)
    items = torch.randn(ITEMS, 16)
    users = graph.normalized @ items
    found = cues.leave_one_out(users, items, graph.user, graph.item)
    R, degree = taken(graph), graph.item_degree.double().clamp_min(1)
    for n, (u, i) in enumerate(zip(graph.user.tolist(), graph.item.tolist(), strict=True)):
        row = R[u].clone()
        row[i] = 0
        if row.sum() == 0:
            torch.testing.assert_close(found[n], cues.unknown)
            continue
        expected = (row / (row.sum() * degree).sqrt()) @ items.double()
        torch.testing.assert_close(found[n].double(), expected, rtol=1e-4, atol=1e-5)


def test_a_single_item_leaves_the_learnt_default_and_an_empty_profile() -> None:
    graph = InteractionGraph.from_edges(
        torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1]), 2, 3, {"image": torch.randn(3, 4)}
    )
    cues = ModalityCues(graph, 4)
    torch.nn.init.normal_(cues.unknown)
    user, item = torch.tensor([0]), torch.tensor([2])
    found = cues.leave_one_out(torch.randn(2, 4), torch.randn(3, 4), user, item)
    torch.testing.assert_close(found[0], cues.unknown.detach())
    assert not ContentProfile(graph).leave_one_out(user, item).any()


def test_profiles_are_directions_of_whitened_histories() -> None:
    graph = planted_graph()
    profile = ContentProfile(graph)
    there = graph.present["image"]
    x = graph.modalities["image"].double()
    left = torch.linalg.svd(x[there], full_matrices=False).U
    mine = profile.split(profile.items)["image"][there].double()
    expected = F.normalize(left, dim=1)
    torch.testing.assert_close(mine @ mine.t(), expected @ expected.t(), rtol=1e-4, atol=1e-4)
    sums = taken(graph) @ profile.items.double()
    wanted = F.normalize(sums, dim=1)
    torch.testing.assert_close(profile.users().double(), wanted, rtol=1e-4, atol=1e-5)
    assert not profile.users()[NEW_USER].any()
    alone = F.normalize(sums[graph.user] - profile.items[graph.item].double(), dim=1)
    many = graph.user_degree[graph.user] > 1
    found = profile.leave_one_out(graph.user, graph.item).double()
    torch.testing.assert_close(found[many], alone[many], rtol=1e-3, atol=1e-4)


def test_walks_are_the_powers_of_the_transition_matrix() -> None:
    graph = planted_graph()
    R = taken(graph)
    to_users = R.t() / R.sum(0).clamp_min(1)[:, None]
    to_items = R / R.sum(1).clamp_min(1)[:, None]
    expected = R @ to_users @ to_items
    asked = torch.tensor([3, NEW_USER, 0, 3])
    found = item_walks(graph, asked).double()
    torch.testing.assert_close(found, expected[asked], rtol=1e-5, atol=1e-6)
    assert not found[1].any()


def test_a_table_of_steps_gives_what_walking_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores and what they are made of, of users and items that came later too."""
    graph, asked = planted_graph(), torch.tensor([3, NEW_USER, 0, 3])
    walked = item_walks(graph, asked), item_walks(graph, asked, steps=2)
    monkeypatch.setattr("graphmoe.nn.recommend.item_walk.FOLLOWED", 10)
    torch.testing.assert_close(item_walks(graph, asked), walked[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(item_walks(graph, asked, steps=2), walked[1])
    new = SparseOperator.from_edges(
        torch.tensor([0, 0, 1]), torch.tensor([2, ITEMS + 1, ITEMS]), (2, ITEMS + 2)
    )
    found = item_walks(graph, torch.tensor([0, 1]), new)
    alone = item_walks(graph, torch.tensor([0]), SparseOperator.from_edges(
        torch.tensor([0]), torch.tensor([2]), (1, ITEMS)
    ))  # fmt: skip
    torch.testing.assert_close(found[:1], alone)
    assert not found[1].any()
    # A table that is too small for all keeps the largest chances, and no more than these.
    monkeypatch.setattr("graphmoe.nn.recommend.graph.MOST_TRANSITIONS", 0)
    monkeypatch.setattr("graphmoe.nn.recommend.graph.LEAST_KEPT", 2)
    small = item_walks(planted_graph(), asked)
    assert bool((small <= walked[0] + 1e-6).all())
    assert 0 < float(small.sum()) < float(walked[0].sum())


@pytest.mark.parametrize("level", ["representation", "score"])
@pytest.mark.parametrize("walks", [0.0, 5.0])
def test_contributions_sum_to_scores(level: str, walks: float) -> None:
    model = build(level=level, walk_weight=walks).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    prepared = model.prepare()
    users = torch.arange(USERS).repeat_interleave(ITEMS)
    items = torch.arange(ITEMS).repeat(USERS)
    gave = model.explain(prepared, users, items)
    total = torch.stack(list(gave.values())).sum(0).view(USERS, ITEMS)
    scores = model.score(prepared, torch.arange(USERS))
    torch.testing.assert_close(total, scores, rtol=1e-4, atol=1e-4)
    assert any(name.startswith("image by") for name in gave)


def test_pair_level_scores_are_those_of_single_pairs() -> None:
    model = build(level="score", walk_weight=0.0).eval()
    prepared = model.prepare()
    users, items = prepared[:2]
    one, other = torch.tensor([5, 2, 9]), torch.tensor([1, 19, 0])
    expected = pair_scores(pair_factors(model, users, items), one, other)
    found = model.score(prepared, one)[torch.arange(3), other]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


SWITCHES = {
    "route_reg": False, "moe": False, "templates": False, "two_stage": False, "view_b": False,
    "k": 1, "loo": True, "gated": True, "level": "score", "ego": True, "content_weight": 0.0,
    "user_power": 0.0, "roles": ("dominant",), "content_layers": 2,
    "routed_by": "users", "guided": False,
}  # fmt: skip


def trained(steps: int = 8, **kwargs: object) -> MAGNET:
    model = build(**kwargs).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for step in range(steps):
        torch.manual_seed(step)
        loss = torch.stack(list(model.loss(*planted_batch(model.graph, step)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def scores(model: MAGNET) -> torch.Tensor:
    return model.score(model.prepare(), torch.arange(USERS))


@pytest.fixture(scope="module")
def usual() -> torch.Tensor:
    return scores(trained())


@pytest.mark.parametrize("name", sorted(SWITCHES))
def test_every_switch_changes_what_is_learnt(name: str, usual: torch.Tensor) -> None:
    found = scores(trained(**{name: SWITCHES[name]}))
    assert torch.isfinite(found).all()
    assert not torch.allclose(found, usual, rtol=1e-4, atol=1e-5)


def test_the_same_seed_learns_the_same(usual: torch.Tensor) -> None:
    torch.testing.assert_close(scores(trained()), usual, rtol=0, atol=0)


def test_noise_is_in_training_alone() -> None:
    model = build()
    batch = planted_batch(model.graph, 0)
    model.train()
    model.contrast_weight = 0.0
    assert model.loss(*batch)["bpr"].item() != model.loss(*batch)["bpr"].item()
    model.eval()
    torch.testing.assert_close(scores(model), scores(model), rtol=0, atol=0)
    assert model.loss(*batch)["bpr"].item() == model.loss(*batch)["bpr"].item()


def test_schedule_is_of_the_checkpoint_and_holds_up_stopping() -> None:
    kwargs = {"schedule_kwargs": {"min_epochs": 1, "window": 1, "max_epochs": 2, "ramp_epochs": 2}}
    model = build(**kwargs).train()
    stops = []
    for epoch in range(5):
        model.loss(*planted_batch(model.graph, epoch))
        told = model.end_epoch()
        stops.append(model.may_stop)
    assert not stops[0]
    assert stops[-1]
    assert told["stage"] == "specialise"
    assert told["trigger_epoch"] is not None
    again = build(**kwargs)
    again.load_state_dict(model.state_dict())
    schedule, other = model.routing.router.schedule, again.routing.router.schedule
    assert (other.stage, other.ramp, other.epoch) == (schedule.stage, schedule.ramp, 5)
    for kw in ({"moe": False}, {"two_stage": False}, {"route_reg": False}):
        assert build(**kw).may_stop


def test_one_router_is_seen_by_the_recorder() -> None:
    model = build(k=2).eval()
    with RoutingRecorder(model) as recorder:
        model.prepare()
    report = recorder.report()
    assert len(report.layers) == 1


def test_users_count_by_a_power_of_their_history() -> None:
    model = build(user_power=1.0)
    graph = model.graph
    weight = model.user_weight[graph.user]
    assert math.isclose(float(weight.mean()), 1.0, rel_tol=1e-5)
    busy, idle = (
        int(graph.user_degree.argmax()),
        int(graph.user[graph.user_degree[graph.user].argmin()]),
    )
    ratio = graph.user_degree[busy] / graph.user_degree[idle]
    torch.testing.assert_close(model.user_weight[idle] / model.user_weight[busy], ratio.float())


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"k": 10}, "expected 1 <= k <= 9"),
        ({"level": "edge"}, "level is one of representation, score"),
        ({"level": "score", "moe": False}, "expected moe=True"),
        ({"negative_candidates": 0}, "expected negative_candidates >= 1"),
    ],
)
def test_wrong_settings_are_refused(kwargs: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(**kwargs)
