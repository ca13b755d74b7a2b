from __future__ import annotations

import pytest
import torch
from planted_graph import NEW_USER, USERS, dense_mean_of_layers, planted_batch, planted_graph
from torch.nn import functional as F

from graphmoe.nn.recommend import LightGCN


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_vectors_loss_and_gradients_against_dense_algebra(layers: int) -> None:
    model = LightGCN(planted_graph(), 4, num_layers=layers, reg_weight=0.2).double()
    user, positive, negative = planted_batch(model.graph)
    ego = torch.cat([model.user, model.item])
    dense = dense_mean_of_layers(model.graph, ego, layers)
    torch.testing.assert_close(torch.cat(model.vectors()), dense)
    u, p, n = dense[user], dense[USERS + positive], dense[USERS + negative]
    bpr = F.softplus((u * n).sum(1) - (u * p).sum(1)).mean()
    rows = torch.cat([model.user[user], model.item[positive], model.item[negative]])
    l2 = 0.1 * rows.pow(2).sum() / len(user)
    terms = model.loss(user, positive, negative)
    torch.testing.assert_close(terms, {"bpr": bpr, "l2": l2})
    weights = (model.user, model.item)
    fast = torch.autograd.grad(terms["bpr"] + terms["l2"], weights)
    torch.testing.assert_close(fast, torch.autograd.grad(bpr + l2, weights))


def test_without_layers_it_is_matrix_factorisation() -> None:
    model = LightGCN(planted_graph(), 4, num_layers=0)
    users, items = model.vectors()
    assert torch.equal(users, model.user)
    assert torch.equal(items, model.item)


def test_a_user_without_history_keeps_a_share_of_the_own_vector() -> None:
    model = LightGCN(planted_graph(), 4, num_layers=2)
    torch.testing.assert_close(model.vectors()[0][NEW_USER], model.user[NEW_USER] / 3)
