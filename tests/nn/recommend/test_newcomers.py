"""Newcomers get what the definition says: dense formulas beside each model, and clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted_graph import ITEMS, SILENT, USERS, dense_cosine_knn, planted_graph
from torch import Tensor

from graphmoe.errors import ConfigError, DataError
from graphmoe.nn.recommend import (
    BPRMF,
    FREEDOM,
    MAGNET,
    MGCN,
    VBPR,
    InteractionGraph,
    ItemKNN,
    LightGCN,
    Popularity,
    Recommender,
)
from graphmoe.nn.recommend.newcomers import add_items, add_users
from graphmoe.ops import SparseOperator

TWIN = 3  # a user of training, handed over as new


@pytest.fixture(scope="module")
def graph() -> InteractionGraph:
    return planted_graph()


def histories(graph: InteractionGraph, *users: int) -> SparseOperator:
    """The histories of users of training as those of new users."""
    rows = [graph.item[graph.user == user] for user in users]
    row = torch.cat([torch.full_like(items, n) for n, items in enumerate(rows)])
    return SparseOperator.from_edges(row, torch.cat(rows), (len(users), ITEMS))


def new_features(graph: InteractionGraph) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Raw features of four new items; the last has no audio."""
    gen = torch.Generator().manual_seed(7)
    features = {
        "image": 3 + 2 * torch.randn(4, 6, generator=gen),
        "audio": torch.randn(4, 4, generator=gen),
    }
    heard = torch.tensor([True, True, True, False])
    features["audio"][3] = 0.0
    return features, {"image": torch.ones(4, dtype=torch.bool), "audio": heard}


def dense(op: Any) -> Tensor:
    return op.to_sparse().to_dense().double()


def test_a_known_user_as_new_loses_only_their_own_vector_in_lightgcn(
    graph: InteractionGraph,
) -> None:
    model = LightGCN(graph, 8, num_layers=3).eval()
    with torch.no_grad():
        users, items = add_users(model, model.prepare(), histories(graph, TWIN, 5))
        expected = users[TWIN] - model.user[TWIN] / 4
    torch.testing.assert_close(users[USERS], expected)
    torch.testing.assert_close(users[USERS + 1], users[5] - model.user[5] / 4)
    torch.testing.assert_close(items, model.vectors()[1])


def test_nobody_else_is_scored_otherwise(graph: InteractionGraph) -> None:
    features, present = new_features(graph)
    everybody = torch.arange(USERS)
    for model in (
        Popularity(graph),
        ItemKNN(graph),
        FREEDOM(graph, 8),
        MGCN(graph, 8),
        MAGNET(graph, 8),
    ):
        model.eval()
        with torch.no_grad():
            before = model.score(model.prepare(), everybody)
            prepared = add_users(model, model.prepare(), histories(graph, TWIN))
            prepared = add_items(model, prepared, features, present)
            after = model.score(prepared, torch.arange(USERS + 1))
        assert after.shape == (USERS + 1, ITEMS + 4)
        assert bool(torch.isfinite(after).all())
        torch.testing.assert_close(after[:USERS, :ITEMS], before)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_freedom_by_its_dense_formula(graph: InteractionGraph, layers: int) -> None:
    model = FREEDOM(graph, 8, num_item_layers=layers, k=3, weights={"image": 3, "audio": 1}).eval()
    features, present = new_features(graph)
    with torch.no_grad():
        prepared = add_users(model, model.prepare(), histories(graph, TWIN))
        users, items = add_items(model, prepared, features, present)
        torch.testing.assert_close(users[USERS], users[TWIN] - model.user[TWIN] / 3)
        side = model.item.double()
        for _ in range(layers - 1):
            side = dense(model.neighbours) @ side
    near = dense_new_neighbours(graph, features, present, k=3)
    expected = torch.zeros(4, 8, dtype=torch.float64)
    for name, share in (("image", 3.0), ("audio", 1.0)):
        binary = (near[name] > 0).double()
        total = 3.0 + present["audio"].double()[:, None]
        mean = binary / binary.sum(1, keepdim=True).clamp_min(1)
        expected += share * present[name].double()[:, None] / total * mean @ side
    torch.testing.assert_close(
        items[ITEMS:].double(), expected * (layers > 0), rtol=1e-5, atol=1e-6
    )


