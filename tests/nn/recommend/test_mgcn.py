from __future__ import annotations

import pytest
import torch
from planted_graph import (
    SILENT,
    USERS,
    dense_bipartite,
    dense_cosine_knn,
    dense_mean_of_layers,
    planted_batch,
    planted_graph,
)
from torch import Tensor
from torch.nn import functional as F

from graphmoe.errors import ConfigError
from graphmoe.nn.recommend import MGCN, InteractionGraph


def complete(graph: InteractionGraph) -> InteractionGraph:
    """The same, but no item lacks anything."""
    items, users = graph.num_items, graph.num_users
    features = {m: torch.randn(items, x.size(1)) for m, x in graph.modalities.items()}
    return InteractionGraph.from_edges(graph.user, graph.item, users, items, features)


def dense_vectors(model: MGCN) -> tuple[Tensor, Tensor]:
    """Behaviour and side view of users above items, every formula written out."""
    graph, M = model.graph, len(model.graph.modalities)
    content = dense_mean_of_layers(graph, torch.cat([model.user, model.item]), model.num_layers)
    R = dense_bipartite(graph)[:USERS, USERS:]
    views, there = [], []
    for m, (name, given) in enumerate(graph.modalities.items()):
        has, project = graph.present[name], model.projections[m]
        S = dense_cosine_knn(given, has, model.k - 1) + torch.eye(len(given), dtype=torch.float64)
        root = S.sum(1).rsqrt()
        S = root[:, None] * S * root
        feature = project.features @ project.lin.weight.t() + project.lin.bias
        gate = torch.sigmoid(feature @ model.gates[m].weight.t() + model.gates[m].bias)
        item = model.item * gate * has[:, None]
        for _ in range(model.num_item_layers):
            item = S @ item
        views.append(torch.cat([R @ item, item]))
        there.append(torch.cat([R @ has.double() > 0, has]))
    side, attention = [], model.fuser.attention
    for n in range(len(content)):
        known = [views[m][n] for m in range(M) if there[m][n]]
        mean = torch.stack(known).mean(0) if known else torch.zeros(model.embedding_dim).double()
        own = [views[m][n] if there[m][n] else mean for m in range(M)]
        asked = [attention.query(torch.tanh(attention.project(h))) for h in own]
        alpha = torch.cat(asked).softmax(0)
        shared = torch.stack([a * h for a, h in zip(alpha, own, strict=True)]).sum(0)
        prefer = torch.sigmoid(model.fuser.prefer(content[n])).view(M, -1)
        total = shared
        for m in range(M):
            if there[m][n]:
                total = total + prefer[m] * (own[m] - shared)
        side.append(total / (M + 1))
    return content, torch.stack(side)


def slow_contrast(a: Tensor, b: Tensor, tau: float) -> Tensor:
    cos = F.normalize(a) @ F.normalize(b).t() / tau
    return -(cos.diag().exp() / cos.exp().sum(1)).log().mean()


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "missing"])
@pytest.mark.parametrize("layers", [1, 2])
def test_vectors_loss_and_gradients_against_dense_algebra(whole: bool, layers: int) -> None:
    graph = complete(planted_graph()) if whole else planted_graph()
    model = MGCN(
        graph, 4, num_item_layers=layers, k=4, contrast_weight=0.3, reg_weight=0.2
    ).double()
    user, positive, negative = planted_batch(graph)
    content, side = dense_vectors(model)
    full = content + side
    # Operators are built in single precision.
    torch.testing.assert_close(torch.cat(model.vectors()), full, rtol=1e-5, atol=1e-6)
    u, p, n = full[user], full[USERS + positive], full[USERS + negative]
    users, items = user.unique(), USERS + positive.unique()
    contrast = sum(slow_contrast(side[x], content[x], 0.2) for x in (users, items))
    expected = {
        "bpr": F.softplus((u * n).sum(1) - (u * p).sum(1)).mean(),
        "contrast": torch.as_tensor(0.3 * contrast),
        "l2": 0.1 * (u.square().sum() + p.square().sum() + n.square().sum()) / len(user),
    }
    terms = model.loss(user, positive, negative)
    torch.testing.assert_close(terms, expected, rtol=1e-5, atol=1e-7)
    parameters = tuple(model.parameters())
    fast = torch.autograd.grad(torch.stack(list(terms.values())).sum(), parameters)
    slow = torch.autograd.grad(torch.stack(list(expected.values())).sum(), parameters)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-6)


def test_missing_features_stay_missing_in_training() -> None:
    model = MGCN(planted_graph(), 4, k=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        torch.stack(list(model.loss(*planted_batch(model.graph, step)).values())).sum().backward()
        optimizer.step()
    audio = model.projections[1].features
    assert not audio[list(SILENT)].any()
    assert not torch.equal(audio, model.graph.modalities["audio"])


def test_an_item_without_any_modality_has_no_side_view() -> None:
    model = MGCN(planted_graph(), 4, k=3)
    content, vectors = model.content()[1], model.vectors()[1]
    torch.testing.assert_close(vectors[SILENT[1]], content[SILENT[1]])
    assert not torch.allclose(vectors[SILENT[0]], content[SILENT[0]])


def test_features_are_frozen_on_request() -> None:
    model = MGCN(planted_graph(), 4, k=3, train_features=False)
    assert "projections.0.features" not in dict(model.named_parameters())
    assert "projections.0.features" not in model.state_dict()


def test_an_item_is_its_own_first_neighbour() -> None:
    with pytest.raises(ConfigError, match="expected k >= 2, got 1"):
        MGCN(planted_graph(), k=1)
