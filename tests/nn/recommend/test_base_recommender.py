"""The parts that all recommenders share."""

from __future__ import annotations

import pytest
import torch
from planted_graph import ITEMS, USERS, dense_bipartite, planted_graph
from torch_geometric.nn import LGConv

from graphmoe.nn.recommend import LightGCN, Popularity, Recommender
from graphmoe.nn.recommend.losses import bpr_loss, info_nce, l2_loss
from graphmoe.ops.light_propagation import light_propagate


def test_ranking_loss_of_equal_scores_is_log_two_and_of_a_margin_the_softplus() -> None:
    user, item = torch.ones(3, 2), torch.zeros(3, 2)
    assert bpr_loss(user, item, item).item() == pytest.approx(0.693147, abs=1e-6)
    positive = torch.tensor([[1.0, 1.0]]).expand(3, 2)
    assert bpr_loss(user, positive, item).item() == pytest.approx(0.126928, abs=1e-6)


def test_the_penalty_is_half_the_squares_per_triple() -> None:
    user, item = torch.full((4, 2), 3.0), torch.full((4, 2), 1.0)
    assert l2_loss(user, item, item).item() == pytest.approx((18 + 2 + 2) / 2)


def test_contrast_against_a_loop_with_both_gradients() -> None:
    a, b = (torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = info_nce(a, b, 0.2)
    slow = torch.zeros((), dtype=torch.float64)
    for n in range(5):
        cos = [a[n] @ b[m] / (a[n].norm() * b[m].norm()) / 0.2 for m in range(5)]
        slow = slow - (cos[n].exp() / torch.stack(cos).exp().sum()).log() / 5
    torch.testing.assert_close(loss, slow)
    for x, y in zip(
        torch.autograd.grad(loss, (a, b)), torch.autograd.grad(slow, (a, b)), strict=True
    ):
        torch.testing.assert_close(x, y)


def test_contrast_of_one_node_is_nothing_and_of_orthogonal_views_known() -> None:
    assert info_nce(torch.randn(1, 4), torch.randn(1, 4), 0.2).item() == pytest.approx(0)
    eye = torch.eye(4)
    expected = torch.tensor(5.0).exp().add(3).log().sub(5).item()
    assert info_nce(eye, eye, 0.2).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_propagation_against_pyg_and_against_a_dense_matrix(layers: int) -> None:
    graph = planted_graph()
    ego = torch.randn(USERS + ITEMS, 5)
    edge = torch.stack([graph.user, graph.item + USERS])
    x, out = ego, ego
    for _ in range(layers):
        x = LGConv()(x, torch.cat([edge, edge.flip(0)], dim=1))
        out = out + x
    user, item = light_propagate(graph.normalized, ego[:USERS], ego[USERS:], layers)
    torch.testing.assert_close(torch.cat([user, item]), out / (layers + 1))
    A = dense_bipartite(graph)
    powers = sum(torch.linalg.matrix_power(A, n) for n in range(layers + 1)) / (layers + 1)
    torch.testing.assert_close(torch.cat([user, item]), (powers @ ego.double()).float())


def test_a_negative_number_of_layers_is_refused() -> None:
    graph = planted_graph()
    with pytest.raises(ValueError, match="layers >= 0, got -1"):
        light_propagate(graph.normalized, torch.randn(USERS, 2), torch.randn(ITEMS, 2), -1)


def test_operators_in_attributes_and_lists_follow_the_module() -> None:
    class Two(Recommender):
        def __init__(self) -> None:
            super().__init__(planted_graph())
            self.one, self.many = self.graph.normalized, [self.graph.mean_of_history]

    model = Two().double()
    assert model.one.dtype == model.many[0].dtype == torch.float64
    assert model.to("meta").many[0].device.type == "meta"
    assert model.graph.user.device.type == "meta"


def test_defaults_of_the_hooks() -> None:
    model = Popularity(planted_graph())
    model.begin_epoch(0, torch.Generator())
    assert model.may_stop
    assert model.end_epoch() == {}
    assert repr(model) == "Popularity(25 users, 20 items)"
    assert list(LightGCN(planted_graph()).state_dict()) == ["user", "item"]
