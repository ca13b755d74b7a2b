"""What each split promises, for any interactions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmoe.data.interactions import split_interactions
from graphmoe.errors import ConfigError, DataError

Log = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Distinct pairs of up to 6 users and 9 items, in any order, at times that often agree."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=1, unique=True))
    times = draw(st.lists(st.integers(0, 6), min_size=len(pairs), max_size=len(pairs)))
    user, item = np.array(pairs).T
    return user, item, np.array(times, dtype=np.float64)


@given(logs())
def test_leave_last_out_tests_on_the_last_of_each_user(log: Log) -> None:
    user, item, time = log
    part = split_interactions("leave-last-out", user, item, time)
    for u in np.unique(user):
        rows = np.flatnonzero(user == u)
        in_time = rows[np.argsort(time[rows], kind="stable")]
        expected = {1: [0], 2: [0, 2]}.get(len(rows), [0] * (len(rows) - 2) + [1, 2])
        assert part[in_time].tolist() == expected


def test_leave_last_out_without_times_goes_by_the_file() -> None:
    user, item = np.array([0, 1, 0, 0, 1]), np.array([3, 3, 2, 1, 0])
    assert split_interactions("leave-last-out", user, item).tolist() == [0, 0, 1, 2, 2]


@given(logs(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_random_split_counts_right_and_ignores_the_order(
    log: Log, seed: int, shuffler: object
) -> None:
    user, item, _ = log
    ratios = (0.6, 0.2, 0.2)
    part = split_interactions("random", user, item, ratios=ratios, seed=seed)
    for u in np.unique(user):
        mine = part[user == u]
        n = len(mine)
        test = min(int(n * 0.2 + 0.5 + 1e-9), n - 1)
        valid = min(int(n * 0.2 + 0.5 + 1e-9), n - 1 - test)
        assert np.bincount(mine, minlength=3).tolist() == [n - valid - test, valid, test]
    order = np.random.default_rng(seed + 1).permutation(len(user))
    again = split_interactions("random", user[order], item[order], ratios=ratios, seed=seed)
    assert again.tolist() == part[order].tolist()


def test_the_random_split_depends_on_the_seed() -> None:
    user, item = np.zeros(40, dtype=int), np.arange(40)
    draws = {tuple(split_interactions("random", user, item, seed=seed)) for seed in range(5)}
    assert len(draws) == 5


@given(logs())
def test_the_split_by_time_never_trains_on_what_came_later(log: Log) -> None:
    user, item, time = log
    part = split_interactions("time", user, item, time, ratios=(0.5, 0.25, 0.25))
    assert (part == 0).any()
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        if (part == earlier).any() and (part == later).any():
            assert time[part == earlier].max() < time[part == later].min()


def test_the_split_by_time_meets_its_shares() -> None:
    n = 100
    time = np.random.default_rng(0).permutation(n).astype(np.float64)
    part = split_interactions("time", np.zeros(n, int), np.arange(n), time)
    assert np.bincount(part).tolist() == [80, 10, 10]
    assert sorted(time[part == 2]) == list(range(90, 100))


@pytest.mark.parametrize("ratios", [(0.5, 0.5), (0, 0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.2, 0.2)])
def test_ratios_must_be_shares(ratios: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        split_interactions("random", np.zeros(1, int), np.zeros(1, int), ratios=ratios)


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'leave-last-out'"):
        split_interactions("leave-one-out", np.zeros(1, int), np.zeros(1, int))


@pytest.mark.parametrize("how", ["time", "leave-last-out"])
def test_unknown_times_cannot_be_split_by(how: str) -> None:
    time = np.array([1.0, np.nan])
    with pytest.raises(DataError, match="1 of 2 interactions have no time"):
        split_interactions(how, np.zeros(2, int), np.arange(2), time)
