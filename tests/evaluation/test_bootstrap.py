"""The paired bootstrap against every resample there is, and against what must not matter."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.errors import DataError
from graphmoe.evaluation.bootstrap import paired_bootstrap


def test_equals_enumeration_of_all_resamples() -> None:
    ours = torch.tensor([0.1, 0.9, 0.6, 0.5, 0.0])
    theirs = torch.tensor([0.3, 0.2, 0.6, 0.1, 0.1])
    gaps = (ours.double() - theirs.double()).tolist()
    means = np.array([sum(draw) / 5 for draw in product(gaps, repeat=5)])  # 3,125, equally likely
    found = paired_bootstrap(ours, theirs, draws=200_000)
    assert found.difference == pytest.approx(np.mean(gaps))
    exact = 2 * min((means <= 1e-12).mean(), (means >= -1e-12).mean())
    assert found.p == pytest.approx(exact, abs=0.004)
    for end, share in ((found.low, 0.025), (found.high, 0.975)):
        # A step of the distribution: right if it is the value at a share this close.
        assert (means < end - 1e-9).mean() <= share + 0.003
        assert (means <= end + 1e-9).mean() >= share - 0.003


def test_a_normal_difference_has_the_interval_of_a_t_test() -> None:
    g = torch.Generator().manual_seed(0)
    gaps = torch.randn(4000, generator=g, dtype=torch.float64) + 0.04
    found = paired_bootstrap(gaps, torch.zeros(4000))
    half = 1.96 * float(gaps.std()) / 4000**0.5
    assert found.low == pytest.approx(float(gaps.mean()) - half, abs=0.1 * half)
    assert found.high == pytest.approx(float(gaps.mean()) + half, abs=0.1 * half)
    z = float(gaps.mean()) / (float(gaps.std()) / 4000**0.5)
    wanted = 2 * (1 - 0.5 * (1 + torch.erf(torch.tensor(z / 2**0.5)).item()))
    assert found.p == pytest.approx(wanted, abs=0.01)


def test_seeds_are_averaged_before_users_are_drawn() -> None:
    g = torch.Generator().manual_seed(1)
    ours, theirs = torch.rand(5, 60, generator=g), torch.rand(3, 60, generator=g)
    found = paired_bootstrap(ours, theirs)
    assert found == paired_bootstrap(ours.double().mean(dim=0), theirs.double().mean(dim=0))
    # Taking five copies for five times as many users would shrink the interval.
    one = ours[:1]
    assert paired_bootstrap(one.expand(5, -1), theirs) == paired_bootstrap(one, theirs)


@given(seed=st.integers(0, 1000))
def test_what_does_not_matter(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    ours, theirs = (torch.rand(30, generator=g).round(decimals=1) for _ in range(2))
    found = paired_bootstrap(ours, theirs, draws=500)
    order = torch.randperm(30, generator=g)
    moved = paired_bootstrap(ours[order], theirs[order], draws=500)
    for name, value in found.to_dict().items():
        assert moved.to_dict()[name] == pytest.approx(value)
    assert found.low <= found.difference <= found.high
    assert 0 < found.p <= 1
    doubled = paired_bootstrap(2 * ours, 2 * theirs, draws=500)
    assert doubled.difference == pytest.approx(2 * found.difference)
    assert doubled.high == pytest.approx(2 * found.high)
    assert doubled.p == found.p


def test_turned_around_it_says_the_opposite() -> None:
    g = torch.Generator().manual_seed(2)
    ours, theirs = torch.rand(200, generator=g) + 0.03, torch.rand(200, generator=g)
    one, other = paired_bootstrap(ours, theirs), paired_bootstrap(theirs, ours)
    assert other.difference == -one.difference
    assert other.low == pytest.approx(-one.high, abs=0.004)
    assert other.p == pytest.approx(one.p, abs=0.03)


def test_no_difference_and_a_clear_one() -> None:
    same = paired_bootstrap(torch.ones(50), torch.ones(50))
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    clear = paired_bootstrap(torch.ones(50), torch.zeros(50), draws=999)
    assert (clear.low, clear.high, clear.p) == (1.0, 1.0, pytest.approx(0.002))


def test_false_alarms_come_as_often_as_promised() -> None:
    g = torch.Generator().manual_seed(3)
    alarms = sum(
        paired_bootstrap(torch.randn(80, generator=g), torch.zeros(80), draws=400).p < 0.05
        for _ in range(300)
    )
    assert 5 <= alarms <= 30  # 15 expected, standard deviation 3.8


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="got 3 and 4 users"):
        paired_bootstrap(torch.zeros(3), torch.zeros(2, 4))
    with pytest.raises(DataError, match="got 0 and 0 users"):
        paired_bootstrap(torch.zeros(0), torch.zeros(0))
    with pytest.raises(DataError, match="NaN or infinite"):
        paired_bootstrap(torch.tensor([0.0, torch.nan]), torch.zeros(2))
    with pytest.raises(DataError, match=r"got shape \(1, 1, 2\)"):
        paired_bootstrap(torch.zeros(1, 1, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="draws ≥ 1"):
        paired_bootstrap(torch.zeros(2), torch.zeros(2), draws=0)
