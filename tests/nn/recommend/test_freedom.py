from __future__ import annotations

import pytest
import torch
from planted_graph import (
    USERS,
    dense_cosine_knn,
    dense_mean_of_layers,
    planted_batch,
    planted_graph,
)
from torch import Tensor
from torch.nn import functional as F

from graphmoe.errors import ConfigError
from graphmoe.nn.recommend import FREEDOM


def slow_bpr(u: Tensor, p: Tensor, n: Tensor) -> Tensor:
    return F.softplus((u * n).sum(1) - (u * p).sum(1)).mean()


def dense_neighbours(model: FREEDOM, weights: dict[str, float]) -> Tensor:
    """Weighted means over the neighbours by each modality that the item has."""
    graph, total = model.graph, 0
    share = {m: weights[m] * graph.present[m].double() for m in weights}
    norm = torch.stack(list(share.values())).sum(0).clamp_min(1e-12)
    for name, x in graph.modalities.items():
        near = (dense_cosine_knn(x, graph.present[name], model.k) > 0).double()
        mean = near / near.sum(1, keepdim=True).clamp_min(1)
        total = total + (share[name] / norm)[:, None] * mean
    return torch.as_tensor(total)


@pytest.mark.parametrize("layers", [1, 2])
def test_vectors_loss_and_gradients_against_dense_algebra(layers: int) -> None:
    weights = {"image": 0.1, "audio": 0.9}
    model = FREEDOM(
        planted_graph(), 4, k=3, num_item_layers=layers, weights=weights, feature_weight=0.3
    ).double()
    user, positive, negative = planted_batch(model.graph)
    users, items = dense_mean_of_layers(model.graph, torch.cat([model.user, model.item]), 2).split(
        [USERS, len(model.item)]
    )
    S = torch.linalg.matrix_power(dense_neighbours(model, weights), layers)
    items = items + S @ model.item
    # Operators are built in single precision.
    torch.testing.assert_close(model.vectors(), (users, items), rtol=1e-6, atol=1e-7)
    u = users[user]
    expected = {"bpr": slow_bpr(u, items[positive], items[negative])}
    for name, project in zip(("image", "audio"), model.projections, strict=True):
        out = project.features @ project.lin.weight.t() + project.lin.bias
        out = out * model.graph.present[name][:, None]
        expected[f"bpr_{name}"] = 0.3 * slow_bpr(u, out[positive], out[negative])
    terms = model.loss(user, positive, negative)
    torch.testing.assert_close(terms, expected, rtol=1e-6, atol=1e-8)
    parameters = tuple(model.parameters())
    fast = torch.autograd.grad(torch.stack(list(terms.values())).sum(), parameters)
    slow = torch.autograd.grad(torch.stack(list(expected.values())).sum(), parameters)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-8)


def test_an_epoch_sees_a_share_of_the_interactions_drawn_by_the_generator_alone() -> None:
    model = FREEDOM(planted_graph(), 4, k=3, dropout=0.4)
    edges = model.graph.user.numel()
    full = set(zip(model.graph.user.tolist(), model.graph.item.tolist(), strict=True))
    drawn = []
    for seed in (0, 0, 1):
        model.begin_epoch(0, torch.Generator().manual_seed(seed))
        op = model.thinned
        drawn.append(set(zip(op.row().tolist(), op.col.tolist(), strict=True)))
    assert all(len(kept) == int(edges * 0.6) and kept < full for kept in drawn)
    assert drawn[0] == drawn[1] != drawn[2]


def test_thinning_spares_pairs_of_low_degree_and_normalises_what_is_left() -> None:
    model = FREEDOM(planted_graph(), 4, k=3, dropout=0.7)
    gen = torch.Generator().manual_seed(0)
    kept = torch.zeros(model.graph.user.numel())
    key = model.graph.user * 1000 + model.graph.item
    for _ in range(400):
        model.begin_epoch(0, gen)
        op = model.thinned
        kept += torch.isin(key, op.row() * 1000 + op.col)
    count = op.row().bincount()
    taken = op.col.long().bincount()
    torch.testing.assert_close(op.value, (count[op.row()] * taken[op.col.long()]).float().rsqrt())
    weight = model.graph.normalized.value
    drawn = torch.zeros(len(key))
    for _ in range(400):
        drawn[torch.multinomial(weight, op.nnz, generator=gen)] += 1
    # Both are draws without replacement with these weights: they differ by chance alone.
    spread = (kept - drawn).abs() / 400
    assert spread.mean() < 0.04
    assert torch.corrcoef(torch.stack([kept, weight]))[0, 1] > 0.8


def test_ranking_uses_all_interactions() -> None:
    model = FREEDOM(planted_graph(), 4, k=3, dropout=0.5)
    before = model.vectors()
    model.begin_epoch(0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.vectors(), before, rtol=0, atol=0)


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigError, match=r"dropout is a share .* got 1"):
        FREEDOM(planted_graph(), dropout=1)
    with pytest.raises(ConfigError, match="weights"):
        FREEDOM(planted_graph(), weights={"image": 1.0})