def test_mgcn_by_its_dense_formula(graph: InteractionGraph) -> None:
    model = MGCN(graph, 8, k=4).eval()
    features, present = new_features(graph)
    with torch.no_grad():
        prepared = add_users(model, model.prepare(), histories(graph, TWIN))
        users, items = add_items(model, prepared, features, present)
        content, _ = model.content()
        views, _ = model.views()
        # The side view of the twin comes from items alone: only its guide, the content, differs.
        guide = content[TWIN] - model.user[TWIN] / 3
        side = model.fuser(
            guide[None], views[TWIN].view(1, 2, 8), model.user_present[TWIN : TWIN + 1]
        )
        torch.testing.assert_close(users[USERS], guide + side[0])

        near = dense_new_neighbours(graph, features, present, k=3)
        parts = []
        for m, (name, x) in enumerate(graph.modalities.items()):
            S = dense_cosine_knn(x, graph.present[name], 3)
            gate = model.gates[m](model.projections[m]()).sigmoid() * graph.present[name][:, None]
            d_new, d_old = 1 + near[name].sum(1), 1 + S.sum(1)
            weight = near[name] / d_new.sqrt()[:, None] / d_old.sqrt()
            parts.append(weight @ (model.item * gate).double())
        stacked = torch.stack(parts, dim=1).float()
        has = torch.stack([present["image"], present["audio"]], dim=1)
        expected = model.fuser(torch.zeros(4, 8), stacked, has)
    torch.testing.assert_close(items[ITEMS:], expected, rtol=1e-4, atol=1e-5)


def test_item_knn_by_its_dense_formula(graph: InteractionGraph) -> None:
    model = ItemKNN(graph, k=3)
    features, present = new_features(graph)
    prepared = add_users(model, model.prepare(), histories(graph, TWIN))
    prepared = add_items(model, prepared, features, present)
    scores = model.score(prepared, torch.tensor([TWIN, USERS]))
    torch.testing.assert_close(scores[0], scores[1])  # nothing is learnt: a twin is a twin
    near = dense_new_neighbours(graph, features, present, k=3)
    total = 1.0 + present["audio"].double()[:, None]
    merged = (near["image"] + near["audio"]) / total
    kept = torch.zeros_like(merged).scatter_(1, merged.topk(3, dim=1).indices, 1.0)
    history = (dense(graph.mean_of_history)[TWIN] > 0).double()
    expected = (merged * kept) @ history
    torch.testing.assert_close(scores[1, ITEMS:].double(), expected, rtol=1e-5, atol=1e-6)
    item = torch.tensor([ITEMS + 1])
    gave = model.explain(prepared, torch.tensor([USERS]), item)
    torch.testing.assert_close(gave["content"], scores[1, item])


def test_vbpr_scores_new_items_by_their_content_alone(graph: InteractionGraph) -> None:
    model = VBPR(graph, 8).eval()
    with torch.no_grad():
        model.item_bias.fill_(0.3)
        # An item of training, features as the data has them, handed over as a new one.
        raw = {"image": torch.randn(1, 6), "audio": torch.randn(1, 4)}
        present = {name: torch.tensor([True]) for name in raw}
        users, items = add_items(model, model.prepare(), raw, present)
        x = torch.cat([graph.standardise(name, raw[name]) for name in graph.modalities], dim=1)
        seen = model.visual(x)[0]
    assert users.shape == (USERS, 17)
    torch.testing.assert_close(items[ITEMS], torch.cat([torch.zeros(8), seen]))


def dense_view(graph: InteractionGraph, model: MAGNET) -> tuple[Tensor, Tensor, Tensor]:
    """R + P, and the sums of its rows and columns, float64."""
    R = torch.zeros(USERS, ITEMS, dtype=torch.float64)
    R[graph.user, graph.item] = 1
    edges = model.dual.pseudo
    R[edges.user, edges.item] = edges.weight.double()
    return R, R.sum(1), R.sum(0)


def drift_apart(model: MAGNET) -> MAGNET:
    """A model whose parts all differ from their start, as after training."""
    gen = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=gen))
    return model.eval()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("ego", [False, True])
