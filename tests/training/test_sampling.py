"""Negatives: uniform among what a user has not taken in training, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphmoe.errors import DataError
from graphmoe.training.sampling import NegativeSampler, hardest


def pairs(seed: int, users: int = 12, items: int = 9, count: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, users, (count,), generator=generator),
        torch.randint(0, items, (count,), generator=generator),
    )


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_a_negative_is_a_training_item_and_no_positive(seed: int, count: int) -> None:
    user, item = pairs(seed, count=count)
    try:
        sampler = NegativeSampler(user, item, 50)
    except DataError:  # everybody has taken everything
        assert all(set(item[user == u].tolist()) == set(item.tolist()) for u in set(user.tolist()))
        return
    taken = set(zip(user.tolist(), item.tolist(), strict=True))
    seen: list[tuple[int, int]] = []
    for users, positives, negatives in sampler.epoch(7, torch.Generator().manual_seed(seed)):
        assert len(users) <= 7
        seen += zip(users.tolist(), positives.tolist(), strict=True)
        assert not set(zip(users.tolist(), negatives.tolist(), strict=True)) & taken
        assert set(negatives.tolist()) <= set(item.tolist())
    full = {u for u in set(user.tolist()) if {i for v, i in taken if v == u} == set(item.tolist())}
    assert sorted(seen) == sorted(pair for pair in taken if pair[0] not in full)


def test_every_negative_is_equally_likely() -> None:
    """As drawing again and again until it is no positive would give; chi-squared, 5 cells."""
    user = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    item = torch.tensor([1, 4, 8, 0, 2, 3, 6, 8])
    sampler = NegativeSampler(user, item, 10)
    draws = 60_000
    asked = torch.zeros(draws, dtype=torch.int64)
    negative = sampler.sample(asked, torch.Generator().manual_seed(0))
    count = negative.bincount(minlength=10).double()
    free = [0, 2, 3, 6]  # trained on, and none of user 0's; 5, 7 and 9 nobody has
    assert count[[1, 4, 5, 7, 8, 9]].sum() == 0
    expected = draws / len(free)
    assert float(((count[free] - expected) ** 2 / expected).sum()) < 16.3  # p = 0.001, 3 degrees


def test_a_user_who_knows_nearly_everything_gets_the_one_item_left() -> None:
    items = 1000
    item = torch.cat([torch.arange(items - 1), torch.tensor([items - 1])])
    user = torch.cat([torch.zeros(items - 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)])
    sampler = NegativeSampler(user, item, items)
    negative = sampler.sample(torch.zeros(50, dtype=torch.int64), torch.Generator())
    assert negative.tolist() == [items - 1] * 50


def test_pairs_of_a_user_who_knows_everything_are_left_out() -> None:
    user, item = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 1])
    sampler = NegativeSampler(user, item, 3)
    assert (sampler.user.tolist(), sampler.item.tolist()) == ([1], [1])


@pytest.mark.parametrize(
    ("user", "item"), [([], []), ([0], [0]), ([0, 1, 2], [3, 3, 3]), ([0, 0], [1, 1])]
)
def test_nothing_to_contrast_with(user: list[int], item: list[int]) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        NegativeSampler(
            torch.tensor(user, dtype=torch.int64), torch.tensor(item, dtype=torch.int64), 5
        )


def test_epochs_differ_and_equal_seeds_do_not() -> None:
    sampler = NegativeSampler(*pairs(3), 9)

    def epochs(seed: int) -> list[list[list[int]]]:
        generator = torch.Generator().manual_seed(seed)
        return [
            [torch.cat(parts).tolist() for parts in zip(*sampler.epoch(8, generator), strict=True)]
            for _ in range(2)
        ]

    first, second = epochs(5)
    assert first[0] != second[0]
    assert sorted(zip(*first[:2], strict=True)) == sorted(zip(*second[:2], strict=True))
    assert epochs(5) == [first, second]
    assert epochs(6) != [first, second]


def test_the_global_generator_is_not_touched() -> None:
    sampler, before = NegativeSampler(*pairs(3), 9), torch.get_rng_state()
    list(sampler.epoch(8, torch.Generator()))
    assert torch.equal(torch.get_rng_state(), before)


def test_of_several_candidates_the_one_ranked_highest_is_given() -> None:
    """Item i has the value i for even users and -i for odd ones; ties go to the first."""
    values = torch.arange(9.0).unsqueeze(1)
    signs = torch.tensor([[1.0], [-1.0], [1.0]])
    users = torch.tensor([0, 1, 2, 1])
    candidates = torch.tensor([[3, 7, 5], [3, 7, 5], [2, 2, 1], [8, 4, 6]])
    assert hardest(users, candidates, (signs, values)).tolist() == [7, 3, 2, 4]
    assert hardest(users, candidates, None).tolist() == [3, 3, 2, 8]


def test_hard_negatives_are_negatives_and_rank_above_what_chance_gives() -> None:
    user, item = pairs(5)
    sampler = NegativeSampler(user, item, 9)
    taken = set(zip(user.tolist(), item.tolist(), strict=True))
    # The same value for every user: of c uniform candidates the maximum is expected.
    vectors = torch.ones(int(user.max()) + 1, 1), torch.arange(9.0).unsqueeze(1)
    mean = {}
    for count in (1, 3):
        generator = torch.Generator().manual_seed(1)
        drawn = [batch for _ in range(200) for batch in sampler.epoch(8, generator, count, vectors)]
        for users, _, negatives in drawn:
            assert not set(zip(users.tolist(), negatives.tolist(), strict=True)) & taken
        mean[count] = float(torch.cat([negative for *_, negative in drawn]).float().mean())
    assert mean[3] > mean[1] + 0.5


def test_one_candidate_draws_what_it_always_drew() -> None:
    sampler = NegativeSampler(*pairs(3), 9)
    vectors = torch.rand(9, 2), torch.rand(9, 2)
    plain = [torch.cat(parts) for parts in zip(*sampler.epoch(8, torch.Generator()), strict=True)]
    other = sampler.epoch(8, torch.Generator(), 1, vectors)
    assert all(
        torch.equal(a, torch.cat(b)) for a, b in zip(plain, zip(*other, strict=True), strict=True)
    )
