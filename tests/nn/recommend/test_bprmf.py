from __future__ import annotations

import pytest
import torch
from planted_graph import planted_batch, planted_graph

from graphmoe.nn.recommend import BPRMF


def test_loss_and_gradients_against_a_loop_over_triples() -> None:
    model = BPRMF(planted_graph(), embedding_dim=4, reg_weight=0.3).double()
    user, positive, negative = planted_batch(model.graph)
    terms = model.loss(user, positive, negative)
    bpr = torch.zeros((), dtype=torch.float64)
    l2 = torch.zeros((), dtype=torch.float64)
    for u, p, n in zip(user.tolist(), positive.tolist(), negative.tolist(), strict=True):
        pu, qp, qn = model.user[u], model.item[p], model.item[n]
        bpr = bpr - torch.sigmoid(pu @ qp - pu @ qn).log() / len(user)
        l2 = l2 + 0.3 / 2 * (pu @ pu + qp @ qp + qn @ qn) / len(user)
    torch.testing.assert_close(terms["bpr"], bpr)
    torch.testing.assert_close(terms["l2"], l2)
    weights = (model.user, model.item)
    fast = torch.autograd.grad(terms["bpr"] + terms["l2"], weights)
    slow = torch.autograd.grad(bpr + l2, weights)
    torch.testing.assert_close(fast, slow)


def test_the_penalty_shortens_the_vectors() -> None:
    def length(reg_weight: float) -> float:
        torch.manual_seed(0)
        model = BPRMF(planted_graph(), 4, reg_weight)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for step in range(60):
            optimizer.zero_grad()
            torch.stack(
                list(model.loss(*planted_batch(model.graph, step)).values())
            ).sum().backward()
            optimizer.step()
        return model.user.detach().norm().item()

    assert length(0.3) < 0.7 * length(0.0)


def test_vectors_are_drawn_xavier_uniform() -> None:
    model = BPRMF(planted_graph(), embedding_dim=64)
    bound = (6 / (25 + 64)) ** 0.5
    assert model.user.abs().max() <= bound
    assert model.user.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