def test_a_known_user_as_new_in_magnet_by_dense_formulas(
    graph: InteractionGraph, layers: int, ego: bool
) -> None:
    steps = {"num_layers": 2, "content_layers": layers}
    model = drift_apart(MAGNET(graph, 8, **steps, ego=ego, num_neighbours=3))
    with torch.no_grad():
        users, items, _ = add_users(model, model.prepare(), histories(graph, TWIN))
        own = model.encoder.user[TWIN] / 3 if ego else 0.0
        old = model.encoder(model.view_a)[0][TWIN] - own
        R, of_user, of_item = dense_view(graph, model)
        hat = R / of_user.clamp_min(1e-30).sqrt()[:, None] / of_item.clamp_min(1e-30).sqrt()
        user, item = model.encoder.user.double(), model.encoder.item.double()
        below = torch.zeros_like(item)
        for _ in range(layers):
            below += item
            user, item = hat @ item, hat.t() @ user
        mine = torch.zeros(ITEMS, dtype=torch.float64)
        mine[graph.item[graph.user == TWIN]] = 1
        row = mine / mine.sum().sqrt() / of_item.clamp_min(1e-30).sqrt()
        content = (row @ below / (layers + ego)).float()
        beta = model.fusion.beta()[0][TWIN]
        base = torch.lerp(old, content, beta)
    torch.testing.assert_close(users.base[USERS], base, rtol=1e-4, atol=1e-6)
    # Cues and traits have no learnt vector of the user in them: a twin's are the same.
    torch.testing.assert_close(users.cues[USERS], users.cues[TWIN])
    torch.testing.assert_close(users.traits[USERS], users.traits[TWIN])
    with torch.no_grad():
        side, _, weight, _ = model.side(
            (base[None], users.cues[[TWIN]], users.traits[[TWIN]]),
            (items.base[:0], items.cues[:0], items.traits[:0]),
        )
    torch.testing.assert_close(users.final[USERS, :8], base + side[0], rtol=1e-4, atol=1e-5)
    profile = model.content_weight * model.profile.weighed(model.profile.users()[[TWIN]], weight)
    torch.testing.assert_close(users.final[USERS, 8:], profile[0], rtol=1e-4, atol=1e-5)


def test_a_known_user_as_new_in_magnet_is_scored_as_before(graph: InteractionGraph) -> None:
    """By default no vector is a user's own alone, and without view B nothing else is either."""
    model = drift_apart(MAGNET(graph, 8, view_b=False, walk_weight=0.0))
    with torch.no_grad():
        prepared = add_users(model, model.prepare(), histories(graph, TWIN, 7))
        scores = model.score(prepared, torch.tensor([TWIN, 7, USERS, USERS + 1]))
    torch.testing.assert_close(scores[2:], scores[:2], rtol=1e-4, atol=1e-5)


def test_new_items_in_magnet_by_dense_formulas(graph: InteractionGraph) -> None:
    model = drift_apart(MAGNET(graph, 8, num_layers=1, ego=True, num_neighbours=3))
    features, present = new_features(graph)
    with torch.no_grad():
        _, items, _ = add_items(model, model.prepare(), features, present)
    near = dense_new_neighbours(graph, features, present, k=3)
    merged = (near["image"] + near["audio"]) / (1.0 + present["audio"].double()[:, None])
    S = merged * torch.zeros_like(merged).scatter_(1, merged.topk(3, dim=1).indices, 1.0)
    R = dense(graph.mean_of_history).sign()
    affinity = S @ (R / R.sum(1).clamp_min(1).sqrt()[:, None]).t()  # [4, U]
    _, of_user, _ = dense_view(graph, model)
    beta = model.fusion.item[0].sigmoid().item()  # of degree 0
    for n in range(4):
        best, user = affinity[n].sort(descending=True, stable=True)
        best, user = best[:5], user[:5]
        weight = 0.5 * best / best[0]
        hat = weight / weight.sum().sqrt() / of_user[user].sqrt()
        with torch.no_grad():
            expected = beta * (hat @ model.encoder.user.double()[user]) / 2
        torch.testing.assert_close(items.base[ITEMS + n].double(), expected, rtol=1e-4, atol=1e-6)
    parts = []
    for name, x in graph.modalities.items():
        T = dense_cosine_knn(x, graph.present[name], 3)
        with torch.no_grad():
            z = (model.encoder(model.view_a)[1] * graph.present[name][:, None]).double()
        d_new, d_old = 1 + near[name].sum(1), 1 + T.sum(1)
        parts.append(near[name] / d_new.sqrt()[:, None] / d_old.sqrt() @ z)
    cues = torch.cat(parts, dim=1)
    torch.testing.assert_close(items.cues[ITEMS:].double(), cues, rtol=1e-4, atol=1e-6)
    assert not items.traits[ITEMS:].any()


