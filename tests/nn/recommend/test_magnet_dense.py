"""MAGNET's whole loss against dense formulas: every term, and the gradient of every parameter."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from planted_graph import (
    ITEMS,
    USERS,
    dense_bipartite,
    dense_cosine_knn,
    planted_batch,
    planted_graph,
)
from torch import Tensor
from torch.nn import functional as F

from graphmoe.nn.recommend import MAGNET

DIM, NEAR = 6, 3


def build(**kwargs: Any) -> MAGNET:
    """In double precision, every parameter away from where it starts, no noise in the routing."""
    torch.manual_seed(0)
    model = MAGNET(planted_graph(), DIM, num_neighbours=NEAR, two_stage=False, **kwargs).double()
    gen = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=gen, dtype=torch.float64)
            parameter.add_(0.3 * drawn)
    return model.train()


def mean_of_layers(A: Tensor, ego: Tensor, layers: int, with_ego: bool) -> Tensor:
    powers = [ego]
    for _ in range(layers):
        powers.append(A @ powers[-1])
    return torch.stack(powers[0 if with_ego else 1 :]).mean(dim=0)


def normalised(A: Tensor) -> Tensor:
    degree = A.sum(1)
    root = torch.where(degree > 0, degree.rsqrt(), 0.0)
    return root[:, None] * A * root


def view_b(model: MAGNET) -> Tensor:
    pseudo, n = model.dual.pseudo, USERS + ITEMS
    A = torch.zeros(n, n, dtype=torch.float64)
    A[model.graph.user, USERS + model.graph.item] = 1
    A[pseudo.user, USERS + pseudo.item] = pseudo.weight.double()
    return normalised(A + A.t())


def nce(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    cosine = (x / x.norm(dim=1, keepdim=True)) @ (y / y.norm(dim=1, keepdim=True)).t()
    return -(cosine / temperature).log_softmax(dim=1).diagonal().mean()


def unsure(p: Tensor) -> Tensor:
    return -(p * p.log()).sum(-1) / math.log(p.size(-1))


def dense_loss(model: MAGNET, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Any]:
    """The definition, pair by pair and node by node, with the model's own parameters."""
    graph, enc, ego = model.graph, model.encoder, model.encoder.ego
    free = torch.cat([enc.user, enc.item])
    a = mean_of_layers(dense_bipartite(graph), free, enc.num_layers, ego)
    b = mean_of_layers(view_b(model), free, model.content_layers, ego)
    degree = torch.cat([graph.user_degree, graph.item_degree]).double()
    side_of = torch.cat([model.fusion.user.expand(USERS, 2), model.fusion.item.expand(ITEMS, 2)])
    beta = torch.sigmoid(side_of[:, 0] + side_of[:, 1] * (1 + degree).log())[:, None]
    base = (1 - beta) * a + beta * b

    cues = [base]
    up = dense_bipartite(graph)[:USERS, USERS:]
    for name, x in graph.modalities.items():
        there = graph.present[name]
        S = normalised(dense_cosine_knn(x, there, NEAR) + torch.eye(ITEMS, dtype=torch.float64))
        items = S @ (a[USERS:] * there[:, None])
        cues.append(torch.cat([up @ items, items]))
    stacked = torch.stack(cues, dim=1)  # [U + I, M, d]

    users = torch.unique(user) if not model.loo else user
    items = torch.unique(torch.cat([positive, negative]))
    of_users = stacked[users]
    if model.loo:
        rows = []
        for u, i in zip(user.tolist(), positive.tolist(), strict=True):
            n = graph.user_degree[u]
            rest = (n / (n - 1)).sqrt() * (stacked[u, 1:] - up[u, i] * stacked[USERS + i, 1:])
            rows.append(rest if n > 1 else model.cues.unknown.view(-1, DIM))
        of_users = torch.cat([stacked[users, :1], torch.stack(rows)], dim=1)
    nodes = torch.cat([users, USERS + items])
    seen = torch.cat([of_users, stacked[USERS + items]])

    tokens = []
    for place, n in enumerate(nodes.tolist()):
        normed = []
        for m in range(3):
            cue = seen[place, m].detach() if m == 0 else seen[place, m]
            normed.append((cue - cue.mean()) / (cue.var(unbiased=False) + 1e-5).sqrt())
        traits = model.traits.users[n] if n < USERS else model.traits.items[n - USERS]
        wide = torch.cat([*normed, traits])
        lin = model.routing.user if n < USERS else model.routing.item
        tokens.append(F.gelu(lin.weight @ wide + lin.bias))
    last = model.routing.router.router.lin
    probs = (torch.stack(tokens) @ last.weight.t() + last.bias).softmax(dim=1)
    chosen = probs.detach().topk(model.k, dim=1).indices
    kept = torch.zeros_like(probs).scatter(1, chosen, 1.0) * probs
    gates = kept / kept.sum(1, keepdim=True)
    if model.routed_by == "users":
        gates = torch.cat([gates[: len(users)], torch.full_like(gates[len(users) :], 1 / 9)])
        probs, chosen = probs[: len(users)], chosen[: len(users)]

    experts = model.experts
    share = (experts.prior + experts.drift).softmax(dim=1)
    added = torch.zeros(len(nodes), DIM, dtype=torch.float64)
    for k in range(experts.num_experts):
        said = torch.einsum("m,nmd->nd", share[k], seen)
        if experts.gated:
            opened = seen[:, 0] @ experts.gate_weight[k] + experts.gate_bias[k]
            said = torch.sigmoid(opened) * said
        added = added + gates[:, k : k + 1] * said
    added = model.side_weight * added
    final = base[nodes] + added

    where_user = torch.arange(len(user)) if model.loo else torch.searchsorted(users, user)
    p, n = (len(users) + torch.searchsorted(items, side) for side in (positive, negative))
    y_u, y_p, y_n = final[where_user], final[p], final[n]
    q = model.profile.items
    sums = up.sign() @ q
    left = F.normalize((sums[user] - q[positive]) * (graph.user_degree[user] > 1)[:, None], dim=1)
    likeness = torch.zeros(len(user), dtype=torch.float64)
    start = 0
    for m, width in enumerate(model.profile.widths):
        part = slice(start, start + width)
        alike = (left[:, part] * (q[positive] - q[negative])[:, part]).sum(1)
        if model.guided:
            alike = alike * model.num_cues * (gates @ share)[where_user, m + 1]
        likeness = likeness + model.content_weight * alike
        start += width
    weight = graph.user_degree.clamp_min(1).double() ** -model.user_power
    weight = (weight / weight[graph.user].mean())[user]
    margin = (y_u * (y_p - y_n)).sum(1) + likeness
    squares = sum((weight[:, None] * y.square()).sum() for y in (y_u, y_p, y_n))
    met = [(user == u).nonzero()[-1].item() for u in user.unique()] if model.loo else None
    met = torch.arange(len(users)) if met is None else torch.tensor(met)
    liked = len(users) + torch.searchsorted(items, positive.unique())
    contrast = sum(nce(added[some], base[nodes][some], 0.2) for some in (liked, met))
    load = torch.bincount(chosen.flatten(), minlength=9) / chosen.numel()
    cover = 1 - unsure(probs.mean(0)) + 0.1 * (9 * (load * probs.mean(0)).sum() - 1)
    return {
        "bpr": -(weight * F.logsigmoid(margin)).mean(),
        "l2": model.reg_weight * squares / (2 * len(user)),
        "contrast": model.contrast_weight * contrast,
        "templates": model.drift_weight * experts.drift.square().sum(),
        "routing": 0.05 * cover + 0.02 * unsure(probs).mean(),
    }


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"gated": True, "ego": True, "content_layers": 2},
        {"loo": True, "k": 1},
        {"guided": False},
        {"routed_by": "users", "num_layers": 1},
    ],
    ids=str,
)
def test_every_term_and_every_gradient(kwargs: dict[str, Any]) -> None:
    model = build(reg_weight=0.1, contrast_weight=0.3, drift_weight=0.2, **kwargs)
    batch = tuple(part[:60] for part in planted_batch(model.graph))
    expected, found = dense_loss(model, *batch), model.loss(*batch)
    assert list(found) == list(expected)
    names, leaves = zip(
        *((name, p) for name, p in model.named_parameters() if p.requires_grad), strict=True
    )
    for term, value in found.items():
        torch.testing.assert_close(value, expected[term], rtol=1e-5, atol=1e-8)
        # The operators hold float32 weights brought to double: hence not nearer than this.
        ours = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        theirs = torch.autograd.grad(expected[term], leaves, retain_graph=True, allow_unused=True)
        for name, one, other in zip(names, ours, theirs, strict=True):
            one, other = (torch.zeros(1).double() if g is None else g for g in (one, other))
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-7), (term, name)
    reached = {
        name
        for name, g in zip(
            names,
            torch.autograd.grad(sum(found.values()), leaves, allow_unused=True),
            strict=True,
        )
        if g is not None and g.any()
    }
    lonely = {"cues.unknown"}  # nobody here has a single item
    if model.routed_by == "users":
        lonely |= {name for name in names if name.startswith("routing.item")}
    assert set(names) - reached == lonely


def test_routers_left_to_chance_learn_nothing() -> None:
    model = build(routed_by="chance")
    before = {name: value.clone() for name, value in model.routing.state_dict().items()}
    terms = model.loss(*planted_batch(model.graph))
    assert "routing" not in terms
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    for name, value in model.routing.named_parameters():
        assert torch.equal(value, before[name]), name
    assert model.encoder.user.grad is not None
    assert model.may_stop


def test_items_of_a_model_routed_by_users_hear_all_experts_alike() -> None:
    model = build(routed_by="users").eval()
    users, items = model.expert_gates(model.prepare())
    torch.testing.assert_close(items, torch.full_like(items, 1 / 9))
    assert ((users > 0).sum(1) == 3).all()
