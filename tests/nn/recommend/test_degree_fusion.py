"""Two views mixed by degree: closed form, every gradient, which way nodes lean."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.nn.recommend.degree_fusion import DegreeFusion

USERS, ITEMS = torch.tensor([0, 1, 7, 400]), torch.tensor([3, 0, 0])


def views() -> list[torch.Tensor]:
    shapes = [(4, 5), (3, 5), (4, 5), (3, 5)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def test_shares_at_the_start_in_closed_form() -> None:
    user, item = DegreeFusion(USERS, ITEMS).beta()
    share = [1 / (1 + math.sqrt(1 + degree)) for degree in (0, 1, 7, 400)]
    torch.testing.assert_close(user, torch.tensor(share))
    torch.testing.assert_close(item, torch.tensor([1 / 3, 0.5, 0.5]))
    assert bool((user.diff() < 0).all())  # the better known, the less of view B


def test_output_and_every_gradient_against_a_loop() -> None:
    fusion = DegreeFusion(USERS, ITEMS).double()
    torch.nn.init.normal_(fusion.user)
    torch.nn.init.normal_(fusion.item)
    a_user, a_item, b_user, b_item = views()
    inputs = [a_user, a_item, b_user, b_item, fusion.user, fusion.item]
    weight = torch.randn(7, 5, dtype=torch.float64)
    out = torch.cat(fusion((a_user, a_item), (b_user, b_item)))
    found = torch.autograd.grad((out * weight).sum(), inputs)
    rows = []
    for a, b, degrees, (level, slope) in (
        (a_user, b_user, USERS, fusion.user),
        (a_item, b_item, ITEMS, fusion.item),
    ):
        for n, degree in enumerate(degrees.tolist()):
            beta = torch.sigmoid(level + slope * float(torch.tensor(float(degree)).log1p()))
            rows.append((1 - beta) * a[n] + beta * b[n])
    expected = torch.stack(rows)
    torch.testing.assert_close(out, expected)
    for one, two in zip(found, torch.autograd.grad((expected * weight).sum(), inputs), strict=True):
        torch.testing.assert_close(one, two)
        assert bool(one.any())


@given(order=st.permutations(range(4)))
def test_users_in_another_order_come_out_in_that_order(order: list[int]) -> None:
    a_user, a_item, b_user, b_item = (view.float() for view in views())
    plain = DegreeFusion(USERS, ITEMS)((a_user, a_item), (b_user, b_item))
    other = DegreeFusion(USERS[order], ITEMS)((a_user[order], a_item), (b_user[order], b_item))
    assert torch.equal(other[0], plain[0][order])
    assert torch.equal(other[1], plain[1])


def test_equal_views_are_left_as_they_are() -> None:
    user, item = torch.randn(4, 5), torch.randn(3, 5)
    mixed = DegreeFusion(USERS, ITEMS)((user, item), (user, item))
    torch.testing.assert_close(mixed, (user, item))


def test_four_scalars_are_all_that_is_kept() -> None:
    fusion = DegreeFusion(USERS, ITEMS)
    assert {name: x.tolist() for name, x in fusion.state_dict().items()} == {
        "user": [0.0, -0.5],
        "item": [0.0, -0.5],
    }
    assert repr(fusion) == "DegreeFusion(4, 3)"
