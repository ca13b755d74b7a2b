"""Scores against closed forms, scikit-learn and SciPy."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from sklearn.metrics import f1_score

from graphmoe.evaluation import Score, f1, mean_std, paired_interval, relative_entropy


def test_f1_by_hand() -> None:
    y = torch.tensor([0, 0, 0, 1, 1, 2])
    pred = torch.tensor([0, 0, 1, 1, 2, 2])
    # Class by class: 2·2/(2+3), 2·1/(2+2), 2·1/(2+1).
    score = f1(pred, y, 3)
    assert score.micro == pytest.approx(100 * 4 / 6)
    assert score.macro == pytest.approx(100 * (4 / 5 + 1 / 2 + 2 / 3) / 3)


def test_a_class_that_is_not_there_counts_zero() -> None:
    y = torch.tensor([0, 1, 1])
    assert f1(y, y, 2) == Score(100.0, 100.0)
    absent = f1(y, y, 4)
    assert (absent.micro, absent.macro) == (pytest.approx(100), pytest.approx(50))
    assert f1(1 - y, y, 2) == Score(0.0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_micro_is_accuracy_and_macro_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    pred, y = torch.tensor(pairs).T
    score = f1(pred, y, 4)
    assert score.micro == pytest.approx(100 * float((pred == y).float().mean()), rel=1e-5)
    macro = f1_score(y, pred, average="macro", labels=range(4), zero_division=0)
    assert score.macro == pytest.approx(100 * macro)


def test_f1_needs_pairs() -> None:
    with pytest.raises(ValueError, match="as many predictions as labels"):
        f1(torch.tensor([0, 1]), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match="as many predictions as labels"):
        f1(torch.tensor([]), torch.tensor([]), 2)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_mean_and_sample_deviation(values: list[float]) -> None:
    mean, std = mean_std(values)
    assert mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert std == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-9)


def test_one_value_has_no_deviation() -> None:
    assert mean_std([41.5]) == (41.5, 0.0)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_interval_is_that_of_the_paired_t_test(level: float) -> None:
    ours, theirs = [71.0, 64.5, 80.2, 69.9], [70.1, 60.0, 79.0, 71.2]
    mean, low, high = paired_interval(ours, theirs, level)
    expected = ttest_rel(ours, theirs).confidence_interval(level)
    assert mean == pytest.approx(sum(a - b for a, b in zip(ours, theirs, strict=True)) / 4)
    assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    back = paired_interval(theirs, ours, level)
    assert back == (pytest.approx(-mean), pytest.approx(-high), pytest.approx(-low))


def test_the_interval_does_not_feel_what_both_share() -> None:
    easy = paired_interval([90.0, 50.0, 10.0], [89.0, 49.0, 9.0])
    assert easy == (pytest.approx(1.0), pytest.approx(1.0), pytest.approx(1.0))


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([], [])])
def test_the_interval_needs_pairs(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more paired scores"):
        paired_interval(ours, theirs)


def test_relative_entropy_closed_forms() -> None:
    assert relative_entropy(torch.full((5, 3), 0.2)) == pytest.approx(1.0)
    assert relative_entropy(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])) == 0.0
    assert relative_entropy(torch.ones(1, 4)) == 0.0
    half = torch.tensor([[0.5], [0.5], [0.0], [0.0]])
    assert relative_entropy(half) == pytest.approx(0.5)
    # The mean over classes: one class undecided, one decided.
    mixed = torch.tensor([[0.5, 1.0], [0.5, 0.0]])
    assert relative_entropy(mixed) == pytest.approx(0.5)
    skewed = torch.tensor([[0.9], [0.1]])
    expected = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)
    assert relative_entropy(skewed) == pytest.approx(expected)


@given(st.integers(0, 1000), st.integers(2, 8), st.integers(1, 5))
def test_relative_entropy_does_not_feel_the_order(seed: int, experts: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    alpha = torch.randn(experts, classes, generator=generator).double().softmax(dim=0)
    value = relative_entropy(alpha)
    assert 0 <= value <= 1 + 1e-12
    order = torch.randperm(experts, generator=generator)
    assert relative_entropy(alpha[order]) == pytest.approx(value)
