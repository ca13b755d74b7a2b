r"""Whether a row is better than another beyond the chance of its seeds, or of its test items.

Over seeds, :math:`d_s = a_s - b_s` of the seeds that both rows have is Student's :math:`t` with
:math:`n - 1` degrees of freedom; rows without common seeds are told apart by Welch's test. Over
items, test items are resampled with what both rows predicted on each of them kept together, and the
official metric is taken anew on every draw: a score such as ROC-AUC is no mean over items.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from graphmoe.benchmark.resampled import (
    Evaluate,
    can_be_fast,
    draw_weights,
    fast_scores,
    slow_scores,
)
from graphmoe.benchmark.results import Comparison, Row, Test, Verdict
from graphmoe.errors import DataError
from graphmoe.evaluation.metrics import mean_std, paired_interval

LEVEL = 0.95
#: Differences below this share of the scores are rounding, whatever their interval says: two runs
#: with other threads differ in the last bits, and by the same bits for every seed.
ROUNDING = 1e-6
DRAWS = 2000
#: Of metrics that are computed one resample at a time.
SLOW_DRAWS = 300


def compare_rows(a: Row, b: Row, higher_is_better: bool, level: float = LEVEL) -> Comparison | None:
    """Two rows over their seeds; ``None`` where one of them has no score at all.

    Seeds of both are paired; with less than two of those, each row is a sample of its own.

    Args:
        a: What is asked about; a positive difference says that it scores higher.
        b: What it is compared with.
        higher_is_better: Direction of the metric.
        level: Of the interval.
    """
    ours, theirs = a.scored, b.scored
    if not ours or not theirs:
        return None
    common = sorted(ours.keys() & theirs.keys())
    if len(common) > 1:
        x, y = ([scores[seed] for seed in common] for scores in (ours, theirs))
        difference, low, high = paired_interval(x, y, level)
        p = _t_p([i - j for i, j in zip(x, y, strict=True)])
        return _comparison(
            a.name, b.name, difference, (low, high), p, "paired-t", len(common), level,
            higher_is_better, size=max(map(abs, (*x, *y))),
        )  # fmt: skip
    x, y = list(ours.values()), list(theirs.values())
    difference = mean_std(x)[0] - mean_std(y)[0]
    interval, welch_p = None, None
    if len(x) > 1 and len(y) > 1:
        interval, welch_p = _welch(x, y, level)
    return _comparison(
        a.name, b.name, difference, interval, welch_p, "welch-t", min(len(x), len(y)), level,
        higher_is_better, size=max(map(abs, (*x, *y))),
    )  # fmt: skip


def compare_pairs(
    pairs: Iterable[tuple[str, str]],
    rows: Iterable[Row],
    higher_is_better: bool,
    level: float = LEVEL,
) -> tuple[Comparison, ...]:
    """Rows with others over seeds, by their names; pairs without a score are left out."""
    by_name = {row.name: row for row in rows}
    found = (compare_rows(by_name[a], by_name[b], higher_is_better, level) for a, b in pairs)
    return tuple(comparison for comparison in found if comparison is not None)


def compare_items(
    names: tuple[str, str],
    predictions: tuple[Mapping[int, Tensor], Mapping[int, Tensor]],
    y: Tensor,
    evaluate: Evaluate,
    higher_is_better: bool,
    *,
    metric: str = "",
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Comparison:
    r"""Two rows by paired bootstrap over the test items.

    Per draw, :math:`n` of :math:`n` items come with replacement, the same for both rows and all
    seeds; each row's score is the mean over its seeds. The interval is that of the percentiles;
    :math:`p = 2 \min(P(\delta^* \le 0), P(\delta^* \ge 0))` with the sample counted as one draw.
    Draws on which the metric is not defined (one class alone) are left out.

    Args:
        names: Of the two rows.
        predictions: By seed what each predicted for the test items, shape :math:`(n, T)`.
        y: What is true, shape :math:`(n, T)`.
        evaluate: The official metric, of ``y`` and predictions.
        higher_is_better: Its direction.
        metric: Its name; the common ones are computed for all draws at once.
        draws: Number of resamples; of other metrics at most :data:`SLOW_DRAWS`.
        seed: Of the draws.
        level: Of the interval.

    Raises:
        DataError: Predictions of other items, of no seed, or a metric that half of the draws do
            not define.
    """
    for name, by_seed in zip(names, predictions, strict=True):
        wrong = {s: tuple(p.shape) for s, p in by_seed.items() if p.size(0) != y.size(0)}
        if not by_seed or wrong:
            raise DataError(
                f"{name}: expected predictions of {y.size(0)} test items for at least one seed, "
                f"got {wrong or 'none'}"
            )
    every = [p for by_seed in predictions for p in by_seed.values()]
    fast = all(can_be_fast(metric, y, p, evaluate) for p in every)

    def mean_scores(by_seed: Mapping[int, Tensor], weights: np.ndarray) -> np.ndarray:
        scores = [
            fast_scores(metric, y, p, weights) if fast else slow_scores(y, p, weights, evaluate)
            for p in by_seed.values()
        ]
        return np.mean(scores, axis=0)

    ours, theirs = (
        mean_std([evaluate(y, p) for p in by_seed.values()])[0] for by_seed in predictions
    )
    blocks = [
        mean_scores(predictions[0], weights) - mean_scores(predictions[1], weights)
        for weights in draw_weights(y.size(0), draws if fast else min(draws, SLOW_DRAWS), seed)
    ]
    gaps = np.concatenate(blocks)
    tried, gaps = len(gaps), gaps[np.isfinite(gaps)]
    if len(gaps) < tried / 2:
        raise DataError(
            f"the metric is not defined on {tried - len(gaps)} of {tried} resamples of "
            f"{y.size(0)} test items: too few of a class to resample"
        )
    tiny = 1e-12 * max(1.0, abs(ours), abs(theirs))
    below, above = int((gaps <= tiny).sum()), int((gaps >= -tiny).sum())
    low, high = np.quantile(gaps, [0.5 - level / 2, 0.5 + level / 2])
    p = min(1.0, 2 * (min(below, above) + 1) / (len(gaps) + 1))
    return _comparison(
        *names, ours - theirs, (float(low), float(high)), p, "bootstrap-items", y.size(0), level,
        higher_is_better, size=max(abs(ours), abs(theirs)),
    )  # fmt: skip


def verdict_of(
    low: float | None, high: float | None, higher_is_better: bool, size: float = 0.0
) -> Verdict:
    """What an interval of differences says, in the direction of the metric.

    Args:
        low: Its lower end.
        high: Its upper end.
        higher_is_better: Direction of the metric.
        size: Of the scores; differences far below it are rounding.
    """
    rounding = ROUNDING * size
    if low is not None and low > rounding:
        return "better" if higher_is_better else "worse"
    if high is not None and high < -rounding:
        return "worse" if higher_is_better else "better"
    return "not shown"


def _comparison(
    a: str,
    b: str,
    difference: float,
    interval: tuple[float, float] | None,
    p: float | None,
    test: Test,
    n: int,
    level: float,
    higher_is_better: bool,
    size: float,
) -> Comparison:
    low, high = interval or (None, None)
    return Comparison(
        a=a, b=b, difference=difference, low=low, high=high, level=level, p=p, test=test, n=n,
        verdict=verdict_of(low, high, higher_is_better, size),
    )  # fmt: skip


def _t_p(gaps: Sequence[float]) -> float:
    """Two-sided p of Student's test that the mean of ``gaps`` is 0."""
    from scipy.stats import t

    mean, std = mean_std(gaps)
    if std == 0:  # the same difference for every seed
        return 1.0 if mean == 0 else 0.0
    return float(2 * t.sf(abs(mean) / (std / math.sqrt(len(gaps))), len(gaps) - 1))


def _welch(x: Sequence[float], y: Sequence[float], level: float) -> tuple[Any, float]:
    from scipy.stats import ttest_ind

    (mean_x, std_x), (mean_y, std_y) = mean_std(x), mean_std(y)
    if std_x == std_y == 0:
        gap = mean_x - mean_y
        return (gap, gap), 1.0 if gap == 0 else 0.0
    found = ttest_ind(x, y, equal_var=False)
    low, high = found.confidence_interval(level)
    return (float(low), float(high)), float(found.pvalue)
