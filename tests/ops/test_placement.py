from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.ops.expert_dispatcher import _meeting, _met, _regroup
from graphmoe.ops.placement import LeastLoaded, expert_owners, own_shares

LOADS = st.lists(st.integers(0, 200), min_size=1, max_size=9)


def most(shares: torch.Tensor) -> int:
    """Rows of the rank that computes most."""
    return int(shares.sum(dim=0).max())


def test_experts_are_kept_in_even_runs() -> None:
    assert expert_owners(8, 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert expert_owners(2, 4).tolist() == [0, 1]
    assert expert_owners(5, 1).tolist() == [0] * 5


@given(loads=LOADS, ranks=st.integers(1, 5), factor=st.sampled_from([1.0, 1.25, 2.0]))
def test_no_rank_computes_more_than_it_has_room_for(
    loads: list[int], ranks: int, factor: float
) -> None:
    load, owner = torch.tensor(loads), expert_owners(len(loads), ranks)
    shares = LeastLoaded(factor, threshold=factor)(load, owner, ranks)
    assert torch.equal(shares.sum(dim=1), load)
    assert shares.min() >= 0
    before = most(own_shares(load, owner, ranks))
    assert most(shares) <= min(before, math.ceil(factor * sum(loads) / ranks))


@given(loads=LOADS, ranks=st.integers(1, 5), least=st.integers(1, 60))
def test_small_rests_stay_where_they_are(loads: list[int], ranks: int, least: int) -> None:
    load, owner = torch.tensor(loads), expert_owners(len(loads), ranks)
    shares = LeastLoaded(min_rows=least)(load, owner, ranks)
    assert torch.equal(shares.sum(dim=1), load)
    away = shares.scatter(1, owner.unsqueeze(1), 0)
    assert bool(((away == 0) | (away >= least)).all())
    assert most(shares) <= most(own_shares(load, owner, ranks))


def test_below_the_threshold_nothing_moves() -> None:
    load, owner = torch.tensor([30, 10, 10, 10]), expert_owners(4, 2)
    own = own_shares(load, owner, 2)  # 40 and 20: 4/3 of the mean
    assert torch.equal(LeastLoaded(threshold=1.34)(load, owner, 2), own)
    assert LeastLoaded(threshold=1.33)(load, owner, 2).sum(dim=0).tolist() == [30, 30]


@pytest.mark.parametrize(
    ("percent", "before", "after", "lent", "looser", "fewer"),
    [
        (6.25, 125_000, 125_000, 0, 125_000, 0),
        (30, 346_664, 124_995, 9, 156_244, 5),
        (50, 533_332, 124_998, 10, 156_247, 7),
        (80, 813_332, 124_998, 10, 156_247, 7),
        (95, 953_332, 124_998, 10, 156_247, 7),
    ],
)
def test_gain_on_a_skewed_load(
    percent: float, before: int, after: int, lent: int, looser: int, fewer: int
) -> None:
    """The table of docs/distributed.md: so much of a million rows for four of 64 experts."""
    load = torch.full((64,), round(1_000_000 * (100 - percent) / 100) // 60)
    load[:4] = int(1_000_000 * percent / 100) // 4
    owner = expert_owners(64, 8)
    assert most(own_shares(load, owner, 8)) == before
    for placement, rows, copies in (
        (LeastLoaded(), after, lent),
        (LeastLoaded(capacity_factor=1.25, threshold=1.25), looser, fewer),
    ):
        shares = placement(load, owner, 8)
        assert most(shares) == rows
        assert int((shares.scatter(1, owner.unsqueeze(1), 0) > 0).sum()) == copies


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"capacity_factor": 0.9}, "capacity_factor >= 1, got 0.9"),
        ({"capacity_factor": math.inf}, "capacity_factor >= 1, got inf"),
        ({"threshold": 0.0}, "threshold >= 1, got 0.0"),
        ({"min_rows": 0}, "min_rows >= 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LeastLoaded(**arguments)  # type: ignore[arg-type]


@given(seed=st.integers(0, 1000), ranks=st.integers(1, 4), experts=st.integers(1, 6))
def test_what_one_rank_sends_another_expects(seed: int, ranks: int, experts: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 20, (ranks, experts), generator=generator)
    shares = LeastLoaded()(counts.sum(dim=0), expert_owners(experts, ranks), ranks)
    sent = torch.stack([_meeting(counts, shares, rank) for rank in range(ranks)])
    met = torch.stack([_met(counts, shares, rank) for rank in range(ranks)])
    assert torch.equal(sent, met.transpose(0, 1))
    assert torch.equal(sent.sum(dim=1), counts)
    assert torch.equal(met.sum(dim=1), shares.t())


@given(seed=st.integers(0, 1000))
def test_regrouping_there_and_back(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 4, (3, 5), generator=generator)
    blocks = [(a, b) for a in range(3) for b in range(5) for _ in range(int(counts[a, b]))]
    index = _regroup(counts)
    assert [blocks[i] for i in index.tolist()] == sorted(blocks, key=lambda block: block[::-1])
    assert torch.equal(index[_regroup(counts.t())], torch.arange(len(blocks)))
