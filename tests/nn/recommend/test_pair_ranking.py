"""The exact ranking of pair-wise experts against their definition."""

from __future__ import annotations

import pytest
import torch

from graphmoe.nn.recommend.pair_ranking import PairFactors, pair_parts, pair_scores, rank_scores

USERS, ITEMS, EXPERTS = 13, 11, 9


def factors(k: int, scale: float = 1.0) -> PairFactors:
    gen = torch.Generator().manual_seed(k)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=gen)

    logits = scale * draw(USERS, EXPERTS)
    return PairFactors(
        draw(USERS, 4),
        draw(ITEMS, 4),
        draw(USERS, EXPERTS, 3),
        draw(ITEMS, EXPERTS, 3),
        logits,
        scale * draw(ITEMS, EXPERTS),
        logits.topk(k, dim=1).indices,
        torch.tensor(0.5),
    )


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_three_products_equal_pair_by_pair(k: int, scale: float) -> None:
    given = factors(k, scale)
    users = torch.tensor([4, 0, 12, 4, 7, 3, 9])
    found = rank_scores(given, users)
    pairs = pair_scores(
        given, users.repeat_interleave(ITEMS), torch.arange(ITEMS).repeat(users.numel())
    )
    torch.testing.assert_close(found, pairs.view(-1, ITEMS), rtol=1e-5, atol=1e-5)


def test_logits_are_known_up_to_a_constant() -> None:
    given = factors(3)
    moved = given._replace(user_logits=given.user_logits + 300, item_logits=given.item_logits - 500)
    users = torch.arange(USERS)
    torch.testing.assert_close(
        rank_scores(moved, users), rank_scores(given, users), rtol=1e-4, atol=1e-4
    )


def test_experts_outside_of_the_support_say_nothing() -> None:
    given = factors(3)
    users, items = torch.arange(USERS), torch.zeros(USERS, dtype=torch.int64)
    parts = pair_parts(given, users, items)
    outside = torch.ones(USERS, EXPERTS, dtype=torch.bool).scatter(1, given.support, False)
    assert not parts[outside].any()
    assert (parts[~outside] != 0).all()


def test_no_users_have_no_scores() -> None:
    assert rank_scores(factors(3), torch.zeros(0, dtype=torch.int64)).shape == (0, ITEMS)
