"""What holds for every registered recommender."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from planted_graph import (
    COLD_ITEM,
    ITEMS,
    NEW_USER,
    SILENT,
    USERS,
    planted_batch,
    planted_graph,
)

import graphmoe.nn.recommend as package
from graphmoe.errors import DataError
from graphmoe.nn.recommend import InteractionGraph, Recommender
from graphmoe.registry import recommenders

#: How each recommender is built here; a registered one that is not here fails the first test.
ENTRIES: dict[str, dict[str, Any]] = {
    "BPRMF": {"embedding_dim": 8},
    "FREEDOM": {"embedding_dim": 8, "k": 4, "dropout": 0.3, "feature_weight": 0.1},
    "ItemKNN": {"k": 4},
    "LightGCN": {"embedding_dim": 8, "reg_weight": 1e-2},
    "MAGNET": {"embedding_dim": 8, "num_neighbours": 4, "content_rank": 4, "loo": True},
    "MGCN": {"embedding_dim": 8, "k": 4, "contrast_weight": 0.1, "reg_weight": 1e-2},
    "Popularity": {},
    "RandomWalk": {"steps": 2},
    "VBPR": {"embedding_dim": 8},
}
REGISTERED = {
    cls.__name__: cls
    for cls in recommenders.lookup_dict.values()
    if cls.__module__.startswith(package.__name__)
}
TRAINABLE = sorted(name for name, cls in REGISTERED.items() if cls.trainable)

every = pytest.mark.parametrize("name", sorted(REGISTERED))
every_trainable = pytest.mark.parametrize("name", TRAINABLE)


def build(name: str, seed: int = 0, graph: InteractionGraph | None = None) -> Recommender:
    torch.manual_seed(seed)
    return REGISTERED[name](planted_graph() if graph is None else graph, **ENTRIES[name])


def scores(model: Recommender) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().score(model.prepare(), torch.arange(USERS))


def total(model: Recommender, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.stack(list(model.loss(*batch).values())).sum()


def test_every_recommender_has_an_entry_here() -> None:
    assert set(REGISTERED) == set(ENTRIES)


def test_every_recommender_of_the_package_is_registered() -> None:
    named = {name for name in package.__all__ if inspect.isclass(getattr(package, name))}
    subclasses = {n for n in named if issubclass(getattr(package, n), Recommender)}
    assert subclasses - {"Recommender"} == set(REGISTERED)


@every
def test_is_found_by_its_name_and_cites_its_source(name: str) -> None:
    assert recommenders.lookup(name.lower()) is REGISTERED[name]
    doc = REGISTERED[name].__doc__ or ""
    assert name == "Popularity" or "arxiv.org/abs/" in doc or "doi.org/" in doc


@every
def test_scores_every_item_for_any_users(name: str) -> None:
    model = build(name)
    full = scores(model)
    assert full.shape == (USERS, ITEMS)
    assert torch.isfinite(full).all()
    some = torch.tensor([3, NEW_USER, 3, 0])
    torch.testing.assert_close(model.score(model.prepare(), some), full[some])
    assert model.score(model.prepare(), some[:0]).shape == (0, ITEMS)


@every
def test_scores_are_products_of_the_vectors_where_there_are_vectors(name: str) -> None:
    model = build(name)
    if REGISTERED[name].vectors is Recommender.vectors:
        with pytest.raises(NotImplementedError, match="no dot products"):
            model.vectors()
        return
    with torch.no_grad():
        users, items = model.eval().vectors()
    assert (users.size(0), items.size(0)) == (USERS, ITEMS)
    torch.testing.assert_close(scores(model), users @ items.t())


@every
def test_contributions_sum_to_the_score(name: str) -> None:
    model = build(name)
    users, items = torch.tensor([0, 5, NEW_USER, 5]), torch.tensor([1, COLD_ITEM, 2, SILENT[1]])
    with torch.no_grad():
        parts = model.eval().explain(model.prepare(), users, items)
    torch.testing.assert_close(
        torch.stack(list(parts.values())).sum(dim=0), scores(model)[users, items]
    )


@every_trainable
def test_the_loss_is_finite_reaches_everything_and_falls(name: str) -> None:
    model, gen = build(name), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for epoch in range(25):
        model.begin_epoch(epoch, gen)
        terms = model.loss(*planted_batch(model.graph, epoch))
        assert all(term.dim() == 0 and torch.isfinite(term) for term in terms.values())
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        assert isinstance(model.end_epoch(), dict)
        losses.append(terms["bpr"].item())
    for parameter, weight in model.named_parameters():
        assert weight.grad is not None, f"{parameter} has no gradient"
        assert torch.isfinite(weight.grad).all()
    assert losses[-1] < 0.85 * losses[0]
    full, graph = scores(model), model.graph
    positive = full[graph.user, graph.item].mean()
    assert positive > full[:NEW_USER].mean()


@every_trainable
def test_gradients_are_slopes_of_the_loss(name: str) -> None:
    """Along a random direction, in double precision, by central differences."""
    model = build(name).double()
    model.begin_epoch(0, torch.Generator().manual_seed(0))
    batch = planted_batch(model.graph)
    start = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)  # what is drawn within a step is drawn alike
    total(model, batch).backward()
    steps = {n: torch.randn_like(p) for n, p in model.named_parameters()}
    if name == "MAGNET":
        # Its router looks at the vectors without sending a gradient back: no slope along these.
        # Their gradients are compared with those of dense formulas in test_magnet_dense.py.
        steps = {
            n: torch.zeros_like(s) if n.startswith(("encoder", "fusion")) else s
            for n, s in steps.items()
        }
    slope = sum(float((p.grad * steps[n]).sum()) for n, p in model.named_parameters())
    ends = []
    for sign in (1, -1):
        model.load_state_dict(start)
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.add_(steps[n], alpha=sign * 1e-6)
            torch.manual_seed(0)
            ends.append(float(total(model, batch)))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-8)


@every
def test_double_precision_agrees_with_single(name: str) -> None:
    model = build(name)
    single = scores(model)
    double = scores(model.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-5)


@every
def test_weights_move_to_another_model_of_the_same_graph(name: str) -> None:
    trained, other = build(name, seed=1), build(name, seed=2)
    if name in TRAINABLE:
        assert not torch.equal(scores(trained), scores(other))
    other.load_state_dict(trained.state_dict())
    assert torch.equal(scores(trained), scores(other))


@every_trainable
def test_drawing_anew_is_the_seed_s_alone(name: str) -> None:
    model = build(name, seed=1)
    first, batch = scores(model), planted_batch(model.graph)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    total(model.train(), batch).backward()
    optimizer.step()
    assert not torch.equal(scores(model), first)
    torch.manual_seed(7)
    model.reset_parameters()
    again = scores(model)
    torch.manual_seed(7)
    model.reset_parameters()
    assert torch.equal(scores(model), again)
    torch.testing.assert_close(again.std(), first.std(), rtol=0.5, atol=1e-3)


@every
def test_ranking_draws_nothing_and_keeps_no_gradient(name: str) -> None:
    model = build(name).eval()
    state = torch.random.get_rng_state()
    prepared = model.prepare()
    first = model.score(prepared, torch.arange(USERS))
    assert torch.equal(first, model.score(model.prepare(), torch.arange(USERS)))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not first.requires_grad


@every
def test_nothing_but_the_graph_is_known(name: str) -> None:
    """Two logs with equal training pairs are one to a model, whatever the order they came in."""
    graph = planted_graph()
    order = torch.randperm(graph.user.numel()).repeat(2)
    shuffled = planted_graph()
    shuffled = InteractionGraph.from_edges(
        graph.user[order], graph.item[order], USERS, ITEMS, graph.modalities, graph.present
    )
    torch.testing.assert_close(
        scores(build(name, graph=graph)), scores(build(name, graph=shuffled)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ["FREEDOM", "ItemKNN", "MGCN", "VBPR"])
def test_without_features_content_models_say_so(name: str) -> None:
    graph = planted_graph()
    bare = InteractionGraph.from_edges(graph.user, graph.item, USERS, ITEMS)
    with pytest.raises(DataError, match="features of items"):
        build(name, graph=bare)


def test_what_is_not_trained_has_no_loss() -> None:
    with pytest.raises(NotImplementedError, match="Popularity has no loss"):
        build("Popularity").loss(*planted_batch(planted_graph()))