def test_contributions_of_newcomers_sum_to_their_scores(graph: InteractionGraph) -> None:
    model = drift_apart(MAGNET(graph, 8, num_neighbours=3))
    features, present = new_features(graph)
    with torch.no_grad():
        prepared = add_users(model, model.prepare(), histories(graph, TWIN))
        prepared = add_items(model, prepared, features, present)
        scores = model.score(prepared, torch.arange(USERS + 1))
    users = torch.arange(USERS + 1).repeat_interleave(ITEMS + 4)
    items = torch.arange(ITEMS + 4).repeat(USERS + 1)
    gave = model.explain(prepared, users, items)
    # One for each expert and cue, the collaborative part, likeness by each modality, and walks.
    assert len(gave) == 1 + 9 * 3 + 2 + 1
    total = torch.stack(list(gave.values())).sum(0)
    torch.testing.assert_close(total, scores.flatten(), rtol=1e-4, atol=1e-5)


def test_a_new_user_without_history_gets_what_nobody_chose(graph: InteractionGraph) -> None:
    empty = SparseOperator.from_edges(*torch.zeros(2, 0, dtype=torch.int64), (1, ITEMS))
    for model in (LightGCN(graph, 8), FREEDOM(graph, 8), ItemKNN(graph)):
        model.eval()
        with torch.no_grad():
            prepared = add_users(model, model.prepare(), empty)
            scores = model.score(prepared, torch.tensor([USERS]))
        assert torch.equal(scores, torch.zeros(1, ITEMS))


@pytest.mark.parametrize("name", [BPRMF, VBPR])
def test_models_that_know_users_by_heart_refuse_new_ones(
    name: type[Recommender], graph: InteractionGraph
) -> None:
    model = name(graph)
    with pytest.raises(ConfigError, match=f"{name.__name__} cannot score new users"):
        add_users(model, model.prepare(), histories(graph, TWIN))


@pytest.mark.parametrize("name", [BPRMF, LightGCN])
def test_models_without_content_refuse_new_items(
    name: type[Recommender], graph: InteractionGraph
) -> None:
    model = name(graph)
    with pytest.raises(ConfigError, match=f"{name.__name__} cannot score new items"):
        add_items(model, model.prepare(), *new_features(graph))
    company = ItemKNN(graph, by="company")
    with pytest.raises(ConfigError, match="by company cannot score new items"):
        add_items(company, company.prepare(), *new_features(graph))


def test_features_must_be_of_the_modalities_of_training(graph: InteractionGraph) -> None:
    model = VBPR(graph, 8)
    features, present = new_features(graph)
    with pytest.raises(ConfigError, match="audio not given"):
        add_items(model, model.prepare(), {"image": features["image"]}, present)
    with pytest.raises(DataError, match=r"'audio': expected features of shape \(N, 4\)"):
        add_items(model, model.prepare(), {**features, "audio": torch.ones(4, 5)}, present)
    smell = {**features, "smell": torch.ones(4, 2)}
    with pytest.raises(DataError, match="unknown modality 'smell'"):
        add_items(model, model.prepare(), smell, {**present, "smell": present["image"]})


def dense_new_neighbours(
    graph: InteractionGraph, features: dict[str, Tensor], present: dict[str, Tensor], k: int
) -> dict[str, Tensor]:
    """Of each new item the k largest positive cosines with items of training, float64."""
    found = {}
    for name, old in graph.modalities.items():
        new = graph.standardise(name, features[name], present[name]).double()
        length = new.norm(dim=1).clamp_min(1e-8)[:, None] * old.double().norm(dim=1).clamp_min(1e-8)
        cosine = new @ old.double().t() / length
        cosine[:, ~graph.present[name]] = -1
        keep = torch.zeros_like(cosine).scatter_(1, cosine.topk(k, dim=1).indices, 1.0)
        found[name] = (cosine * keep).clamp_min(0) * present[name][:, None]
    assert not found["audio"][:, list(SILENT)].any()
    return found
