from __future__ import annotations

import pytest
import torch
from planted_graph import SILENT, USERS, planted_batch, planted_graph

from graphmoe.nn.recommend import VBPR


def slow_score(model: VBPR, u: int, i: int) -> torch.Tensor:
    """β_i + γ_uᵀγ_i + θ_uᵀ E f_i + β'ᵀ f_i, term by term."""
    d = model.embedding_dim
    f = torch.cat([x[i].double() for x in model.graph.modalities.values()])
    seen = model.visual.weight[:d] @ f
    gamma, theta = model.user[u, :d], model.user[u, d:]
    bias = model.item_bias[i, 0] + model.visual.weight[d] @ f
    return bias + gamma @ model.item[i] + theta @ seen


def test_loss_and_gradients_against_a_loop_over_triples() -> None:
    model = VBPR(planted_graph(), embedding_dim=3, reg_weight=0.3).double()
    torch.nn.init.normal_(model.item_bias)
    user, positive, negative = (x[:40] for x in planted_batch(model.graph))
    bpr = l2 = torch.zeros((), dtype=torch.float64)
    items = model.vectors()[1]
    for u, p, n in zip(user.tolist(), positive.tolist(), negative.tolist(), strict=True):
        bpr = bpr - (slow_score(model, u, p) - slow_score(model, u, n)).sigmoid().log() / 40
        squares = [model.user[u].square().sum()] + [items[j].square().sum() for j in (p, n)]
        l2 = l2 + 0.3 / 2 * torch.stack(squares).sum() / 40
    terms = model.loss(user, positive, negative)
    torch.testing.assert_close(terms, {"bpr": bpr, "l2": l2})
    weights = tuple(model.parameters())
    fast = torch.autograd.grad(terms["bpr"] + terms["l2"], weights)
    torch.testing.assert_close(fast, torch.autograd.grad(bpr + l2, weights))


def test_scores_are_the_sum_of_their_terms() -> None:
    model = VBPR(planted_graph(), embedding_dim=3).double()
    full = model.score(model.prepare(), torch.arange(USERS))
    for u, i in ((0, 0), (3, SILENT[0]), (7, SILENT[1]), (24, 19)):
        assert full[u, i].item() == pytest.approx(slow_score(model, u, i).item())


def test_an_item_without_any_feature_is_matrix_factorisation_with_a_bias() -> None:
    model = VBPR(planted_graph(), embedding_dim=3)
    items = model.vectors()[1][SILENT[1]]
    torch.testing.assert_close(items[:3], model.item[SILENT[1]])
    assert not items[3:6].any()


def test_features_are_of_the_data_and_not_of_the_state() -> None:
    assert set(VBPR(planted_graph()).state_dict()) == {"user", "item", "item_bias", "visual.weight"}
