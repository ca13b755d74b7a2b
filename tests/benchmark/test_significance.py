"""Tests over seeds and over items give what the textbook gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind, ttest_rel
from sklearn.metrics import roc_auc_score
from torch import Tensor

from graphmoe.benchmark.item_tests import item_comparisons
from graphmoe.benchmark.resampled import can_be_fast, draw_weights, fast_scores, slow_scores
from graphmoe.benchmark.results import Row, SeedResult
from graphmoe.benchmark.significance import compare_items, compare_pairs, compare_rows
from graphmoe.errors import DataError

A = (0.71, 0.74, 0.69, 0.78, 0.73)
B = (0.70, 0.70, 0.68, 0.71, 0.72)


def row(scores: tuple[float, ...], name: str = "a", first: int = 0) -> Row:
    seeds = [SeedResult(seed=first + i, test=score) for i, score in enumerate(scores)]
    return Row.of(name, seeds)


def test_common_seeds_are_paired_as_students_test_has_it() -> None:
    found = compare_rows(row(A), row(B, "b"), True)
    wanted = ttest_rel(A, B)
    assert found is not None
    assert found.p == pytest.approx(wanted.pvalue)
    interval = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.difference == pytest.approx(np.mean(A) - np.mean(B))
    assert (found.test, found.n) == ("paired-t", 5)


def test_only_the_seeds_of_both_are_paired() -> None:
    one, other = row(A), row(B, "b", first=2)  # common: 2, 3, 4
    found = compare_rows(one, other, True)
    assert found is not None
    assert found.n == 3
    assert found.p == pytest.approx(ttest_rel(A[2:], B[:3]).pvalue)


def test_rows_without_common_seeds_are_told_apart_as_welch_has_it() -> None:
    found = compare_rows(row(A), row(B, "b", first=100), True)
    wanted = ttest_ind(A, B, equal_var=False)
    assert found is not None
    assert found.test == "welch-t"
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.low == pytest.approx(wanted.confidence_interval(0.95).low)


@pytest.mark.parametrize(("higher", "verdict"), [(True, "better"), (False, "worse")])
def test_the_verdict_follows_the_direction_of_the_metric(higher: bool, verdict: str) -> None:
    a, b = row((1.0, 1.1, 1.2)), row((0.5, 0.61, 0.7), "b")
    one, other = compare_rows(a, b, higher), compare_rows(b, a, higher)
    assert one is not None
    assert other is not None
    assert (one.verdict, {one.verdict, other.verdict}) == (verdict, {"better", "worse"})
    assert other.difference == pytest.approx(-one.difference)


def test_what_cannot_be_told_is_not_told() -> None:
    single = compare_rows(row((0.9,)), row((0.1,), "b"), True)
    assert single is not None
    assert (single.low, single.p, single.verdict) == (None, None, "not shown")
    failed = Row.of("c", [SeedResult(seed=0, failure="NaN")])
    assert compare_rows(failed, row(A), True) is None
    assert compare_pairs([("c", "a")], [failed, row(A)], True) == ()


def test_the_last_bits_of_a_float_are_no_difference() -> None:
    shifted = tuple(a * (1 - 1e-9) for a in A)
    found = compare_rows(row(shifted), row(A, "b"), True)
    assert found is not None
    assert found.verdict == "not shown"
    same = compare_rows(row(A), row(A, "b"), True)
    assert same is not None
    assert (same.difference, same.p) == (0.0, 1.0)


# ------------------------------------------------------------------ over items


def auc(y: Tensor, pred: Tensor) -> float:
    """Mean over columns as OGB has it: labels only, and both kinds of them."""
    scores = []
    for t in range(y.size(1)):
        known = ~y[:, t].isnan()
        if y[known, t].unique().numel() == 2:
            scores.append(roc_auc_score(y[known, t], pred[known, t]))
    if not scores:
        raise DataError("one class alone")
    return float(np.mean(scores))


def rmse(y: Tensor, pred: Tensor) -> float:
    return float((y - pred).square().mean().sqrt())


def accuracy(y: Tensor, pred: Tensor) -> float:
    return float((y == pred.argmax(dim=1)).double().mean())


def sample(metric: str, n: int = 40) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    if metric == "acc":
        return torch.randint(3, (n,)), torch.randn(n, 3)
    if metric == "rmse":
        return torch.randn(n, 1), torch.randn(n, 1)
    y = (torch.rand(n, 2) < 0.3).float()
    y[::5, 1] = torch.nan
    return y, torch.randn(n, 2).round(decimals=1)  # with ties


METRICS = {"rocauc": auc, "rmse": rmse, "acc": accuracy}


@pytest.mark.parametrize("metric", METRICS)
def test_all_resamples_at_once_score_as_one_by_one(metric: str) -> None:
    y, pred = sample(metric)
    [weights] = draw_weights(len(y), 50, seed=0)
    assert (weights.sum(axis=1) == len(y)).all()
    assert can_be_fast(metric, y, pred, METRICS[metric])
    slow = slow_scores(y, pred, weights, METRICS[metric])
    np.testing.assert_allclose(fast_scores(metric, y, pred, weights), slow, rtol=1e-5)


def test_a_metric_that_is_not_the_official_one_is_not_used() -> None:
    y, pred = sample("rocauc")
    assert not can_be_fast("rocauc", y, pred, lambda y, p: auc(y, p) + 0.01)
    assert not can_be_fast("hits@20", y, pred, auc)


def test_a_resample_of_one_class_defines_no_score() -> None:
    y, pred = torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[0.3], [0.2], [0.1]])
    weights = np.array([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    for found in (
        fast_scores("rocauc", y, pred, weights),
        slow_scores(y, pred, weights, auc),
    ):
        assert np.isnan(found[0])
        assert found[1] == 1.0


@pytest.mark.parametrize("metric", ["rmse", "another name"])
def test_the_bootstrap_agrees_with_the_deviation_of_the_mean(metric: str) -> None:
    # With a metric that is a mean, the interval is that of the paired differences.
    torch.manual_seed(0)
    y, x = torch.zeros(400, 1), torch.rand(400, 1)
    other = x + 0.05 * torch.randn(400, 1) + 0.01
    mean = {0: x}, {0: other}
    found = compare_items(
        ("a", "b"), mean, y, lambda y, p: float(p.mean()), False, metric=metric, draws=400
    )
    gaps = (x - other).flatten()
    half = 1.96 * float(gaps.std()) / 20
    assert found.difference == pytest.approx(float(gaps.mean()), abs=1e-6)
    assert found.high is not None
    assert found.low is not None
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.2)
    assert (found.n, found.test, found.verdict) == (400, "bootstrap-items", "better")


def test_seeds_of_a_row_are_averaged_before_items_are_resampled() -> None:
    y, pred = sample("rmse", 60)
    noise = 0.1 * torch.randn(60, 1)
    kept = {
        "a": {0: {"test": y + noise, "test_y": y}, 1: {"test": y - noise, "test_y": y}},
        "b": {0: {"test": pred, "test_y": y}},
        "c": {},
    }
    found, notes = item_comparisons([("a", "b"), ("a", "c")], kept, rmse, False, "rmse", draws=200)
    [only] = found
    assert notes == ()
    assert only.difference == pytest.approx(rmse(y, y + noise) - rmse(y, pred), abs=1e-5)
    assert only.verdict == "better"
    assert only == item_comparisons([("a", "b")], kept, rmse, False, "rmse", draws=200)[0][0]


def test_other_items_are_not_paired() -> None:
    y, pred = sample("rmse", 20)
    mine, yours = {"test": pred, "test_y": y}, {"test": pred, "test_y": y + 1}
    found, [note] = item_comparisons([("a", "b")], {"a": {0: mine}, "b": {0: yours}}, rmse, False)
    assert found == ()
    assert "other test items" in note
    with pytest.raises(DataError, match="expected predictions of 20 test items"):
        compare_items(("a", "b"), ({0: pred}, {0: pred[:3]}), y, rmse, False)
    with pytest.raises(DataError, match="too few of a class"):
        compare_items(("a", "b"), ({0: pred}, {0: pred}), y, _never, False, draws=4)


def _never(y: Tensor, pred: Tensor) -> float:
    if len(y.unique()) < len(y):  # every true resample repeats an item
        raise DataError("not defined")
    return 0.0
